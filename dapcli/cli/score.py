"""``dap score``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from dapcli.cli.command import OWN_PANEL, Command, argument
from dapcli.settings import option


@dataclass(frozen=True, kw_only=True)
class Score(Command):
    """Compare existing recordings with their clean reference, by all metrics.

    Prints a table, or with --json one object: for each EST its metrics, and under notes why a metric is null.
    """

    reference: Path = argument("REF", "Clean recording.")
    estimates: tuple[Path, ...] = argument("EST...", "Recordings to compare with it.")
    as_json: bool = option(False, "Print JSON instead of a table.", panel=OWN_PANEL, flag="--json")

    def run(self) -> None:
        """Print the table."""
        from dapcli.audio import open_matching, read_audio
        from dapcli.metrics import score

        clean = read_audio(self.reference)
        scores: dict[str, dict[str, Any]] = {}
        for path in self.estimates:
            with open_matching(path, clean) as file:
                values, notes = score(clean.samples, file.read(0, file.length), clean.rate)
            scores[str(path)] = {"metrics": values, "notes": notes}
        if self.as_json:
            typer.echo(json.dumps(scores, indent=2, allow_nan=False))
            return
        from rich.console import Console
        from rich.markup import escape

        from dapcli.report.table import metric_table, to_console

        console = Console(highlight=False)
        console.print(to_console(metric_table({name: entry["metrics"] for name, entry in scores.items()})))
        for name, entry in scores.items():
            for metric, note in entry["notes"].items():
                console.print(f"{escape(name)}: {metric}: {escape(note)}", soft_wrap=True)
