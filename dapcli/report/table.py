"""Tables: one model for all of them, rendered for the terminal and Markdown; the pages have a macro for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, repeat
from operator import itemgetter
from typing import Any

from rich import table as rich_table
from rich.text import Text

from dapcli.report.words import METRIC_TITLES, all_metrics, metric_title

# What Markdown would take for markup in a cell.
_MARKUP = re.compile(r"[\\`*<>|]")


@dataclass(frozen=True)
class Cell:
    """A cell; its text may have several lines, and is None where there is no value."""

    text: str | None
    strong: bool = False

    def __str__(self) -> str:
        return "-" if self.text is None else self.text


Row = Sequence[Cell]


@dataclass(frozen=True)
class Table:
    """A table with a title for every column; without any it has no head.

    ``groups`` are the headings of the rows, one for each, and those of neighbours are one group; without them all rows
    are. The first ``texts`` columns hold text, which begins at the left; the others numbers.
    """

    columns: Sequence[str]
    rows: Sequence[Row]
    caption: str = ""
    groups: Sequence[str] = ()
    texts: int = 1

    @property
    def grouped(self) -> list[tuple[str, list[Row]]]:
        """Headings and their rows."""
        rows = zip(self.groups or repeat(""), self.rows, strict=False)
        return [(heading, [row for _, row in group]) for heading, group in groupby(rows, itemgetter(0))]

    def split(self, most: int) -> list[Table]:
        """Tables with so many of its columns at the most, and the first in each."""
        starts = range(1, len(self.columns), most)
        return [
            replace(
                self,
                columns=[self.columns[0], *self.columns[start : start + most]],
                rows=[[row[0], *row[start : start + most]] for row in self.rows],
            )
            for start in starts
        ]


def row(*values: Cell | str | None, strong: bool = False) -> Row:
    """A row of cells; texts become cells that are all ``strong``, or not."""
    return [value if isinstance(value, Cell) else Cell(value, strong) for value in values]


def to_console(table: Table) -> rich_table.Table:
    """The table for the terminal, without its caption; groups have an empty line between them."""
    # One column between cells, for wide tables to fit in 80.
    shown = rich_table.Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=bool(table.columns))
    for index, title in enumerate(table.columns or [""] * len(table.rows[0])):
        shown.add_column(Text(title), justify="left" if index < table.texts else "right", overflow="fold")
    for index, (_, rows) in enumerate(table.grouped):
        if index:
            shown.add_row()
        for cells in rows:
            shown.add_row(*(Text(str(cell), "bold" if cell.strong else "") for cell in cells))
    return shown


def to_markdown(table: Table) -> str:
    """The caption and the table in Markdown; a group is a table of its own, with its heading over the first column."""
    parts = [table.caption] if table.caption else []
    for heading, rows in table.grouped:
        first, *titles = map(_escape, table.columns)
        lines = [[_escape(heading) or first, *titles], ["---"] * len(table.columns)]
        lines += [[f"**{_escape(str(cell))}**" if cell.strong else _escape(str(cell)) for cell in row] for row in rows]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return printable("\n\n".join(parts))


def printable(text: str) -> str:
    """A text as UTF-8 can hold it: bytes of a file name that are not become question marks."""
    return text.encode(errors="replace").decode()


def _escape(text: str) -> str:
    return _MARKUP.sub(r"\\\g<0>", text).replace("\n", " ")


Metrics = Mapping[str, float | None]


def metric_table(sides: Mapping[str, Metrics], caption: str = "", *, change: bool = False) -> Table:
    """A metric in every row, those that all ``sides`` have, with a column for each side, and for its ``change``."""
    first, *others = sides.values()
    there = [metric for metric in first if all(metric in other for other in others)]
    metrics = [*(metric for metric in METRIC_TITLES if metric in there), *(m for m in there if m not in METRIC_TITLES)]
    rows = []
    for metric in metrics:
        values = [side[metric] for side in sides.values()]
        texts = [None if value is None else f"{value:.3f}" for value in values]
        if change:
            old, *_, new = values
            texts.append(None if old is None or new is None else f"{new - old:+.3f}")
        rows.append(row(metric_title(metric), *texts))
    return Table(("metric", *sides, *(["change"] if change else [])), rows, caption)


def result_tables(record: Mapping[str, Any]) -> list[Table]:
    """What a record tells of its output, or of each of its sources, and of the input; none without any value."""
    if "sources" in record:
        tables = [
            metric_table(
                {"mixture": source["metrics_input"], "source": source["metrics"]},
                f"{source['name']} against {source['reference']}",
                change=True,
            )
            for source in record["sources"]
            if source["reference"] is not None
        ]
    else:
        sides = {"before": all_metrics(record, "_input"), "after": all_metrics(record)}
        tables = [metric_table(sides, "Against the reference", change=True)]
    return tables if any(cell.text for table in tables for row in table.rows for cell in row[1:]) else []


def tabulate(lines: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, texts: int) -> Table:
    """A line in every row, by the format of each column, which begins with so many columns of ``texts``."""
    rows = [row(*(form.format_map(line) for form in columns.values())) for line in lines]
    return Table(list(columns), rows, texts=texts)
