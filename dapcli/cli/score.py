"""``dap score``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dapcli.cli import options


def score(
    reference: Annotated[Path, typer.Argument(metavar="REF", help="Clean recording.")],
    estimates: Annotated[list[Path], typer.Argument(metavar="EST...", help="Recordings to compare with it.")],
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Compare existing recordings with their clean reference, by all metrics.

    Prints a table, or with --json one object: for each EST its metrics, and under notes why a metric is null.
    """
    del debug  # read by the entry point
    from dapcli.audio import open_matching, read_audio
    from dapcli.metrics import score as compute
    from dapcli.report.console import metric_table

    clean = read_audio(reference)
    scores: dict[str, dict[str, object]] = {}
    columns: dict[str, dict[str, float | None]] = {}
    for path in estimates:
        with open_matching(path, clean) as file:
            values, notes = compute(clean.samples, file.read(0, file.length), clean.rate)
        columns[str(path)] = values
        scores[str(path)] = {"metrics": values, "notes": notes}
    if as_json:
        typer.echo(json.dumps(scores, indent=2, allow_nan=False))
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    console.print(metric_table(columns))
    for name, entry in scores.items():
        for metric, note in dict(entry["notes"]).items():  # type: ignore[call-overload]
            console.print(f"{escape(name)}: {metric}: {escape(note)}", soft_wrap=True)
