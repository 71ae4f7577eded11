"""How close an estimate is to its reference.

A metric is one function ``(reference, estimate, rate) -> float`` and one line in ``METRICS``. Both signals are
``[C, N]``, the rate is in Hz. A metric that has no value for its input raises ``MetricUndefined`` and says why.
Those in ``GAP_METRICS`` are also told where samples were missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from dapcli.gaps import Gaps
from dapcli.metrics.inside import gaps_snr_db, gaps_snr_db_mean
from dapcli.metrics.perceptual import pesq_nb, pesq_wb, stoi
from dapcli.metrics.spectral import envelope_distance, spectral_snr_db
from dapcli.metrics.waveform import MetricUndefined, Signal, psnr_db, segmental_snr_db, si_sdr_db, snr_db

__all__ = ["GAP_METRICS", "METRICS", "Metric", "MetricUndefined", "Signal", "score", "score_gaps"]

Metric = Callable[[Signal, Signal, int], float]
GapMetric = Callable[[Signal, Signal, int, Gaps], float]

METRICS: dict[str, Metric] = {
    "snr_db": snr_db,
    "psnr_db": psnr_db,
    "si_sdr_db": si_sdr_db,
    "segmental_snr_db": segmental_snr_db,
    "spectral_snr_db": spectral_snr_db,
    "envelope_distance": envelope_distance,
    "pesq_nb": pesq_nb,
    "pesq_wb": pesq_wb,
    "stoi": stoi,
}

GAP_METRICS: dict[str, GapMetric] = {
    "snr_db": gaps_snr_db,
    "snr_db_mean": gaps_snr_db_mean,
}


def score(reference: Signal, estimate: Signal, rate: int) -> tuple[dict[str, float | None], dict[str, str]]:
    """Compute every metric of an estimate ``[C, N]`` against its reference ``[C, N]`` at ``rate`` Hz.

    Returns:
        The values by metric, and for each value that is None the reason by metric. No value is NaN or infinite,
        so both can be written as JSON.

    Raises:
        InputError: The two differ in shape, or are not ``[C, N]``.
    """
    return _score(METRICS, reference, estimate, rate)


def score_gaps(
    reference: Signal, estimate: Signal, rate: int, gaps: Gaps
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Compute every metric of what an estimate has in ``gaps``; the rest is as in :func:`score`."""

    def told(metric: GapMetric) -> Metric:
        return lambda reference, estimate, rate: metric(reference, estimate, rate, gaps)

    metrics = {name: told(metric) for name, metric in GAP_METRICS.items()}
    return _score(metrics, reference, estimate, rate)


def _score(
    metrics: Mapping[str, Metric], reference: Signal, estimate: Signal, rate: int
) -> tuple[dict[str, float | None], dict[str, str]]:
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
