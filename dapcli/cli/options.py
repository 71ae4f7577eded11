"""Options that commands share, and what they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from dapcli.errors import SettingsError
from dapcli.settings import PRESETS, REPAIR_PRESETS, SEPARATION_PRESETS, Settings

_RUN = "Run"
_FIT = "Single settings of the fit (they override the preset)"
_OUTPUT = "Output"

Prior = Annotated[
    str | None, typer.Option("--prior", help="Network: conv, dilated, exp, exp-dense, ddunet; see `dap priors`.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=_RUN)]
Preset = Annotated[
    str, typer.Option("--preset", help=f"Named set of settings: {', '.join(PRESETS)}.", rich_help_panel=_RUN)
]
RepairPreset = Annotated[
    str, typer.Option("--preset", help=f"Named set of settings: {', '.join(REPAIR_PRESETS)}.", rich_help_panel=_RUN)
]
SeparationPreset = Annotated[
    str,
    typer.Option(
        "--preset",
        help="Named set of settings: quality, fast, or with --method paper also paper.",
        rich_help_panel=_RUN,
    ),
]
Parallel = Annotated[
    int | None,
    typer.Option("--parallel", min=1, help="Segments to fit at the same time; memory grows.", rich_help_panel=_RUN),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on where an interrupted run has left OUT.partial.", rich_help_panel=_RUN)
]
SeparationResume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on where an interrupted run has left OUTDIR/separation.partial.", rich_help_panel=_RUN
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of all random numbers.", rich_help_panel=_RUN)]
Reference = Annotated[
    Path | None,
    typer.Option("--reference", help="Clean recording to compute metrics against.", rich_help_panel=_OUTPUT),
]
References = Annotated[
    list[Path] | None,
    typer.Option(
        "--reference", help="A source as it was, to compute metrics against; once for each.", rich_help_panel=_OUTPUT
    ),
]
FixedOrder = Annotated[
    bool,
    typer.Option("--fixed-order", help="Compare each source with the reference in its place.", rich_help_panel=_OUTPUT),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.", rich_help_panel=_OUTPUT)]
Report = Annotated[
    Path | None,
    typer.Option("--report", help="Also write one HTML page with players and pictures.", rich_help_panel=_OUTPUT),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print the JSON record on stdout, nothing else.", rich_help_panel=_OUTPUT)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and no summary, only errors.", rich_help_panel=_OUTPUT)
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=_OUTPUT)]


def _setting(kind: Any, flag: str, text: str) -> Any:
    return Annotated[kind | None, typer.Option(flag, help=text, rich_help_panel=_FIT, show_default=False)]


Estimator = _setting(
    str, "--estimator", "mask: filter the recording; generate: paint it out of noise, as in the papers."
)
RepairEstimator = _setting(
    str, "--estimator", "mix: mix classical restorations; generate: paint it out of noise, as in the papers."
)
Method = Annotated[
    str,
    typer.Option(
        "--method",
        help="share the mixture out by what is known of its sources, or generate them as the paper does.",
        metavar="share|paper",
        rich_help_panel=_RUN,
    ),
]
Stop = _setting(
    str,
    "--stop",
    "auto, fixed, held-out, discrepancy, windowed-variance, exponential-variance, or oracle (needs --reference).",
)
RepairStop = _setting(
    str,
    "--stop",
    "auto, fixed, validation, windowed-variance, exponential-variance, or oracle (needs --reference).",
)
SeparationStop = _setting(
    str,
    "--stop",
    "auto, fixed, windowed-variance, exponential-variance, or oracle (needs a --reference per source, in their order).",
)
PostFilter = _setting(str, "--post-filter", "none or wiener.")
Iterations = _setting(
    int, "--iterations", "Iterations of learning from the recording (mask), or of each segment's fit at the most."
)
RepairIterations = _setting(int, "--iterations", "Iterations of each segment's fit at the most.")
Refinement = _setting(
    int, "--refinement", "Iterations for each segment after what was learned; 0: every segment is fitted anew."
)
Optimizer = _setting(str, "--optimizer", "muon or adam.")
LearningRate = _setting(float, "--learning-rate", "Step size of the optimizer.")
Width = _setting(int, "--width", "Filters of the network's first convolution (35 in the papers).")
Fold = _setting(int, "--fold", "Bins and frames folded into one for the network: 2 is a quarter of the work.")
Dilation = _setting(int, "--dilation", "Dilation of --prior dilated.")
RepairPerturbation = _setting(
    float, "--perturbation", "Noise added to the network's input in every iteration, relative (generate only)."
)
Perturbation = _setting(float, "--perturbation", "Noise added to the network's input in every iteration, relative.")
Averaging = _setting(float, "--averaging", "Weight of the past in the average of estimates, 0 to 1.")
Window = _setting(float, "--window", "Length of the STFT window, s.")
Hop = _setting(float, "--hop", "Distance of STFT frames, s.")
Segment = _setting(float, "--segment", "Longest stretch fitted at once, s; memory grows with it.")
Rate = _setting(int, "--rate", "Work at this sample rate, Hz (the output keeps the input's).")
Precision = _setting(str, "--precision", "auto, float32 or bfloat16.")


def make_settings(preset: str, presets: Mapping[str, Settings] = PRESETS, **given: Any) -> Settings:
    """A preset's settings with those that were given on the command line; None stands for not given.

    An estimator for which the preset was not made brings the preset of its own name, if there is one: steps that suit
    one estimator spoil the other's fit.

    Raises:
        SettingsError: The preset is unknown, or a setting out of range.
    """
    if preset not in presets:
        raise SettingsError(f"unknown preset {preset!r}; choose one of {', '.join(presets)}")
    estimator = given.get("estimator")
    if isinstance(estimator, str) and estimator in presets and estimator != presets[preset].estimator:
        preset = estimator
    return replace(presets[preset], **{name: value for name, value in given.items() if value is not None})


def separation_presets(method: str) -> Mapping[str, Settings]:
    """The presets of a method of separation.

    Raises:
        SettingsError: There is no such method.
    """
    if method not in SEPARATION_PRESETS:
        raise SettingsError(f"unknown method {method!r}; choose one of {', '.join(SEPARATION_PRESETS)}")
    return SEPARATION_PRESETS[method]


def parse_range(text: str | None, option: str) -> tuple[float, float] | None:
    """Both ends of ``LOW:HIGH``, or one number as both, None of None.

    Raises:
        SettingsError: The text is not of this form.
    """
    if text is None:
        return None
    try:
        low, *high = (float(part) for part in text.split(":"))
        (most,) = high or (low,)
    except ValueError:
        raise SettingsError(f"{option} {text}: give LOW:HIGH or one number") from None
    return low, most


def existing_file(text: str) -> Path | None:
    """The file that a text names, None if it names none."""
    path = Path(text)
    return path if path.is_file() else None


def parse_stretch(text: str | None, option: str) -> tuple[float, float] | None:
    """Start and end of ``START:END`` in seconds, None of None.

    Raises:
        SettingsError: The text is not of this form.
    """
    if text is None:
        return None
    try:
        start, stop = (float(part) for part in text.split(":"))
    except ValueError:
        raise SettingsError(f"{option} {text}: no such file, and not START:END in seconds, such as 0.0:0.5") from None
    return start, stop
