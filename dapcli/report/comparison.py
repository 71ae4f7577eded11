"""What an evaluation found, for people and programs: the console's tables, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Column, Table

from dapcli.evaluation.clips import Drawn
from dapcli.evaluation.folder import Folder, Record
from dapcli.evaluation.methods import label
from dapcli.evaluation.run import Outcome, Progress
from dapcli.evaluation.tables import COLUMNS, GROUPS, Cell, Difference, Row, choose_pivot, compare, summarize
from dapcli.report.console import METRIC_TITLES, duration
from dapcli.report.record import to_json

_HEADINGS = {"nothing": "blind", "noise": "told the noise", "reference": "oracle: told the reference"}
# Of a fit, in tables of all units; its curves are in the units' own files.
_FIT_FIELDS = ("iterations", "best_iteration", "stopped_by")


@dataclass(frozen=True)
class Comparison:
    """All that an evaluation found.

    ``failures`` are clip, method and reason; ``unreadable`` holds reasons by path; ``metrics`` are the tables' columns.
    """

    configuration: Mapping[str, Any]
    metrics: tuple[str, ...]
    rows: Sequence[Row]
    differences: Sequence[Difference]
    records: Sequence[Record]
    skipped: int
    unreadable: Mapping[str, str]
    failures: Sequence[tuple[str, str, str]]

    @property
    def clips(self) -> list[str]:
        """Names of the clips, in order."""
        return list(dict.fromkeys(record["clip"] for record in self.records))

    @property
    def notes(self) -> list[str]:
        """What readers of the tables should know."""
        lines = []
        if self.skipped:
            seconds = self.configuration["duration_s"]
            lines.append(f"{_count(self.skipped, 'clip')} shorter than {seconds:g} s skipped")
        lines += [f"not read: {reason}" for reason in self.unreadable.values()]
        reasons: dict[tuple[str, str], list[str]] = {}
        for clip, method, reason in self.failures:
            reasons.setdefault((clip, reason), []).append(method)
        lines += [f"failed: {clip}, {', '.join(methods)}: {reason}" for (clip, reason), methods in reasons.items()]
        looped = {
            note for record in self.records for note in record["notes"].values() if note.startswith("noise looped")
        }
        return lines + sorted(looped)

    @property
    def title(self) -> str:
        """What was evaluated, such as ``denoise, gaussian (noise_std 0.1): 8 clips of 1 s, seed 0``."""
        protocol = dict(self.configuration["protocol"])
        name = protocol.pop("name")
        values = ", ".join(
            f"{key} {':'.join(f'{each:g}' for each in value) if isinstance(value, list) else value}"
            for key, value in protocol.items()
            if key != "noise"
        )
        return (
            f"{self.configuration['task']}, {name} ({values}): {_count(len(self.clips), 'clip')} of "
            f"{self.configuration['duration_s']:g} s, seed {self.configuration['seed']}"
        )


def make_comparison(configuration: Mapping[str, Any], outcome: Outcome, drawn: Drawn) -> Comparison:
    """What the records of an outcome amount to."""
    there = {metric for record in outcome.records for metric, value in record["metrics"].items() if value is not None}
    metrics = tuple(metric for metric in COLUMNS[configuration["task"]] if metric in there)
    pivot = choose_pivot(outcome.records)
    return Comparison(
        configuration,
        metrics,
        summarize(outcome.records, metrics),
        compare(outcome.records, metrics, pivot) if pivot else [],
        outcome.records,
        drawn.skipped,
        drawn.unreadable,
        outcome.failures,
    )


def write_comparison(folder: Folder, comparison: Comparison) -> None:
    """Write the tables to the folder, all or none of them."""
    folder.write(
        {
            "results.md": to_markdown(comparison),
            "results.csv": to_csv(comparison),
            "results.json": to_object(comparison),
        }
    )


@contextmanager
def evaluation_progress(console: Console, *, quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """A bar over all units with the time left; yields None when nobody would see it."""
    if quiet or not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("evaluating", total=None, left="")

        def update(progress: Progress) -> None:
            left = "" if progress.left is None else f"{duration(progress.left)} left"
            bar.update(task, total=progress.total, completed=progress.done, left=left)

        yield update


def print_comparison(console: Console, comparison: Comparison) -> None:
    """The tables, and what their readers should know."""
    console.print(f"[bold]{escape(comparison.title)}[/]", soft_wrap=True)
    table = _table(*(METRIC_TITLES[metric] for metric in comparison.metrics), "s")
    for index, row in enumerate(comparison.rows):
        if index and row.told != comparison.rows[index - 1].told:
            table.add_row()
        cells = [_rich_cell(row.cells[metric], len(comparison.clips)) for metric in comparison.metrics]
        table.add_row(escape(label(row.method, row.told)), *cells, f"{row.seconds:.1f}")
    console.print(table)
    if comparison.differences:
        pivot = comparison.differences[0].pivot
        console.print(f"\nDifference from {escape(pivot)} on the same clips, with its 95 % interval:", soft_wrap=True)
        table = _table(*(METRIC_TITLES[metric] for metric in comparison.metrics))
        for (method, told), by_metric in _by_method(comparison.differences).items():
            cells = [_rich_difference(by_metric.get(metric)) for metric in comparison.metrics]
            table.add_row(escape(label(method, told)), *cells)
        console.print(table)
    for note in comparison.notes:
        console.print(escape(note), soft_wrap=True)


def _table(*titles: str) -> Table:
    # One column between cells, for the tables to fit in 80.
    table = Table(Column("method", no_wrap=True), box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title in titles:
        table.add_column(title, justify="right", overflow="fold")
    return table


def to_markdown(comparison: Comparison) -> str:
    """The tables as Markdown."""
    titles = [METRIC_TITLES[metric] for metric in comparison.metrics]
    lines = [f"# {comparison.title}", "", "Mean and standard deviation over clips; the best of each group in bold.", ""]
    for told in GROUPS:
        rows = [row for row in comparison.rows if row.told == told]
        if rows:
            lines += [
                f"| {_HEADINGS[told]} | {' | '.join((*titles, 's per clip'))} |",
                f"|---|{'---|' * (len(titles) + 1)}",
            ]
            for row in rows:
                cells = [_markdown_cell(row.cells[metric], len(comparison.clips)) for metric in comparison.metrics]
                lines.append(f"| {label(row.method, row.told)} | {' | '.join(cells)} | {row.seconds:.1f} |")
            lines.append("")
    if comparison.differences:
        lines += [
            f"Difference from {comparison.differences[0].pivot} on the same clips, the mean and its 95 % interval "
            "(percentile bootstrap over clips); bold where that excludes 0. Oracles are compared with its oracle.",
            "",
            f"| | {' | '.join(titles)} |",
            f"|---|{'---|' * len(titles)}",
        ]
        for (method, knowing), by_metric in _by_method(comparison.differences).items():
            cells = [_markdown_difference(by_metric.get(metric)) for metric in comparison.metrics]
            lines.append(f"| {label(method, knowing)} | {' | '.join(cells)} |")
        lines.append("")
    lines += [f"- {note}" for note in comparison.notes]
    return "\n".join(lines).rstrip() + "\n"


def to_csv(comparison: Comparison) -> str:
    """One row per clip and method with all metrics; what has no value is empty."""
    metrics = list(dict.fromkeys(metric for record in comparison.records for metric in record["metrics"]))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["clip", "files", "method", "told", *metrics, "seconds", *_FIT_FIELDS])
    for record in comparison.records:
        fit = record["fit"] or {}
        table.writerow(
            [record["clip"], " ".join(record["files"]), record["method"], record["told"]]
            + [record["metrics"].get(metric) for metric in metrics]
            + [record["seconds"], *(fit.get(field) for field in _FIT_FIELDS)]
        )
    return text.getvalue()


def to_object(comparison: Comparison) -> str:
    """All of it as one JSON object; docs/evaluate.md says what its keys are."""
    units = [
        {**record, "fit": record["fit"] and {field: record["fit"][field] for field in _FIT_FIELDS}}
        for record in comparison.records
    ]
    return to_json(
        {
            **comparison.configuration,
            "clips": len(comparison.clips),
            "skipped": comparison.skipped,
            "unreadable": dict(comparison.unreadable),
            "failures": [
                {"clip": clip, "method": method, "reason": reason} for clip, method, reason in comparison.failures
            ],
            "table": [asdict(row) for row in comparison.rows],
            "differences": [{**asdict(each), "verdict": each.verdict} for each in comparison.differences],
            "units": units,
        }
    )


def _by_method(differences: Sequence[Difference]) -> dict[tuple[str, str], dict[str, Difference]]:
    grouped: dict[tuple[str, str], dict[str, Difference]] = {}
    for difference in differences:
        grouped.setdefault((difference.method, difference.told), {})[difference.metric] = difference
    return grouped


def cell_in_words(cell: Cell | None, clips: int) -> str:
    """Mean and standard deviation, and over how many clips unless over all."""
    if cell is None:
        return "-"
    words = f"{cell.mean:.2f}" if cell.std is None else f"{cell.mean:.2f} ± {cell.std:.2f}"
    return words if cell.count == clips else f"{words} (n={cell.count})"


def difference_in_words(difference: Difference | None) -> str:
    """The mean and its interval."""
    if difference is None:
        return "-"
    if difference.low is None or difference.high is None:
        return f"{difference.mean:+.2f}"
    return f"{difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]"


def _rich_cell(cell: Cell | None, clips: int) -> str:
    words = cell_in_words(cell, clips)
    return f"[bold]{words}[/]" if cell and cell.best else words


def _markdown_cell(cell: Cell | None, clips: int) -> str:
    words = cell_in_words(cell, clips)
    return f"**{words}**" if cell and cell.best else words


def _rich_difference(difference: Difference | None) -> str:
    words = escape(difference_in_words(difference)).replace(" ", "\n", 1)
    return f"[bold]{words}[/]" if difference and difference.verdict != "open" else words


def _markdown_difference(difference: Difference | None) -> str:
    words = difference_in_words(difference)
    return f"**{words}**" if difference and difference.verdict != "open" else words


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
