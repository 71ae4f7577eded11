"""What people see on the terminal; all of it goes to stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dapcli.report.table import result_tables, to_console
from dapcli.report.words import duration, notes_on_the_run, summary

if TYPE_CHECKING:
    from dapcli.evaluation.run import Progress as EvaluationProgress
    from dapcli.pipeline.run import Progress as FitProgress
    from dapcli.report.comparison import Comparison

# Metrics of a comparison side by side; more would not fit into 80 characters.
_COLUMNS = 4


def make_console() -> Console:
    """A console on stderr."""
    return Console(stderr=True, highlight=False)


@contextmanager
def _bar(
    console: Console, title: str, *columns: str | ProgressColumn, quiet: bool, **fields: Any
) -> Iterator[Callable[..., None]]:
    """A bar with further columns, for as long as the context lasts, that has this title and these fields at first.

    Yields what to call with new values. With ``quiet``, and where stderr is not a terminal, nobody sees it.
    """
    usual = ("{task.description}", BarColumn(bar_width=None), MofNCompleteColumn())
    hidden = quiet or not console.is_terminal
    with Progress(*usual, *columns, console=console, transient=True, disable=hidden) as bar:
        yield partial(bar.update, bar.add_task(title, total=None, **fields))


@contextmanager
def fit_progress(console: Console, *, quiet: bool, noise: bool = True) -> Iterator[Callable[[FitProgress], None]]:
    """A bar over all iterations of all segments, with loss, estimated noise (where there is any) and time left.

    Yields what to call after every iteration.
    """
    words = "loss {task.fields[loss]:.3g}" + ("  noise {task.fields[noise]:.3g}" if noise else "")
    columns = (words, TimeElapsedColumn(), "left", TimeRemainingColumn())
    with _bar(console, "fitting", *columns, quiet=quiet, loss=0.0, noise=0.0) as update:

        def report(progress: FitProgress) -> None:
            name = "pretraining" if progress.segment is None else f"segment {progress.segment + 1}/{progress.segments}"
            update(
                description="fitting" if progress.segments == 1 else name,
                total=progress.total,
                completed=progress.completed,
                loss=progress.iteration.loss,
                noise=progress.noise_std,
            )

        yield report


@contextmanager
def evaluation_progress(console: Console, *, quiet: bool) -> Iterator[Callable[[EvaluationProgress], None]]:
    """A bar over all units of an evaluation with the time left; yields what to call after every unit."""
    with _bar(console, "evaluating", TimeElapsedColumn(), "{task.fields[left]}", quiet=quiet, left="") as update:

        def report(progress: EvaluationProgress) -> None:
            left = "" if progress.left is None else f"{duration(progress.left)} left"
            update(total=progress.total, completed=progress.done, left=left)

        yield report


def print_summary(console: Console, record: Mapping[str, Any], files: Sequence[tuple[str, Path]]) -> None:
    """What was done, why it stopped, how well it went and where the files are."""
    first, *lines = map(escape, summary(record))
    lines.insert(0, f"[bold]{record['task']}[/]: {first}")
    # Those on the files and on the degradation were told before the fit.
    lines += [
        f"note: {escape(note)}" for note in notes_on_the_run(record, ("restore", "consistency", "gain", "alignment"))
    ]
    for line in lines:
        console.print(line, soft_wrap=True)
    for table in result_tables(record):
        console.print(f"{escape(table.caption)}:", to_console(table), sep="\n")
    for name, path in files:
        console.print(f"{escape(name)}: {escape(str(path))}", soft_wrap=True)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """The tables of an evaluation, and what their readers should know."""
    console.print(f"[bold]{escape(comparison.title)}[/]", soft_wrap=True)
    for whole in comparison.tables:
        console.print(escape(whole.caption), soft_wrap=True)
        for table in whole.split(_COLUMNS):
            console.print(to_console(table), "")
    for note in comparison.notes:
        console.print(escape(note), soft_wrap=True)
