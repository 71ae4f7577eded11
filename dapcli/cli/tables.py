"""The commands that print tables: ``dap score``, ``dap priors`` and ``dap doctor``."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dapcli.cli.command import REQUIRED, Command, argument, own
from dapcli.settings import PAPER_RATE, choose_settings
from dapcli.tasks import TASKS

if TYPE_CHECKING:
    from dapcli.report.table import Table

_PRESETS = TASKS["denoise"].presets
_PRESET = f"Named set of settings: {', '.join(_PRESETS)}."


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

    reference: Path = argument(REQUIRED, "Clean recording.", metavar="REF")
    estimates: tuple[Path, ...] = argument(REQUIRED, "Recordings to compare with it.", metavar="EST...")

    def run(self) -> None:
        """Print the metrics."""
        from dapcli.audio import open_matching, read_audio
        from dapcli.metrics import score
        from dapcli.report.table import metric_table

        clean = read_audio(self.reference)
        scores: dict[str, dict[str, Any]] = {}
        for path in self.estimates:
            with open_matching(path, clean) as file:
                values, notes = score(clean.samples, file.read(0, file.length), clean.rate)
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

    preset: str = own("quality", _PRESET)
    base_channels: int | None = own(None, "Filters of the network's first convolution.", above=0)

    def run(self) -> None:
        """Print what the priors cost."""
        settings = choose_settings(_PRESETS, self.preset, {"base_channels": self.base_channels})
        from dapcli.priors.cost import describe_priors
        from dapcli.report.table import prior_table

        costs = describe_priors(settings, PAPER_RATE)
        self.show(
            {cost.name: asdict(cost) for cost in costs},
            prior_table(costs),
            f"preset {self.preset}: {settings.base_channels} base channels, estimator {settings.estimator}; "
            "receptive field in seconds and Hz,\n"
            "GFLOP of one iteration, forward and backward, on one second of mono at 16 kHz",
        )


@dataclass(frozen=True, kw_only=True)
class Doctor(TableCommand):
    """Show versions and devices, measure how fast each prior fits, and estimate the time for a recording.

    With IN it measures on noise of the length, rate and channels of one of its segments, without on one second of mono
    at 16 kHz.
    """

    input_path: Path | None = argument(None, "Recording to estimate the time for.", metavar="[IN]")
    preset: str = own("quality", _PRESET)
    prior: tuple[str, ...] = own((), "Prior to measure, may be repeated.", shown="all")
    device: tuple[str, ...] = own((), "Device to measure, may be repeated.", shown="all")
    seconds: float = own(10.0, "How long to measure each, s.", least=0.1)

    def run(self) -> None:
        """Measure, and print machine and speeds."""
        settings = choose_settings(_PRESETS, self.preset, {})
        from dapcli.audio import open_audio

        with ExitStack() as files:
            recording = files.enter_context(open_audio(self.input_path)) if self.input_path else None
            from dapcli.priors import PRIORS
            from dapcli.report.console import make_console
            from dapcli.report.table import machine_table, speed_table
            from dapcli.report.words import duration
            from dapcli.tasks import speed

            machine = speed.describe_machine()
            shape = speed.segment_shape(recording, settings) if recording else speed.USUAL_SHAPE
            rows = []
            with make_console().status("") as status:
                for device in self.device or machine["devices"]:
                    for prior in self.prior or PRIORS:
                        status.update(f"measuring {prior} on {device}")
                        chosen = replace(settings, prior=prior)
                        measured = speed.measure_speed(chosen, device, self.seconds, shape)
                        total = None
                        if recording and measured.seconds:
                            total = speed.estimate_seconds(recording, chosen, measured.seconds)
                        rows.append({**asdict(measured), "estimate": total})

        channels, length, rate = shape
        measured_on = {"channels": channels, "samples": length, "sample_rate": rate}
        on = f"{length / rate:.3g} s of {channels} channel{'s' if channels > 1 else ''} at {rate} Hz"
        lines = [f"preset {self.preset}, an iteration on {on}"]
        if recording:
            lines.append(f"estimates are for {self.input_path}, {duration(recording.length / recording.rate)} long")
        result = {**machine, "preset": self.preset, "measured_on": measured_on, "speed": rows}
        self.show(result, machine_table(machine), "", speed_table(rows), *lines)
