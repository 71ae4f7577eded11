"""``dap priors``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import typer

from dapcli.cli.command import OWN_PANEL, Command
from dapcli.settings import PAPER_RATE, choose_settings, option
from dapcli.tasks import TASKS

_PRESETS = TASKS["denoise"].presets


@dataclass(frozen=True, kw_only=True)
class Priors(Command):
    """List the priors: parameters, receptive field and cost.

    All for one second of mono at 16 kHz with the STFT and the base channels of the preset; GFLOP count the forward and
    the backward pass of one iteration.
    """

    preset: str = option("quality", f"Named set of settings: {', '.join(_PRESETS)}.", panel=OWN_PANEL)
    base_channels: int | None = option(None, "Filters of the network's first convolution.", panel=OWN_PANEL, above=0)
    as_json: bool = option(False, "Print JSON instead of a table.", panel=OWN_PANEL, flag="--json")

    def run(self) -> None:
        """Print the table."""
        settings = choose_settings(_PRESETS, self.preset, {"base_channels": self.base_channels})
        from dapcli.priors.cost import describe_priors

        costs = describe_priors(settings, PAPER_RATE)
        if self.as_json:
            typer.echo(json.dumps({cost.name: asdict(cost) for cost in costs}, indent=2))
            return
        from rich.console import Console

        from dapcli.report.table import prior_table, to_console

        Console(highlight=False).print(to_console(prior_table(costs)))
        typer.echo(
            f"preset {self.preset}: {settings.base_channels} base channels, estimator {settings.estimator}; "
            "receptive field in seconds and Hz,\n"
            "GFLOP of one iteration, forward and backward, on one second of mono at 16 kHz"
        )
