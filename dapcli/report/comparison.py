"""What an evaluation found, and how it is put into words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dapcli.evaluation.clips import Drawn
from dapcli.evaluation.folder import Record
from dapcli.evaluation.run import Outcome
from dapcli.evaluation.tables import (
    FEWEST_CLIPS,
    Difference,
    Row,
    choose_columns,
    choose_pivot,
    compare,
    summarize,
)
from dapcli.report.console import METRIC_TITLES

# Metrics whose differences are in the third decimal.
_FINE = ("envelope_distance", "stoi")
#: Of the groups of rows.
HEADINGS = {
    "nothing": "blind",
    "training": "trained: learned from other recordings",
    "noise": "told the noise",
    "reference": "oracle: told the reference",
}


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

    def of_clip(self, clip: str) -> list[Record]:
        """The records of a clip, in the order of the methods."""
        return [record for record in self.records if record["clip"] == clip]

    @property
    def notes(self) -> list[str]:
        """What readers of the tables should know."""
        lines = []
        if len(self.clips) < FEWEST_CLIPS:
            lines.append(f"with fewer than {FEWEST_CLIPS} clips no difference counts as more than chance")
        if self.configuration["task"] == "separate":
            lines.append("sources are numbered as the clean files were named")
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
    def failed(self) -> str:
        """How much failed, such as ``2 of 8 results failed; 1 clean file cannot be read``."""
        total = len(self.records) + len(self.failures)
        parts = [f"{len(self.failures)} of {total} results failed"] if self.failures else []
        if self.unreadable:
            parts.append(f"{_count(len(self.unreadable), 'file')} cannot be read")
        return "; ".join(parts)

    @property
    def title(self) -> str:
        """What was evaluated, such as ``denoise, gaussian (noise_std 0.1): 8 clips of 1 s, seed 0``."""
        protocol = dict(self.configuration["protocol"])
        name = protocol.pop("name")
        values = ", ".join(f"{key} {_in_words(value)}" for key, value in protocol.items() if key != "noise")
        seconds = self.configuration["duration_s"]
        return (
            f"{self.configuration['task']}, {name}{values and f' ({values})'}: {_count(len(self.clips), 'clip')}"
            f"{'' if seconds is None else f' of {seconds:g} s'}, seed {self.configuration['seed']}"
        )


def make_comparison(configuration: Mapping[str, Any], outcome: Outcome, drawn: Drawn) -> Comparison:
    """What the records of an outcome amount to."""
    metrics = choose_columns(outcome.records, configuration["task"])
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


def by_method(differences: Sequence[Difference]) -> dict[tuple[str, str], dict[str, Difference]]:
    """Differences by method and what it is told, and by metric."""
    grouped: dict[tuple[str, str], dict[str, Difference]] = {}
    for difference in differences:
        grouped.setdefault((difference.method, difference.told), {})[difference.metric] = difference
    return grouped


def _in_words(value: Any) -> str:
    """A value of a protocol: both ends of a range, several words, or one of either."""
    if isinstance(value, (list, tuple)):
        return " and ".join(value) if isinstance(value[0], str) else ":".join(f"{each:g}" for each in value)
    return str(value)


def column_title(metric: str) -> str:
    """A metric as people write it, with the number of its source where there are several."""
    if metric in METRIC_TITLES:
        return METRIC_TITLES[metric]
    name, _, source = metric.rpartition("_")
    title, unit, _ = METRIC_TITLES[name].partition(" (dB)")
    return f"{title} {source}{unit}"


def value_in_words(metric: str, value: float, sign: str = "") -> str:
    """A value with the decimals that its metric deserves; ``sign`` may be ``+``."""
    return f"{value:{sign}.{3 if metric.startswith(_FINE) else 2}f}"


def cell_in_words(row: Row, metric: str, clips: int) -> str:
    """Mean and standard deviation, and over how many clips unless over all."""
    cell = row.cells[metric]
    if cell is None:
        return "-"
    words = value_in_words(metric, cell.mean)
    if cell.std is not None:
        words += f" ± {value_in_words(metric, cell.std)}"
    return words if cell.count == clips else f"{words} (n={cell.count})"


def difference_in_words(difference: Difference | None) -> str:
    """The mean and its interval."""
    if difference is None:
        return "-"
    mean, *ends = (
        None if value is None else value_in_words(difference.metric, value, "+")
        for value in (difference.mean, difference.low, difference.high)
    )
    return f"{mean}" if None in ends else f"{mean} [{ends[0]}, {ends[1]}]"


def is_best(row: Row, metric: str) -> bool:
    """Whether a row's mean is the best of its group."""
    cell = row.cells[metric]
    return cell is not None and cell.best


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
