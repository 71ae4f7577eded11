"""An evaluation on the terminal: progress and tables, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Column, Table

from dapcli.evaluation.methods import label
from dapcli.evaluation.run import Progress
from dapcli.report.comparison import Comparison, by_method, cell_in_words, column_title, difference_in_words, is_best
from dapcli.report.console import duration

# Metrics side by side; more would not fit into 80 characters.
_COLUMNS = 5


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
    parts = [comparison.metrics[start : start + _COLUMNS] for start in range(0, len(comparison.metrics), _COLUMNS)]
    for metrics in parts:
        table = _table(*map(column_title, metrics), "s")
        for index, row in enumerate(comparison.rows):
            if index and row.told != comparison.rows[index - 1].told:
                table.add_row()
            cells = [
                _strong(cell_in_words(row, metric, len(comparison.clips)), is_best(row, metric)) for metric in metrics
            ]
            table.add_row(escape(label(row.method, row.told)), *cells, f"{row.seconds:.1f}")
        console.print(table, "")
    if comparison.differences:
        pivot = escape(comparison.differences[0].pivot)
        console.print(f"Difference from {pivot} on the same clips, with its 95 % interval:", soft_wrap=True)
        for metrics in parts:
            table = _table(*map(column_title, metrics))
            for (method, told), by_metric in by_method(comparison.differences).items():
                cells = [
                    _strong(
                        difference_in_words(each).replace(" ", "\n", 1), each is not None and each.verdict != "open"
                    )
                    for each in map(by_metric.get, metrics)
                ]
                table.add_row(escape(label(method, told)), *cells)
            console.print(table, "")
    for note in comparison.notes:
        console.print(escape(note), soft_wrap=True)


def _table(*titles: str) -> Table:
    # One column between cells, for the tables to fit in 80.
    table = Table(Column("method", no_wrap=True), box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title in titles:
        table.add_column(title, justify="right", overflow="fold")
    return table


def _strong(words: str, strong: bool) -> str:
    return f"[bold]{escape(words)}[/]" if strong else escape(words)
