"""Tables: means over clips, and differences of methods that are more than chance."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dapcli.evaluation.folder import Record
from dapcli.evaluation.methods import Told, Untouched
from dapcli.settings import Settings

#: Metrics of which less is better.
LOWER_IS_BETTER = ("envelope_distance",)
#: Columns of the tables: what the Design paper has, and the Harmonic paper; of separations for every source.
COLUMNS: dict[str, tuple[str, ...]] = {
    "denoise": ("pesq_nb", "pesq_wb", "snr_db", "si_sdr_db", "stoi", "segmental_snr_db", "csig", "cbak", "covl"),
    "inpaint": ("gaps_snr_db", "spectral_snr_db", "envelope_distance", "snr_db"),
    "separate": ("sdr_db", "sir_db", "sar_db", "spectral_snr_db", "envelope_distance"),
    "declip": ("snr_db", "si_sdr_db", "pesq_nb", "stoi"),
    "dequantize": ("snr_db", "si_sdr_db", "segmental_snr_db", "pesq_nb"),
}
#: Groups of rows by what their methods are told, in order; the best of each is marked.
GROUPS: tuple[Told, ...] = ("nothing", "training", "noise", "reference")

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
    """A method, what it is told, and its cells by metric: None where no clip has a value."""

    method: str
    told: str
    cells: dict[str, Cell | None]
    seconds: float


@dataclass(frozen=True)
class Difference:
    """The mean over ``count`` clips of a method's metric less the pivot's on the same clip.

    ``low`` and ``high`` bound it with a confidence of 95 %; they are None of a single clip.
    """

    method: str
    told: str
    pivot: str
    metric: str
    mean: float
    low: float | None
    high: float | None
    count: int

    @property
    def verdict(self) -> str:
        """Whether the method is ``better`` or ``worse`` than the pivot, or the difference may be chance."""
        if self.count < FEWEST_CLIPS or self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "open"
        return "better" if (self.mean > 0) != _is_lower_better(self.metric) else "worse"


def choose_columns(records: Sequence[Record], task: str) -> tuple[str, ...]:
    """The metrics of a task's table that any record has a value for, source by source."""
    there = {metric for record in records for metric, value in record["metrics"].items() if value is not None}
    numbers = sorted({int(found[1]) for metric in there if (found := re.search(r"_(\d+)$", metric))})
    suffixes = [f"_{number}" for number in numbers] or [""]
    return tuple(metric + suffix for suffix in suffixes for metric in COLUMNS[task] if metric + suffix in there)


def summarize(records: Sequence[Record], metrics: Sequence[str]) -> list[Row]:
    """One row per method, group by group."""
    rows = []
    for told in GROUPS:
        names = dict.fromkeys(record["method"] for record in records if record["told"] == told)
        group = []
        for name in names:
            own = [record for record in records if (record["method"], record["told"]) == (name, told)]
            cells = {metric: _cell([record["metrics"].get(metric) for record in own]) for metric in metrics}
            group.append(Row(name, told, cells, float(np.mean([record["seconds"] for record in own]))))
        rows += _with_best(group, metrics)
    return rows


def choose_pivot(records: Sequence[Record]) -> str | None:
    """The blind method that others are compared with: dap's usual prior, or else the first beside the input."""
    names = list(dict.fromkeys(record["method"] for record in records if record["told"] == "nothing"))
    if (usual := Settings().prior) in names:
        return usual
    return next((name for name in names if name != Untouched.name), None)


def compare(records: Sequence[Record], metrics: Sequence[str], pivot: str) -> list[Difference]:
    """How all other methods differ from a blind one, clip by clip; but oracles from the oracle of the same name."""
    values = _by_method(records)
    differences = []
    for name, told in sorted(values, key=lambda method: GROUPS.index(method[1])):
        other = (pivot, "reference" if told == "reference" else "nothing")
        if (name, told) == other or other not in values:
            continue
        for metric in metrics:
            clips = values[name, told].keys() & values[other].keys()
            pairs = [(values[name, told][clip].get(metric), values[other][clip].get(metric)) for clip in sorted(clips)]
            paired = np.array([own - its for own, its in pairs if own is not None and its is not None])
            if paired.size:
                low, high = interval(paired)
                differences.append(
                    Difference(name, told, pivot, metric, float(paired.mean()), low, high, int(paired.size))
                )
    return differences


def interval(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float | None, float | None]:
    """The percentile bootstrap's 95 % interval of the mean of values ``[n]``; None of a single one.

    Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13. The same values have the same interval.
    """
    if values.size < 2:
        return None, None
    rng = np.random.default_rng(0)
    drawn = rng.integers(values.size, size=(_RESAMPLES, values.size))
    tail = 50 * (1 - _CONFIDENCE)
    low, high = np.percentile(values[drawn].mean(axis=1), [tail, 100 - tail])
    return float(low), float(high)


def _by_method(records: Sequence[Record]) -> dict[tuple[str, Told], dict[str, dict[str, float | None]]]:
    values: dict[tuple[str, Told], dict[str, dict[str, float | None]]] = {}
    for record in records:
        values.setdefault((record["method"], record["told"]), {})[record["clip"]] = record["metrics"]
    return values


def _cell(values: Sequence[float | None]) -> Cell | None:
    there = np.array([value for value in values if value is not None])
    if not there.size:
        return None
    return Cell(float(there.mean()), float(there.std(ddof=1)) if there.size > 1 else None, int(there.size))


def _with_best(rows: list[Row], metrics: Sequence[str]) -> list[Row]:
    for metric in metrics:
        cells = [cell for row in rows if (cell := row.cells[metric]) is not None]
        if len(cells) < 2:
            continue
        sign = -1 if _is_lower_better(metric) else 1
        best = max(cells, key=lambda cell: sign * cell.mean)
        rows = [
            Row(
                row.method,
                row.told,
                {**row.cells, metric: Cell(best.mean, best.std, best.count, best=True)},
                row.seconds,
            )
            if row.cells[metric] is best
            else row
            for row in rows
        ]
    return rows


def _is_lower_better(metric: str) -> bool:
    return metric.startswith(LOWER_IS_BETTER)
