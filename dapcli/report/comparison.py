"""What an evaluation found, and how it is put into tables and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dapcli.evaluation.clips import Drawn
from dapcli.evaluation.folder import Record
from dapcli.evaluation.methods import label
from dapcli.evaluation.run import Outcome
from dapcli.evaluation.tables import FEWEST_CLIPS, Difference, Row, choose_columns, choose_pivot, compare, summarize
from dapcli.report.table import Cell, Table, row
from dapcli.report.words import count, metric_title

# Metrics whose differences are in the third decimal.
_FINE = ("envelope_distance", "stoi")
#: Of the groups of rows, by what their methods know.
HEADINGS = {
    "none": "blind",
    "training": "trained: learned from other recordings",
    "noise": "oracle noise",
    "reference": "oracle: stopped by the reference",
}
#: Of a fit, in tables of all units; its curves are in the units' own files.
FIT_FIELDS = ("iterations", "best_iteration", "stopped_by")


@dataclass(frozen=True)
class Comparison:
    """All that an evaluation found.

    ``metrics`` are the tables' columns.
    """

    configuration: Mapping[str, Any]
    outcome: Outcome
    drawn: Drawn
    metrics: tuple[str, ...]
    rows: Sequence[Row]
    differences: Sequence[Difference]

    @property
    def records(self) -> Sequence[Record]:
        """The records of all clips and methods."""
        return self.outcome.records

    @property
    def clips(self) -> list[str]:
        """Names of the clips, in order."""
        return list(dict.fromkeys(record["clip"] for record in self.records))

    def of_clip(self, clip: str) -> list[Record]:
        """The records of a clip, in the order of the methods."""
        return [record for record in self.records if record["clip"] == clip]

    @property
    def tables(self) -> list[Table]:
        """The results of all methods, group by group, and how they differ from one of them."""
        titles = [metric_title(metric) for metric in self.metrics]
        clips = len(self.clips)
        results = Table(
            ("method", *titles, "s per clip"),
            [
                row(
                    label(each.method, each.oracle),
                    *(_result(each, metric, clips) for metric in self.metrics),
                    f"{each.seconds:.1f}",
                )
                for each in self.rows
            ],
            "Mean and standard deviation over clips; the best of each group in bold. Oracles know the noise, or pick "
            "the iteration by the clean reference, which no user has.",
            [HEADINGS[each.oracle] for each in self.rows],
        )
        if not self.differences:
            return [results]
        grouped: dict[str, dict[str, Difference]] = {}
        for each in self.differences:
            grouped.setdefault(label(each.method, each.oracle), {})[each.metric] = each
        differences = Table(
            ("method", *titles),
            [row(name, *map(_difference, map(own.get, self.metrics))) for name, own in grouped.items()],
            f"Difference from {self.differences[0].pivot} on the same clips: the mean and its 95 % interval "
            "(percentile bootstrap over clips), bold where it is more than chance. Oracles are compared with its "
            "oracle.",
        )
        return [results, differences]

    @property
    def units(self) -> Table:
        """One row per clip and method with all metrics."""
        metrics = list(dict.fromkeys(metric for record in self.records for metric in record["metrics"]))
        rows = []
        for record in self.records:
            fit = record["fit"] or {}
            values = [
                *(record["clip"], " ".join(record["files"]), record["method"], record["oracle"]),
                *(record["metrics"].get(metric) for metric in metrics),
                *(record["seconds"], *(fit.get(name) for name in FIT_FIELDS)),
            ]
            rows.append(row(*(None if value is None else str(value) for value in values)))
        return Table(("clip", "files", "method", "oracle", *metrics, "seconds", *FIT_FIELDS), rows, texts=4)

    @property
    def notes(self) -> list[str]:
        """What readers of the tables should know."""
        lines = []
        if len(self.clips) < FEWEST_CLIPS:
            lines.append(f"with fewer than {FEWEST_CLIPS} clips no difference counts as more than chance")
        if self.configuration["task"] == "separate":
            lines.append("sources are numbered as the clean files were named")
        if self.drawn.skipped:
            seconds = self.configuration["duration_s"]
            lines.append(f"{count(self.drawn.skipped, 'clip')} shorter than {seconds:g} s skipped")
        lines += [f"not read: {reason}" for reason in self.drawn.unreadable.values()]
        reasons: dict[tuple[str, str], list[str]] = {}
        for clip, method, reason in self.outcome.failures:
            reasons.setdefault((clip, reason), []).append(method)
        lines += [f"failed: {clip}, {', '.join(methods)}: {reason}" for (clip, reason), methods in reasons.items()]
        looped = {
            note for record in self.records for note in record["notes"].values() if note.startswith("noise looped")
        }
        return lines + sorted(looped)

    @property
    def failed(self) -> str:
        """How much failed, such as ``2 of 8 results failed; 1 clean file cannot be read``."""
        total = len(self.records) + len(self.outcome.failures)
        parts = [f"{len(self.outcome.failures)} of {total} results failed"] if self.outcome.failures else []
        if self.drawn.unreadable:
            parts.append(f"{count(len(self.drawn.unreadable), 'file')} cannot be read")
        return "; ".join(parts)

    @property
    def title(self) -> str:
        """What was evaluated, such as ``denoise, gaussian (noise_std 0.1): 8 clips of 1 s, seed 0``."""
        protocol = dict(self.configuration["protocol"])
        name = protocol.pop("name")
        values = ", ".join(f"{key} {_in_words(value)}" for key, value in protocol.items() if key != "noise")
        seconds = self.configuration["duration_s"]
        return (
            f"{self.configuration['task']}, {name}{values and f' ({values})'}: {count(len(self.clips), 'clip')}"
            f"{'' if seconds is None else f' of {seconds:g} s'}, seed {self.configuration['seed']}"
        )


def make_comparison(configuration: Mapping[str, Any], outcome: Outcome, drawn: Drawn) -> Comparison:
    """What the records of an outcome amount to."""
    records = outcome.records
    metrics, pivot = choose_columns(records, configuration["task"]), choose_pivot(records)
    differences = compare(records, metrics, pivot) if pivot else []
    return Comparison(configuration, outcome, drawn, metrics, summarize(records, metrics), differences)


def metrics_in_words(record: Record, metrics: Sequence[str]) -> str:
    """The metrics that a record has, such as ``SNR 7.12 dB, STOI 0.873``."""
    parts = []
    for metric in metrics:
        if (value := record["metrics"].get(metric)) is not None:
            name, unit, source = metric_title(metric).partition(" (dB)")
            parts.append(f"{name}{source} {_value(metric, value)}{' dB' if unit else ''}")
    return ", ".join(parts)


def _in_words(value: Any) -> str:
    """A value of a protocol: both ends of a range, several words, or one of either."""
    if isinstance(value, (list, tuple)):
        return " and ".join(value) if isinstance(value[0], str) else ":".join(f"{each:g}" for each in value)
    return str(value)


def _value(metric: str, value: float, sign: str = "") -> str:
    """A value with the decimals that its metric deserves; ``sign`` may be ``+``."""
    return f"{value:{sign}.{3 if metric.startswith(_FINE) else 2}f}"


def _result(result: Row, metric: str, clips: int) -> Cell:
    """Mean and standard deviation, and over how many clips unless over all."""
    cell = result.cells[metric]
    if cell is None:
        return Cell(None)
    words = _value(metric, cell.mean)
    if cell.std is not None:
        words += f" ± {_value(metric, cell.std)}"
    return Cell(words if cell.count == clips else f"{words} (n={cell.count})", cell.best)


def _difference(difference: Difference | None) -> Cell:
    """The mean, and its interval below."""
    if difference is None:
        return Cell(None)
    words = _value(difference.metric, difference.mean, "+")
    if difference.low is not None and difference.high is not None:
        ends = (_value(difference.metric, end, "+") for end in (difference.low, difference.high))
        words += f"\n[{', '.join(ends)}]"
    return Cell(words, difference.verdict != "open")
