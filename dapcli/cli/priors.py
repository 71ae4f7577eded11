"""``dap priors``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from dapcli.cli import options
from dapcli.settings import PAPER_RATE


def priors(
    preset: options.Preset = "quality",
    width: options.Width = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    debug: options.Debug = False,
) -> None:
    """List the priors: parameters, receptive field and cost.

    All for one second of mono at 16 kHz with the STFT and the width of the preset; GFLOP count the forward and the
    backward pass of one iteration.
    """
    del debug  # read by the entry point
    from dapcli.priors.cost import describe_priors

    settings = options.make_settings(preset, width=width)
    rows = describe_priors(settings, PAPER_RATE)
    if as_json:
        typer.echo(json.dumps({row.name: asdict(row) for row in rows}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("prior", "parameters", "seconds", "Hz", "GFLOP", "what it is", box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            row.name,
            f"{row.parameters:,}",
            f"{row.receptive_field_s:.2f}",
            f"{row.receptive_field_hz:.0f}",
            f"{row.gflop_per_iteration:.1f}",
            row.summary,
        )
    Console(highlight=False).print(table)
    typer.echo(
        f"preset {preset}: width {settings.width}, estimator {settings.estimator}; receptive field in seconds and Hz,\n"
        "GFLOP of one iteration, forward and backward, on one second of mono at 16 kHz"
    )
