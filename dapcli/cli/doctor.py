"""``dap doctor``."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from dapcli.cli import options


def doctor(
    input_path: Annotated[
        Path | None, typer.Argument(metavar="[IN]", help="Recording to estimate the time for.", show_default=False)
    ] = None,
    preset: options.Preset = "quality",
    priors: Annotated[
        list[str] | None, typer.Option("--prior", help="Prior to measure, may be repeated. [default: all]")
    ] = None,
    devices: Annotated[
        list[str] | None, typer.Option("--device", help="Device to measure, may be repeated. [default: all]")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="How long to measure each, s.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    debug: options.Debug = False,
) -> None:
    """Show versions and devices, measure how fast each prior fits, and estimate the time for a recording.

    With IN it measures on noise of the length, rate and channels of one of its segments, without on one second of mono
    at 16 kHz.
    """
    del debug  # read by the entry point
    settings = options.make_settings(preset)
    from dapcli.audio import open_audio

    with ExitStack() as files:
        recording = files.enter_context(open_audio(input_path)) if input_path else None
        from dapcli.priors import PRIORS
        from dapcli.report.console import duration, machine_table, make_console, speed_table
        from dapcli.tasks import speed

        machine = speed.describe_machine()
        shape = speed.segment_shape(recording, settings) if recording else speed.USUAL_SHAPE
        rows = []
        console = make_console()
        with console.status("") as status:
            for device in devices or machine["devices"]:
                for prior in priors or PRIORS:
                    status.update(f"measuring {prior} on {device}")
                    chosen = replace(settings, prior=prior)
                    measured = speed.measure_speed(chosen, device, seconds, shape)
                    total = None
                    if recording and measured.seconds:
                        total = speed.estimate_seconds(recording, chosen, measured.seconds)
                    rows.append({**asdict(measured), "estimate": total})

    channels, length, rate = shape
    if as_json:
        measured_on = {"channels": channels, "samples": length, "sample_rate": rate}
        typer.echo(json.dumps({**machine, "preset": preset, "measured_on": measured_on, "speed": rows}, indent=2))
        return
    from rich.console import Console

    out = Console(highlight=False)
    out.print(machine_table(machine))
    out.print()
    out.print(speed_table(rows))
    plural = "s" if channels > 1 else ""
    typer.echo(f"preset {preset}, an iteration on {length / rate:.3g} s of {channels} channel{plural} at {rate} Hz")
    if recording:
        typer.echo(f"estimates are for {input_path}, {duration(recording.length / recording.rate)} long")
