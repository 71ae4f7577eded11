"""What people see on the terminal; all of it goes to stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TimeElapsedColumn,
)

from dapcli.report.table import result_tables, to_console
from dapcli.report.words import count, duration, headline, notes_on_the_run, summary

if TYPE_CHECKING:
    from dapcli.pipeline.run import Progress as FitProgress
    from dapcli.pipeline.workers import Progress as WorkersProgress
    from dapcli.report.batch import Summary
    from dapcli.report.comparison import Comparison

# Metrics of a comparison side by side; more would not fit into 80 characters.
_COLUMNS = 4
# Of more failures than this only the first are printed.
_FAILURES = 20


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
    usual = ("{task.description}", BarColumn(bar_width=None))
    hidden = quiet or not console.is_terminal
    with Progress(*usual, *columns, console=console, transient=True, disable=hidden) as bar:
        yield partial(bar.update, bar.add_task(title, total=None, **fields))


class TimeLeft:
    """An estimate of the seconds that a fit will take, which begins with this object.

    A segment's own preparation, such as its classical restoration, may take longer than its iterations: there is no
    estimate before one segment is done, where there are several that no pretraining tells of. Iterations of the
    pretraining take another time than those of segments, which have an estimate of their own from the first one on.
    """

    def __init__(self) -> None:
        self._began = self._last = monotonic()
        self._base: tuple[float, int] | None = None
        self._segments: tuple[float, int] | None = None
        self._pretraining = False

    def after(self, progress: FitProgress) -> float | None:
        """Seconds from this iteration to the end of the last; None where one cannot know."""
        now, completed = monotonic(), progress.completed
        alike = progress.segment is None or progress.segments == 1
        if self._base is None:
            self._base = (now, completed) if alike else (self._began, completed - 1)
        if self._pretraining and progress.segment is not None:
            self._segments = (self._last, completed - 1)
        self._pretraining, self._last = progress.segment is None, now
        if self._segments and completed - self._segments[1] >= progress.total / progress.segments:
            self._base, self._segments = self._segments, None
        began, before = self._base
        if began == self._began and completed - before < progress.total / progress.segments:
            return None
        return (now - began) / (completed - before) * (progress.total - completed) if completed > before else None


@contextmanager
def fit_progress(
    console: Console, *, quiet: bool, noise: bool = True
) -> Iterator[tuple[Callable[[FitProgress], None], Callable[[str], None]]]:
    """A bar over all iterations of all segments, with loss, estimated noise (where there is any) and time left.

    Yields what to call after every iteration, and what to call with the name of what is done after all of them. Before
    the first one, and after the last, it shows the time that has gone by.
    """
    columns = ("{task.fields[words]}", TimeElapsedColumn(), "{task.fields[left]}")
    with _bar(console, "preparing", *columns, quiet=quiet, words="", left="") as update:
        time_left = TimeLeft()

        def report(progress: FitProgress) -> None:
            name = "pretraining" if progress.segment is None else f"segment {progress.segment + 1}/{progress.segments}"
            words = f"{progress.completed}/{progress.total}  loss {progress.iteration.loss:.3g}"
            left = time_left.after(progress)
            update(
                description="fitting" if progress.segments == 1 else name,
                total=progress.total,
                completed=progress.completed,
                words=f"{words}  noise {progress.noise_std:.3g}" if noise else words,
                left="" if left is None else f"{duration(left)} left",
            )

        yield report, lambda name: update(description=name, total=None, words="", left="")


@contextmanager
def items_progress(console: Console, title: str, *, quiet: bool) -> Iterator[Callable[[WorkersProgress], None]]:
    """A bar over all items with the time left; yields what to call after each."""
    columns = (MofNCompleteColumn(), TimeElapsedColumn(), "{task.fields[left]}")
    with _bar(console, title, *columns, quiet=quiet, left="") as update:

        def report(progress: WorkersProgress) -> None:
            left = "" if progress.left is None else f"{duration(progress.left)} left"
            update(total=progress.total, completed=progress.done, left=left)

        yield report


def print_summary(console: Console, record: Mapping[str, Any], files: Sequence[tuple[str, Path]]) -> None:
    """What was done, why it stopped, how well it went and where the files are."""
    lines = [f"[bold]{record['task']}: {escape(headline(record))}[/]", *map(escape, summary(record))]
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


def print_batch(console: Console, summary: Summary, file: Path) -> None:
    """What became of all recordings of a batch."""
    console.print(
        f"[bold]batch {summary.task}[/]: {count(len(summary.lines), 'recording')} in {duration(summary.seconds)}"
    )
    for table in summary.tables:
        console.print(*([f"{table.caption}:"] if table.caption else []), to_console(table), sep="\n")
    failed = [f"failed: {line['input']}: {line['error'].removeprefix(line['input'] + ': ')}" for line in summary.failed]
    for line in [*failed[:_FAILURES], *([f"and {len(failed) - _FAILURES} more"] if len(failed) > _FAILURES else [])]:
        console.print(escape(line), soft_wrap=True)
    console.print(f"summary: {escape(str(file))}", soft_wrap=True)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """The tables of an evaluation, and what their readers should know."""
    console.print(f"[bold]{escape(comparison.title)}[/]", soft_wrap=True)
    for whole in comparison.tables:
        console.print(escape(whole.caption), soft_wrap=True)
        for table in whole.split(_COLUMNS):
            console.print(to_console(table), "")
    for note in comparison.notes:
        console.print(escape(note), soft_wrap=True)
