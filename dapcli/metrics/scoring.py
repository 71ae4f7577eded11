"""What every score has in common: a value, or the reason for which there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from dapcli.metrics.waveform import MetricUndefined, Signal

Metric = Callable[[Signal, Signal, int], float]
#: The values by metric, and for each value that is None the reason by metric.
Scores = tuple[dict[str, float | None], dict[str, str]]


def score_with(metrics: Mapping[str, Metric], reference: Signal, estimate: Signal, rate: int) -> Scores:
    """Compute some metrics of an estimate ``[C, N]`` against its reference ``[C, N]`` at ``rate`` Hz.

    Raises:
        InputError: The two differ in shape, or are not ``[C, N]``.
    """
    values: dict[str, float | None] = {}
    notes: dict[str, str] = {}
    for name, metric in metrics.items():
        try:
            value = metric(reference, estimate, rate)
        except MetricUndefined as error:
            values[name], notes[name] = None, str(error)
            continue
        if math.isfinite(value):
            values[name] = value
        else:
            values[name], notes[name] = None, f"came out as {value}"
    return values, notes
