"""Everything that decides a fit besides the recording itself.

A setting is one field of :class:`Settings`: its help, its panel, its limits and the tasks that know it are metadata of
the field, from which the command line makes the option. This module imports nothing heavy, so that the command line
can show its help at once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from numbers import Integral, Real
from typing import Any, get_args, get_type_hints

from dapcli.errors import SettingsError

PAPER_RATE = 16_000
MIN_RATE = 2_000
MAX_RATE = 1_000_000
SEGMENT_OVERLAP = 0.5
"""Cross-fade between neighbouring segments, s."""
MIN_SEGMENT = 3 * SEGMENT_OVERLAP
"""Shortest setting of ``segment``, s: neighbours' cross-fades must not meet."""

FIT_PANEL = "Single settings of the fit (they override the preset)"
RUN_PANEL = "Run"


def option(
    default: Any,
    text: str,
    *,
    panel: str = FIT_PANEL,
    flag: str | None = None,
    metavar: str | None = None,
    shown: str | None = None,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    tasks: tuple[str, ...] = (),
    estimators: tuple[str, ...] = (),
) -> Any:
    """A field of a dataclass that is an option of the command line.

    Args:
        default: Its value where it is not given.
        text: Its help, with the unit.
        panel: The group of options under which the help shows it.
        flag: Its name on the command line, by default that of the field; ``--yes/--no`` for both values of a flag.
        metavar: What the help shows in place of the type.
        shown: What the help shows as the default, if anything.
        above: Values must be greater than this ...
        least: ... not less than this ...
        below: ... and less than this.
        tasks: The tasks that know it; all where it is empty.
        estimators: The estimators that it has an effect on; all where it is empty.
    """
    words = {"help": text, "panel": panel, "flag": flag, "metavar": metavar, "shown": shown}
    limits = {"above": above, "least": least, "below": below}
    return field(default=default, metadata={**words, **limits, "tasks": tasks, "estimators": estimators})


#: An option of one command, or of one task, alone.
own = partial(option, panel="Options")


def check_limits(values: Any) -> None:
    """Raise ``SettingsError`` where an option of a dataclass is not finite, or not within its limits."""
    for each in fields(values):
        value = getattr(values, each.name)
        if each.metadata and isinstance(value, (int, float)) and not isinstance(value, bool):
            above, least, below = (each.metadata[name] for name in ("above", "least", "below"))
            name = each.metadata["flag"] or f"--{each.name.replace('_', '-')}"
            if not math.isfinite(value):
                raise SettingsError(f"{name} must be a finite number")
            if not above < value < below or value < least:
                limits = {f"above {above:g}": above, f"at least {least:g}": least, f"below {below:.6g}": below}
                words = " and ".join(text for text, limit in limits.items() if math.isfinite(limit))
                raise SettingsError(f"{name} must be {words}")


# Kinds of values, with what numpy has for such, and in words.
_KINDS: dict[type, tuple[type, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    str: (str, "a name"),
}


def make_types(values: Any) -> None:
    """Make the fields of a dataclass the numbers and names that they are declared to be.

    Raises:
        SettingsError: One is something else.
    """
    for name, hint in get_type_hints(type(values)).items():
        value = getattr(values, name)
        kind, *none = get_args(hint) or (hint,)
        allowed, words = _KINDS[kind]
        if value is None and none:
            continue
        if isinstance(value, bool) or not isinstance(value, allowed):
            raise SettingsError(f"{name} is {value!r}; give {words}{' or None' if none else ''}")
        object.__setattr__(values, name, kind(value))


@dataclass(frozen=True)
class Settings:
    """The settings of one fit. The defaults are those of ``dap denoise``'s ``quality`` preset.

    Lengths are in seconds, so that they scale with the sample rate.

    Raises:
        SettingsError: A value is of another type, or a number out of range.
    """

    prior: str = own("exp-dense", "Network; `dap priors` lists them. none leaves the classical estimate, if any.")
    estimator: str = option("mask", "How the network's output becomes an estimate; see the task's help.")
    stop: str = option(
        "auto", "Stopping rule: auto, fixed, oracle (needs --reference), held-out (denoise), validation."
    )
    post_filter: str = option("none", "Filter after the fit: none or wiener.", tasks=("denoise",))
    iterations: int = option(40, "Iterations of pretraining on the recording, or of each segment's fit.", above=0)
    finetune_iterations: int = option(
        16,
        "Iterations for each segment after pretraining; 0 fits every segment anew.",
        least=0,
        tasks=("denoise",),
    )
    optimizer: str = option("muon", "Optimizer: muon or adam (the papers').")
    learning_rate: float = option(
        0.05, "Step size of the optimizer; halved, and decaying to 0, during finetuning.", above=0
    )
    base_channels: int = option(8, "Filters of the network's first convolution (35 in the papers).", above=0)
    fold: int = option(2, "Bins and frames folded into one for the network: 2 is a quarter of the work.", above=0)
    dilation: int = option(4, "Dilation of --prior dilated.", above=0)
    recorruption_scale: float = option(
        0.7,
        "Size of the noise added in every iteration, relative to the recording's (mask).",
        above=0,
        tasks=("denoise",),
        estimators=("mask",),
    )
    input_noise: float = option(
        0.0,
        "Standard deviation of the noise added to the network's input in every iteration (not mask, ensemble).",
        least=0,
        estimators=("generate", "frames", "dnp-lsa", "dnp-wiener", "ratio-mask", "double-dip"),
    )
    ema_decay: float = option(0.95, "Weight of the past in the running average of estimates.", least=0, below=1)
    window: float = option(1022 / PAPER_RATE, "Length of the STFT's window, s.", above=0)
    window_shape: str = option("hann", "Shape of the STFT's window: hann or box.")
    hop: float = option(128 / PAPER_RATE, "Distance of the STFT's frames, s.", above=0)
    segment: float = option(
        4.0, "Longest stretch fitted at once, s, at least 1.5; memory grows with it.", least=MIN_SEGMENT
    )
    rate: int | None = option(
        None,
        "Work at this sample rate, Hz (the output keeps the input's).",
        least=MIN_RATE,
        below=MAX_RATE + 1,
        tasks=("denoise", "separate"),
    )
    noise_model: str = own("auto", "How the noise may move: auto, steady or moving.", tasks=("denoise",))
    attenuation_limit: float | None = own(
        None,
        "Lower noise by this much at the most, dB; by default, as far as the sound stays whole (mask).",
        metavar="DB",
        least=0,
        tasks=("denoise",),
        estimators=("mask",),
    )
    precision: str = option("auto", "Type that convolutions compute in: auto, float32 or bfloat16.")
    seed: int = option(0, "Seed of all random numbers.", panel=RUN_PANEL, least=0, below=2**63)

    def __post_init__(self) -> None:
        make_types(self)
        check_limits(self)
        if self.hop > self.window / 2:
            raise SettingsError("--hop must be at most half of --window, or samples between frames are lost")
        if self.segment < 4 * self.window:
            raise SettingsError("--segment must be at least four windows")


def look_up(name: str, registry: Collection[str], what: str) -> None:
    """Raise ``SettingsError`` unless a registry knows a name."""
    if name not in registry:
        raise SettingsError(f"unknown {what} {name!r}; choose one of {', '.join(registry)}")


def choose_settings(presets: Mapping[str, Settings], preset: str | None, given: Mapping[str, Any]) -> Settings:
    """A preset's settings, by default those of ``quality``, with those that were given; None stands for not given.

    An estimator for which the preset was not made brings the preset of its own name, if there is one: steps that suit
    one estimator spoil the other's fit.

    Raises:
        SettingsError: The preset is unknown, or a setting out of range.
    """
    preset = preset or "quality"
    look_up(preset, presets, "preset")
    estimator = given.get("estimator")
    if estimator in presets and estimator != presets[preset].estimator:
        preset = str(estimator)
    return replace(presets[preset], **{name: value for name, value in given.items() if value is not None})
