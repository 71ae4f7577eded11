"""Tables: means over clips, and differences of methods that are more than chance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from operator import itemgetter

import numpy as np
from scipy.stats import bootstrap

from dapcli.evaluation.folder import Record
from dapcli.evaluation.methods import ORACLES, UNTOUCHED, Oracle
from dapcli.metrics import LOWER_IS_BETTER
from dapcli.settings import Settings
from dapcli.signal.source_types import DEFAULT_TYPES
from dapcli.tasks import TASKS

#: Groups of rows by what their methods know, in order; the best of each is marked.
GROUPS: tuple[Oracle, ...] = tuple(ORACLES)

#: Of fewer clips no difference is more than chance: that five of five agree happens once in 16 times.
FEWEST_CLIPS = 6
_RESAMPLES = 10_000
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Cell:
    """Mean and sample standard deviation (None of a single clip) of a metric over ``count`` clips."""

    mean: float
    std: float | None
    count: int
    best: bool = False


@dataclass(frozen=True)
class Row:
    """A method, what it knows, and its cells by metric: None where no clip has a value."""

    method: str
    oracle: Oracle
    cells: dict[str, Cell | None]
    seconds: float


@dataclass(frozen=True)
class Difference:
    """The mean over ``count`` clips of a method's metric less the pivot's on the same clip.

    ``low`` and ``high`` bound it with a confidence of 95 %; they are None of a single clip. The ``verdict`` is that the
    method is ``better`` or ``worse`` than the pivot, or ``open`` where the difference may be chance.
    """

    method: str
    oracle: Oracle
    pivot: str
    metric: str
    mean: float
    low: float | None
    high: float | None
    count: int
    verdict: str


def choose_columns(records: Sequence[Record], task: str) -> tuple[str, ...]:
    """The metrics of a task's table that any record has a value for, source by source."""
    there = {metric for record in records for metric, value in record["metrics"].items() if value is not None}
    suffixes = ["", *(f"_{number}" for number in range(1, max(DEFAULT_TYPES) + 1))]
    columns = [metric + suffix for suffix in suffixes for metric in TASKS[task].columns]
    return tuple(column for column in columns if column in there)


def summarize(records: Sequence[Record], metrics: Sequence[str]) -> list[Row]:
    """One row per method, group by group."""
    rows = []
    for (name, oracle), own in _by_method(records).items():
        cells = {metric: _cell(record["metrics"].get(metric) for record in own) for metric in metrics}
        rows.append(Row(name, oracle, cells, float(np.mean([record["seconds"] for record in own]))))
    for metric, oracle in product(metrics, GROUPS):
        sign = -1 if _is_lower_better(metric) else 1
        found = [(sign * cell.mean, row) for row in rows if row.oracle == oracle and (cell := row.cells[metric])]
        if len(found) > 1:
            _, best = max(found, key=itemgetter(0))
            best.cells[metric] = replace(best.cells[metric], best=True)  # type: ignore[type-var]
    return rows


def choose_pivot(records: Sequence[Record]) -> str | None:
    """What others are compared with: dap's usual prior, or else the first that is blind, or has the oracle's stop."""
    known = ("none", "reference")
    names = list(dict.fromkeys(record["method"] for record in records if record["oracle"] in known))
    if (usual := Settings().prior) in names:
        return usual
    return next((name for name in names if name != UNTOUCHED), None)


def compare(records: Sequence[Record], metrics: Sequence[str], pivot: str) -> list[Difference]:
    """How all other methods differ from a blind one, clip by clip; but oracles from the oracle of the same name."""
    values = {
        method: {record["clip"]: record["metrics"] for record in own} for method, own in _by_method(records).items()
    }
    differences = []
    for name, oracle in values:
        other: tuple[str, Oracle] = (pivot, "reference" if oracle == "reference" else "none")
        if (name, oracle) == other or other not in values:
            continue
        own, its = values[name, oracle], values[other]
        for metric in metrics:
            pairs = [(own[clip].get(metric), its[clip].get(metric)) for clip in sorted(own.keys() & its.keys())]
            paired = np.array([one - two for one, two in pairs if one is not None and two is not None])
            if not paired.size:
                continue
            mean, (low, high), verdict = float(paired.mean()), interval(paired), "open"
            if paired.size >= FEWEST_CLIPS and low is not None and high is not None and not low <= 0 <= high:
                verdict = "better" if (mean > 0) != _is_lower_better(metric) else "worse"
            differences.append(Difference(name, oracle, pivot, metric, mean, low, high, int(paired.size), verdict))
    return differences


def interval(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float | None, float | None]:
    """The percentile bootstrap's 95 % interval of the mean of values ``[n]``; None of a single one.

    Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13. The same values have the same interval.
    """
    if values.size < 2:
        return None, None
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=_RESAMPLES,
        confidence_level=_CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def _by_method(records: Sequence[Record]) -> dict[tuple[str, Oracle], list[Record]]:
    """The records of every method by its name and what it knows, group by group."""
    found: dict[tuple[str, Oracle], list[Record]] = {}
    for record in records:
        found.setdefault((record["method"], record["oracle"]), []).append(record)
    return dict(sorted(found.items(), key=lambda each: GROUPS.index(each[0][1])))


def _cell(values: Iterable[float | None]) -> Cell | None:
    there = np.array([value for value in values if value is not None])
    if not there.size:
        return None
    return Cell(float(there.mean()), float(there.std(ddof=1)) if there.size > 1 else None, int(there.size))


def _is_lower_better(metric: str) -> bool:
    return metric.startswith(LOWER_IS_BETTER)
