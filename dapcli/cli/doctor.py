"""``dap doctor``."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import typer

from dapcli.cli.command import OWN_PANEL, Command, argument
from dapcli.settings import choose_settings, option
from dapcli.tasks import TASKS

_PRESETS = TASKS["denoise"].presets


@dataclass(frozen=True, kw_only=True)
class Doctor(Command):
    """Show versions and devices, measure how fast each prior fits, and estimate the time for a recording.

    With IN it measures on noise of the length, rate and channels of one of its segments, without on one second of mono
    at 16 kHz.
    """

    input_path: Path | None = argument("[IN]", "Recording to estimate the time for.", None)
    preset: str = option("quality", f"Named set of settings: {', '.join(_PRESETS)}.", panel=OWN_PANEL)
    prior: tuple[str, ...] = option((), "Prior to measure, may be repeated.", panel=OWN_PANEL, shown="all")
    device: tuple[str, ...] = option((), "Device to measure, may be repeated.", panel=OWN_PANEL, shown="all")
    seconds: float = option(10.0, "How long to measure each, s.", panel=OWN_PANEL, least=0.1)
    as_json: bool = option(False, "Print JSON instead of tables.", panel=OWN_PANEL, flag="--json")

    def run(self) -> None:
        """Measure, and print the tables."""
        settings = choose_settings(_PRESETS, self.preset, {})
        from dapcli.audio import open_audio

        with ExitStack() as files:
            recording = files.enter_context(open_audio(self.input_path)) if self.input_path else None
            from dapcli.priors import PRIORS
            from dapcli.report.console import make_console
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
        if self.as_json:
            measured_on = {"channels": channels, "samples": length, "sample_rate": rate}
            result = {**machine, "preset": self.preset, "measured_on": measured_on, "speed": rows}
            typer.echo(json.dumps(result, indent=2))
            return
        from rich.console import Console

        from dapcli.report.table import machine_table, speed_table, to_console
        from dapcli.report.words import duration

        console = Console(highlight=False)
        console.print(to_console(machine_table(machine)), "", to_console(speed_table(rows)), sep="\n")
        on = f"{length / rate:.3g} s of {channels} channel{'s' if channels > 1 else ''} at {rate} Hz"
        typer.echo(f"preset {self.preset}, an iteration on {on}")
        if recording:
            typer.echo(f"estimates are for {self.input_path}, {duration(recording.length / recording.rate)} long")
