"""How close an estimate is to its reference.

A metric is one function ``(reference, estimate, rate) -> float`` and one line in ``METRICS``. Both signals are
``[C, N]``, the rate is in Hz. A metric that has no value for its input raises ``MetricUndefined`` and says why.
Those in ``GAP_METRICS`` also take the gaps, where samples were missing; ``score_sources`` compares separated sources,
whose order is not known.
"""

from __future__ import annotations

from collections.abc import Callable

from dapcli.audio.recording import as_rate, as_signal
from dapcli.metrics import perceptual, waveform
from dapcli.metrics.alignment import describe_alignment
from dapcli.metrics.separation import SOURCE_METRICS, SourceScores, score_sources
from dapcli.metrics.waveform import Metric, MetricUndefined, Scores, Signal, score_with
from dapcli.signal.gaps import Gaps

__all__ = [
    "GAP_METRICS",
    "LOWER_IS_BETTER",
    "METRICS",
    "SOURCE_METRICS",
    "Metric",
    "MetricUndefined",
    "Scores",
    "Signal",
    "SourceScores",
    "describe_alignment",
    "score",
    "score_all",
    "score_gaps",
    "score_sources",
]

METRICS: dict[str, Metric] = {
    "snr_db": waveform.snr_db,
    "psnr_db": waveform.psnr_db,
    "si_sdr_db": waveform.si_sdr_db,
    "segmental_snr_db": waveform.segmental_snr_db,
    "spectral_snr_db": waveform.spectral_snr_db,
    "envelope_distance": waveform.envelope_distance,
    "pesq_nb": perceptual.pesq_nb,
    "pesq_wb": perceptual.pesq_wb,
    "stoi": perceptual.stoi,
    "csig": perceptual.csig,
    "cbak": perceptual.cbak,
    "covl": perceptual.covl,
}
#: Metrics of which less is better.
LOWER_IS_BETTER = ("envelope_distance",)

GAP_METRICS: dict[str, Callable[[Signal, Signal, int, Gaps], float]] = {
    "snr_db": waveform.gaps_snr_db,
    "snr_db_mean": waveform.gaps_snr_db_mean,
}


def score(reference: Signal, estimate: Signal, rate: int) -> Scores:
    """Compute every metric of an estimate ``[C, N]`` against its reference ``[C, N]`` at ``rate`` Hz.

    Returns:
        The values by metric, and for each value that is None the reason by metric. No value is NaN or infinite,
        so both can be written as JSON.

    Raises:
        InputError: The two differ in shape, or are no floats ``[C, N]``.
    """
    return score_with(METRICS, as_signal(reference), as_signal(estimate), as_rate(rate))


def score_gaps(reference: Signal, estimate: Signal, rate: int, gaps: Gaps) -> Scores:
    """Compute every metric of the samples of an estimate in ``gaps``; the rest is as in :func:`score`."""
    return score_with(GAP_METRICS, reference, estimate, rate, gaps)


def score_all(
    references: Signal, estimates: Signal, rate: int, *, gaps: Gaps | None = None, fixed_order: bool = False
) -> SourceScores:
    """Compute every metric of estimates ``[K, C, N]``: of one restoration, or by :func:`score_sources` of sources.

    Those of a restoration's samples in ``gaps`` have names that begin with ``gaps_``.
    """
    if len(references) > 1:
        return score_sources(references, estimates, rate, fixed_order=fixed_order)
    values, notes = score(references[0], estimates[0], rate)
    if gaps is not None:
        inside, reasons = score_gaps(references[0], estimates[0], rate, gaps)
        values |= {f"gaps_{name}": value for name, value in inside.items()}
        notes |= {f"gaps_{name}": reason for name, reason in reasons.items()}
    return SourceScores((0,), ((values, notes),))
