"""The tasks: what ``dap`` does to a recording, in one table.

To add a task, write a function like those it names, a dataclass of its options, and a line in :data:`TASKS`; the
command line, the evaluation and the tests that run over the table then know it. To add an objective, give it a line
in the ``estimators`` of its task. This module imports nothing heavy: what fits is named by ``module:name``, and loaded
when it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from dapcli.settings import PAPER_RATE, Settings
from dapcli.tasks.options import (
    DeclipOptions,
    DenoiseOptions,
    DequantizeOptions,
    InpaintOptions,
    SeparateOptions,
    TaskOptions,
)


def load(name: str) -> Any:
    """The object that ``module:name`` names."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


@dataclass(frozen=True)
class Estimator:
    """How a network's output becomes an estimate: an objective, and what stops its fit.

    ``stop`` is the rule that ``--stop auto`` stands for, the one that measured best (docs/results.md), and ``reason``
    why it suits. ``summary`` is for the help.
    """

    objective: str
    stop: str
    reason: str
    summary: str


@dataclass(frozen=True)
class Task:
    """One line of the table.

    ``function`` is the task's function of the Python API: it takes a recording, settings, the fields of a
    :class:`~dapcli.tasks.problem.Problem` that ``arguments`` names, and how to run. ``pose`` makes the problem out of
    a recording and the options of the command line. ``columns`` are the metrics of the task's table in an evaluation,
    ``details`` what the help says below the summary, ``examples`` what it shows after the command's name. The preset
    ``quality`` is the default.
    """

    summary: str
    function: str
    pose: str
    arguments: tuple[str, ...]
    options: type[TaskOptions]
    presets: Mapping[str, Settings]
    estimators: Mapping[str, Estimator]
    columns: tuple[str, ...]
    details: str = ""
    examples: tuple[str, ...] = ()


# What the papers' networks are fitted with, and on folded bins what suits all but masks.
_PLAIN: dict[str, Any] = {"optimizer": "adam", "learning_rate": 2e-3, "fold": 1, "finetune_iterations": 0}
_FOLDED: dict[str, Any] = {**_PLAIN, "fold": 2}

# The papers' estimator with what it takes to work without a reference: a blind stop, noise at the input, an average of
# estimates, a post-filter.
_GENERATE = Settings(
    **_PLAIN, estimator="generate", post_filter="wiener", iterations=400, base_channels=32, input_noise=0.1
)
# The Design paper to the letter, and as its released code does where the paper is silent.
_PAPER = Settings(
    **{**_PLAIN, "learning_rate": 1e-3},
    estimator="generate",
    stop="fixed",
    iterations=2000,
    base_channels=35,
    ema_decay=0.0,
    hop=64 / PAPER_RATE,
    rate=PAPER_RATE,
    precision="float32",
)
# The Harmonic paper's network and transform, for as long as its figures show.
_HARMONIC_PAPER = replace(_PAPER, prior="harmonic", window_shape="box", iterations=1000)
# Deep Network Prior (Michelashvili & Wolf 2019), as its released code has it.
_DNP = Settings(
    **{**_PLAIN, "learning_rate": 1e-3},
    prior="wave-unet",
    estimator="dnp-lsa",
    iterations=5000,
    base_channels=60,
    ema_decay=0.0,
    window=512 / PAPER_RATE,
    hop=128 / PAPER_RATE,
)
# What training pairs teach is little, and the classical candidates have done most of the work.
_ENSEMBLE = Settings(**_FOLDED, estimator="ensemble", base_channels=8, ema_decay=0.9, hop=256 / PAPER_RATE)
_RESTORATION = {
    # In gaps and clipped peaks more iterations change nothing, or make it worse.
    "quality": replace(_ENSEMBLE, iterations=10),
    "fast": replace(_ENSEMBLE, iterations=5),
    "generate": replace(_GENERATE, post_filter="none", iterations=200, base_channels=16),
}
# The window has to resolve tones.
_RATIO_MASK = Settings(
    **_FOLDED,
    estimator="ratio-mask",
    iterations=24,
    base_channels=8,
    input_noise=0.1,
    ema_decay=0.8,
    window=2048 / PAPER_RATE,
    hop=256 / PAPER_RATE,
)
_RESTORERS = {
    "ensemble": Estimator(
        "dapcli.objectives.ensemble:Ensemble",
        "validation",
        "what the network learns from training pairs must help with another one",
        "weigh classical restorations",
    ),
    "generate": Estimator(
        "dapcli.objectives.generate:ConsistentGeneration",
        "fixed",
        "there is no noise that the network could take up",
        "paint it out of noise",
    ),
}
_FRAMES = Estimator(
    "dapcli.objectives.generate:FrameGeneration",
    "fixed",
    "there is no noise that the network could take up",
    "paint it out of noise by the frames that lack nothing, as in the Design paper",
)

TASKS: dict[str, Task] = {
    "denoise": Task(
        "Remove noise from one recording.",
        "dapcli.tasks.denoise:denoise",
        "dapcli.tasks.denoise:pose",
        ("noise_profile",),
        DenoiseOptions,
        {
            "quality": Settings(),
            "fast": Settings(iterations=30, finetune_iterations=4),
            "generate": _GENERATE,
            "paper": _PAPER,
            "harmonic-paper": _HARMONIC_PAPER,
            "dnp-lsa": _DNP,
            "dnp-wiener": replace(_DNP, estimator="dnp-wiener"),
        },
        {
            "mask": Estimator(
                "dapcli.objectives.mask:Mask",
                "fixed",
                "a mask is fitted to its own estimated error and hardly takes up noise",
                "filter the recording",
            ),
            "generate": Estimator(
                "dapcli.objectives.generate:Generation",
                "held-out",
                "samples that the fit has not seen tell sound from noise",
                "paint it out of noise, as in the papers",
            ),
            "dnp-lsa": Estimator(
                "dapcli.objectives.fluctuation:LogSpectralFluctuation",
                "fixed",
                "what fluctuates shows over all iterations",
                "filter by what a fit settles on, as Deep Network Prior (log-spectral amplitude)",
            ),
            "dnp-wiener": Estimator(
                "dapcli.objectives.fluctuation:WienerFluctuation",
                "fixed",
                "what fluctuates shows over all iterations",
                "the same with its Wiener filter",
            ),
        },
        ("pesq_nb", "pesq_wb", "snr_db", "si_sdr_db", "stoi", "segmental_snr_db", "csig", "cbak", "covl"),
        "Writes OUT with the input's rate, channels, subtype and length, and beside it OUT with the suffix .json: "
        "every setting, why the fit stopped, the estimated noise and, with --reference, the metrics. Long recordings "
        "are restored in segments; those that are finished when a run is interrupted stay in OUT.partial, and "
        "--resume goes on from there.",
        (
            "in.wav out.wav --report out.html",
            "in.wav out.flac --preset fast",
            "in.wav out.wav --noise-profile 0:0.5",
            "in.wav out.wav --attenuation-limit 12",
        ),
    ),
    "inpaint": Task(
        "Fill the gaps of one recording.",
        "dapcli.tasks.restore:restore",
        "dapcli.tasks.restore:pose_gaps",
        ("degradation", "consistent"),
        InpaintOptions,
        {
            **_RESTORATION,
            "frames": replace(_RESTORATION["generate"], estimator="frames"),
            "paper": replace(_PAPER, estimator="frames", rate=None),
        },
        {**_RESTORERS, "frames": _FRAMES},
        ("gaps_snr_db", "spectral_snr_db", "envelope_distance", "snr_db"),
        "They are given with --gap, read with --mask or found with --detect. Writes OUT with the input's rate, "
        "channels, subtype and length, and beside it OUT with the suffix .json. Segments without gaps are copied.",
        (
            "in.wav out.wav --detect --dry-run",
            "in.wav out.wav --gap 1.20:1.26 --gap 3.5:3.52",
            "in.wav out.wav --mask labels.txt --report out.html",
        ),
    ),
    "declip": Task(
        "Restore the peaks of a clipped recording.",
        "dapcli.tasks.restore:restore",
        "dapcli.tasks.restore:pose_clipping",
        ("degradation", "consistent"),
        DeclipOptions,
        _RESTORATION,
        _RESTORERS,
        ("snr_db", "si_sdr_db", "pesq_nb", "stoi"),
        "Writes OUT with the input's rate, channels, subtype and length, and beside it OUT with the suffix .json. "
        "Where the peaks pass full scale in an integer format, all of OUT is lowered; as .wav of a float recording it "
        "is not.",
        (
            "in.wav out.wav",
            "in.wav out.wav --level 0.8 --report out.html",
        ),
    ),
    "dequantize": Task(
        "Restore a recording that was quantized to a few levels.",
        "dapcli.tasks.restore:restore",
        "dapcli.tasks.restore:pose_quantization",
        ("degradation", "consistent"),
        DequantizeOptions,
        {
            **_RESTORATION,
            "quality": _ENSEMBLE,
            "fast": replace(_ENSEMBLE, iterations=10),
            "harmonic-paper": replace(_HARMONIC_PAPER, rate=None),
        },
        _RESTORERS,
        ("snr_db", "si_sdr_db", "segmental_snr_db", "pesq_nb"),
        "Writes OUT with the input's rate, channels, subtype and length, and beside it OUT with the suffix .json.",
        ("in.wav out.wav --levels 16", "in.wav out.wav --report out.html"),
    ),
    "separate": Task(
        "Separate a mixture into its sources.",
        "dapcli.tasks.separate:separate",
        "dapcli.tasks.separate:pose",
        ("types", "consistent"),
        SeparateOptions,
        {
            "quality": _RATIO_MASK,
            # Fewer iterations are not enough for so small a network.
            "fast": replace(_RATIO_MASK, base_channels=4, learning_rate=4e-3),
            # The Design paper's method at a bearable cost, and to the letter, where it says so.
            "double-dip": Settings(
                **_PLAIN, estimator="double-dip", base_channels=16, iterations=300, ema_decay=0.9, hop=256 / PAPER_RATE
            ),
            "paper": replace(_PAPER, estimator="double-dip"),
        },
        {
            "ratio-mask": Estimator(
                "dapcli.objectives.ratio_mask:RatioMask",
                "fixed",
                "the structure of a separation is learned in the first iterations, its errors later",
                "mask the mixture by what is known of its sources",
            ),
            "double-dip": Estimator(
                "dapcli.objectives.double_dip:DoubleDIP",
                "fixed",
                "a mixture has no noise that the networks could take up",
                "paint the sources out of noise, as in the papers",
            ),
        },
        ("sdr_db", "sir_db", "sar_db", "spectral_snr_db", "envelope_distance"),
        "Writes one file per source into OUTDIR, each with the input's rate, channels, subtype and length, and "
        "separation.json beside them. The sources sum to the mixture. With one --reference per source, metrics "
        "compare them in the order that suits best.",
        (
            "in.wav parts --types harmonic,percussive --names piano,drums",
            "in.wav parts --types voice,harmonic --report parts.html",
        ),
    ),
}
