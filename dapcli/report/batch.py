"""What became of each recording of a batch: ``batch.json``, and tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import dapcli
from dapcli.report.table import Table, metric_table, row
from dapcli.report.words import all_metrics, duration, notes_on_the_run

#: What became of one recording, as JSON holds it.
Line = dict[str, Any]
#: The name of the summary's file.
FILE = "batch.json"
# What may become of a recording, and what the table says for it.
_STATUS = {"done": "restored", "kept": "restored before", "failed": "failed"}


def make_line(
    source: Path, target: Path, status: str, record: Mapping[str, Any] | None = None, *, error: str | None = None
) -> Line:
    """What became of a recording by its record, if there is one; ``seconds`` are those of its restoration."""
    line: Line = {"input": str(source), "output": str(target), "status": status, "error": error, "seconds": None}
    if record is None:
        return {**line, "metrics": {}, "metrics_input": {}, "notes": []}
    metrics = {
        key: {name: value for name, value in all_metrics(record, side).items() if value is not None}
        for key, side in (("metrics", ""), ("metrics_input", "_input"))
    }
    return {**line, "seconds": record["seconds"], **metrics, "notes": notes_on_the_run(record)}


@dataclass(frozen=True)
class Summary:
    """What became of all recordings of a task, and the seconds that it took."""

    task: str
    lines: Sequence[Line]
    seconds: float

    @staticmethod
    def wrote(path: Path) -> bool:
        """Whether a file is a summary."""
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return False
        return isinstance(found, dict) and {"dapcli", "files"} <= found.keys()

    @property
    def failed(self) -> list[Line]:
        """Those that failed."""
        return [line for line in self.lines if line["status"] == "failed"]

    def count(self, status: str) -> int:
        """How many recordings have this status."""
        return sum(line["status"] == status for line in self.lines)

    def to_json(self) -> str:
        """The summary as JSON text in ASCII, with a line for every recording."""
        counts = {status: self.count(status) for status in _STATUS}
        head = {"dapcli": dapcli.__version__, "task": self.task, "seconds": self.seconds, **counts}
        lines = ",\n".join(json.dumps(line, allow_nan=False) for line in self.lines)
        return f'{json.dumps(head)[:-1]}, "files": [\n{lines}\n]}}\n'

    @property
    def tables(self) -> list[Table]:
        """How many recordings were restored, in which time, and their mean metrics where there are any."""
        rows = []
        for status, words in _STATUS.items():
            seconds = sum(line["seconds"] or 0 for line in self.lines if line["status"] == status)
            rows.append(row(words, f"{self.count(status):,}", duration(seconds) if seconds else None))
        tables = [Table(("", "recordings", "time of the restorations"), rows)]
        scored = [line for line in self.lines if line["metrics"]]
        both = [line["metrics"].keys() & line["metrics_input"].keys() for line in scored]
        names = [name for name in (scored[0]["metrics"] if scored else ()) if all(name in each for each in both)]
        if names:
            sides = {
                side: {name: fmean(each[key][name] for each in scored) for name in names}
                for side, key in (("before", "metrics_input"), ("after", "metrics"))
            }
            tables.append(metric_table(sides, f"Means of {len(scored)} against their references", change=True))
        return tables
