"""The commands that print tables: ``dap score``, ``dap priors`` and ``dap doctor``."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dapcli.cli.command import ACCEPT_TRUNCATED, REQUIRED, Command, argument, own
from dapcli.settings import PAPER_RATE, choose_settings
from dapcli.tasks import TASKS

if TYPE_CHECKING:
    from dapcli.report.table import Table

_PRESETS = TASKS["denoise"].presets
_PRESET = f"Named set of settings: {', '.join(_PRESETS)}."
# Titles of columns, and how each is made of a line.
_COSTS = {
    "prior": "{name}",
    "what it is": "{summary}",
    "parameters": "{parameters:,}",
    "seconds": "{receptive_field_s:.2f}",
    "Hz": "{receptive_field_hz:.0f}",
    "GFLOP": "{gflop_per_iteration:.1f}",
}
_SPEEDS = {"prior": "{prior}", "device": "{device}", "type": "{dtype}", "s per iteration": "{took}"}


@dataclass(frozen=True, kw_only=True)
class TableCommand(Command):
    """A command that prints tables on stdout, or an object."""

    as_json: bool = own(False, "Print JSON, and no tables.", flag="--json")

    def show(self, values: Any, *parts: Table | str) -> None:
        """Print values as JSON, or tables and lines that tell the same."""
        from rich.console import Console

        from dapcli.report.table import to_console

        if self.as_json:
            parts = (json.dumps(values, indent=2, allow_nan=False),)
        console = Console(highlight=False, markup=False)
        for part in parts:
            console.print(part if isinstance(part, str) else to_console(part), soft_wrap=isinstance(part, str))


@dataclass(frozen=True, kw_only=True)
class Score(TableCommand):
    """Compare existing recordings with their clean reference, by all metrics.

    Prints a table, or with --json one object: for each EST its metrics, and under notes why a metric is null.
    """

    examples: ClassVar[tuple[str, ...]] = ("clean.wav out.wav", "clean.wav a.wav b.wav --json")

    reference: Path = argument(REQUIRED, "Clean recording.", metavar="REF")
    estimates: tuple[Path, ...] = argument(REQUIRED, "Recordings to compare with it.", metavar="EST...")
    accept_truncated: bool = own(False, ACCEPT_TRUNCATED)

    def run(self) -> None:
        """Print the metrics."""
        from dapcli.audio import open_audio, open_matching
        from dapcli.metrics import describe_alignment, score
        from dapcli.report.table import metric_table

        reading = {"accept_truncated": self.accept_truncated}
        with open_audio(self.reference, **reading) as clean:
            reference, read = clean.read(0, clean.length), clean.notes
        scores: dict[str, dict[str, Any]] = {}
        for path in self.estimates:
            with open_matching(path, clean, **reading) as file:
                estimate = file.read(0, file.length)
            values, notes = score(reference, estimate, clean.rate)
            if words := describe_alignment(reference, estimate, clean.rate):
                notes["alignment"] = words
            notes |= {f"input_{number}": note for number, note in enumerate((*read, *file.notes), 1)}
            scores[str(path)] = {"metrics": values, "notes": notes}
        table = metric_table({name: each["metrics"] for name, each in scores.items()})
        reasons = [(name, metric, note) for name, each in scores.items() for metric, note in each["notes"].items()]
        self.show(scores, table, *map(": ".join, reasons))


@dataclass(frozen=True, kw_only=True)
class Priors(TableCommand):
    """List the priors: parameters, receptive field and cost.

    All for one second of mono at 16 kHz with the STFT and the base channels of the preset; GFLOP count the forward and
    the backward pass of one iteration.
    """

    examples: ClassVar[tuple[str, ...]] = ("", "--preset paper --json")

    preset: str = own("quality", _PRESET)
    base_channels: int | None = own(None, "Filters of the network's first convolution.", above=0)

    def run(self) -> None:
        """Print what the priors cost."""
        settings = choose_settings(_PRESETS, self.preset, {"base_channels": self.base_channels})
        from dapcli.priors.cost import describe_priors
        from dapcli.report.table import tabulate

        costs = [asdict(cost) for cost in describe_priors(settings, PAPER_RATE)]
        self.show(
            {cost["name"]: cost for cost in costs},
            tabulate(costs, _COSTS, texts=2),
            f"preset {self.preset}: {settings.base_channels} base channels, estimator {settings.estimator}; "
            "receptive field in seconds and Hz,\n"
            "GFLOP of one iteration, forward and backward, on one second of mono at 16 kHz",
        )


@dataclass(frozen=True, kw_only=True)
class Doctor(TableCommand):
    """Show versions and devices, measure how fast each prior fits, and estimate the time for a recording.

    With IN it measures the preset's prior, on noise of the length, rate and channels of one of its segments; without,
    all priors on one second of mono at 16 kHz.
    """

    examples: ClassVar[tuple[str, ...]] = ("", "long.wav --preset fast", "--prior conv --prior exp-dense --device cpu")

    input_path: Path | None = argument(None, "Recording to estimate the time for.", metavar="[IN]")
    preset: str = own("quality", _PRESET)
    prior: tuple[str, ...] = own((), "Prior to measure, may be repeated.")
    device: tuple[str, ...] = own((), "Device to measure, may be repeated.", shown="all")
    accept_truncated: bool = own(False, ACCEPT_TRUNCATED)
    seconds: float = own(10.0, "How long to measure each, s.", least=0.1)

    def run(self) -> None:
        """Measure, and print machine and speeds."""
        settings = choose_settings(_PRESETS, self.preset, {})
        from dapcli.audio import open_audio

        with ExitStack() as files:
            recording = (
                files.enter_context(open_audio(self.input_path, accept_truncated=self.accept_truncated))
                if self.input_path
                else None
            )
            from dapcli.report.console import make_console
            from dapcli.report.table import Table, row, tabulate
            from dapcli.report.words import count, duration
            from dapcli.tasks import speed
            from dapcli.tasks.check import usable_priors

            machine = speed.describe_machine()
            shape = speed.segment_shape(recording, settings) if recording else speed.USUAL_SHAPE
            speeds, lines = [], []
            with make_console().status("") as status:
                started = time.process_time()  # as long as every command takes to begin
                usable = usable_priors(TASKS["denoise"], settings.estimator)
                priors = self.prior or ([settings.prior] if recording else usable)
                for device, prior in product(self.device or machine["devices"], priors):
                    status.update(f"measuring {prior} on {device}")
                    chosen = replace(settings, prior=prior)
                    measured = speed.measure_speed(chosen, device, self.seconds, shape)
                    took, total, estimate = measured.note, "-", None
                    if measured.seconds:
                        took = f"{measured.seconds:.4f}"
                        if recording:
                            fits = speed.estimate_seconds(recording, chosen, device, measured.seconds)
                            estimate = started + fits
                            total = duration(estimate)
                    speeds.append({**asdict(measured), "estimate": estimate})
                    lines.append({**speeds[-1], "took": took, "total": total})

        channels, length, rate = shape
        measured_on = {"channels": channels, "samples": length, "sample_rate": rate}
        on = f"{length / rate:.3g} s of {count(channels, 'channel')} at {rate} Hz"
        words = [f"preset {self.preset}, an iteration on {on}"]
        notes = list(recording.notes) if recording else []
        words += notes
        if recording:
            words.append(f"estimates are for {self.input_path}, {duration(recording.length / recording.rate)} long")
        about = {**machine, **machine["devices"], "devices": None}
        named = Table((), [row(name, str(value)) for name, value in about.items() if value is not None], texts=2)
        columns = _SPEEDS | ({"estimate": "{total}"} if any(each["estimate"] for each in speeds) else {})
        result = {**machine, "preset": self.preset, "measured_on": measured_on, "speed": speeds, "notes": notes}
        self.show(result, named, "", tabulate(lines, columns, texts=3), *words)
