"""How close an estimate is to its reference.

A metric is one function ``(reference, estimate, rate) -> float`` and one line in ``METRICS``. Both signals are
``[C, N]``, the rate is in Hz. A metric that has no value for its input raises ``MetricUndefined`` and says why.
Those in ``GAP_METRICS`` are also told where samples were missing; ``score_sources`` compares separated sources, whose
order is not known.
"""

from __future__ import annotations

from collections.abc import Callable

from dapcli.metrics.composite import cbak, covl, csig
from dapcli.metrics.inside import gaps_snr_db, gaps_snr_db_mean
from dapcli.metrics.perceptual import pesq_nb, pesq_wb, stoi
from dapcli.metrics.scoring import Metric, Scores, score_with
from dapcli.metrics.separation import SOURCE_METRICS, SourceScores, score_sources
from dapcli.metrics.spectral import envelope_distance, spectral_snr_db
from dapcli.metrics.waveform import MetricUndefined, Signal, psnr_db, segmental_snr_db, si_sdr_db, snr_db
from dapcli.signal.gaps import Gaps

__all__ = [
    "GAP_METRICS",
    "METRICS",
    "SOURCE_METRICS",
    "Metric",
    "MetricUndefined",
    "Scores",
    "Signal",
    "SourceScores",
    "score",
    "score_gaps",
    "score_sources",
]

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
    "csig": csig,
    "cbak": cbak,
    "covl": covl,
}

GAP_METRICS: dict[str, GapMetric] = {
    "snr_db": gaps_snr_db,
    "snr_db_mean": gaps_snr_db_mean,
}


def score(reference: Signal, estimate: Signal, rate: int) -> Scores:
    """Compute every metric of an estimate ``[C, N]`` against its reference ``[C, N]`` at ``rate`` Hz.

    Returns:
        The values by metric, and for each value that is None the reason by metric. No value is NaN or infinite,
        so both can be written as JSON.

    Raises:
        InputError: The two differ in shape, or are not ``[C, N]``.
    """
    return score_with(METRICS, reference, estimate, rate)


def score_gaps(reference: Signal, estimate: Signal, rate: int, gaps: Gaps) -> Scores:
    """Compute every metric of what an estimate has in ``gaps``; the rest is as in :func:`score`."""

    def told(metric: GapMetric) -> Metric:
        return lambda reference, estimate, rate: metric(reference, estimate, rate, gaps)

    metrics = {name: told(metric) for name, metric in GAP_METRICS.items()}
    return score_with(metrics, reference, estimate, rate)
