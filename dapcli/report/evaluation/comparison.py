"""What an evaluation found, and how it is put into words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dapcli.evaluation.clips import Drawn
from dapcli.evaluation.folder import Record
from dapcli.evaluation.run import Outcome
from dapcli.evaluation.tables import (
    COLUMNS,
    FEWEST_CLIPS,
    Cell,
    Difference,
    Row,
    choose_pivot,
    compare,
    summarize,
)


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
        if len(self.clips) < FEWEST_CLIPS:
            lines.append(f"with fewer than {FEWEST_CLIPS} clips no difference counts as more than chance")
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


def by_method(differences: Sequence[Difference]) -> dict[tuple[str, str], dict[str, Difference]]:
    """Differences by method and what it is told, and by metric."""
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


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
