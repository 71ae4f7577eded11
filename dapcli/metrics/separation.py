"""How well a mixture was separated into its sources, whatever order they come in."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import scipy

from dapcli.errors import InputError
from dapcli.metrics import waveform
from dapcli.metrics.waveform import SILENCE, Array, MetricUndefined, Scores, Signal, comparable, score_with

# Metrics of one source against its own reference.
_PAIR_METRICS = {
    metric.__name__: metric
    for metric in (waveform.snr_db, waveform.si_sdr_db, waveform.spectral_snr_db, waveform.envelope_distance)
}
# Ratios of a source beside all others by BSS Eval, with the reason where the ratio is infinite.
_BSS_METRICS = {
    "sdr_db": "the estimate equals the reference up to a filter",
    "sir_db": "the estimate has nothing of the other sources",
    "sar_db": "the estimate has nothing but the sources",
}
#: The metrics of a source, in the order of the report.
SOURCE_METRICS = (*_BSS_METRICS, *_PAIR_METRICS)

# The filter, in samples at any rate, that a source may have passed without counting as distorted.
_FILTER = 512
# Ratios beyond this one, dB, are made of rounding errors.
_EXACT_DB = 150.0


@dataclass(frozen=True)
class SourceScores:
    """The score of every source: estimate ``permutation[k]`` is the one that was compared with reference ``k``."""

    permutation: tuple[int, ...]
    sources: tuple[Scores, ...]


def score_sources(references: Signal, estimates: Signal, rate: int, *, fixed_order: bool = False) -> SourceScores:
    """Compute every metric of estimated sources ``[K, C, N]`` against their references ``[K, C, N]`` at ``rate`` Hz.

    SDR, SIR and SAR (``sdr_db``, ``sir_db``, ``sar_db``) are those of BSS Eval with filters of 512 samples: Vincent,
    Gribonval and Fevotte, "Performance measurement in blind audio source separation" (IEEE TASLP 2006). Channels are
    evaluated one by one and averaged. The order of the estimates is the one with the highest mean SIR, as in the BSS
    Eval toolbox, over all channels together; where there is no SIR, that with the least squared error. All metrics
    use this order. With ``fixed_order``, estimate ``k`` is compared with reference ``k``.

    Raises:
        InputError: The two differ in shape, or are not ``[K, C, N]``.
    """
    if references.ndim != 3 or references.shape != estimates.shape or not len(references):
        raise InputError(
            f"the references are {list(references.shape)} and the estimates {list(estimates.shape)}; "
            "both need the same sources, one at least, channels and samples [K, C, N]"
        )
    ratios, reason = None, ""
    try:
        ratios = _bss_eval(references, estimates, fixed_order=fixed_order)
    except MetricUndefined as error:
        reason = str(error)
    order = np.arange(len(references))
    if not fixed_order:
        costs = _squared_errors(references, estimates) if ratios is None else -ratios[1]
        order = scipy.optimize.linear_sum_assignment(costs)[1]
    sources = []
    for k, j in enumerate(order):
        values, notes = score_with(_PAIR_METRICS, references[k], estimates[j], rate)
        bss_values: dict[str, float | None] = dict.fromkeys(_BSS_METRICS)
        for index, (name, infinite) in enumerate(_BSS_METRICS.items()):
            if ratios is None:
                notes[name] = reason
            elif abs(value := float(ratios[index, k, j])) < _EXACT_DB:
                bss_values[name] = value
            else:
                notes[name] = infinite if value > 0 else "the estimate has nothing of the reference"
        sources.append(({**bss_values, **values}, notes))
    return SourceScores(tuple(int(j) for j in order), tuple(sources))


def _bss_eval(references: Signal, estimates: Signal, *, fixed_order: bool) -> Array:
    """SDR, SIR and SAR in dB, ``[3, K, K]`` by reference and estimate, the mean over channels.

    With ``fixed_order`` only the diagonal is computed; the rest is 0.

    Raises:
        MetricUndefined: A source is silent in some channel, has samples that are no numbers, or all are so short that
            filters alone make the references into anything.
    """
    import mir_eval  # deferred: takes a second, and most runs have no references

    count, channels, length = references.shape
    pairs = [comparable(*pair, silence=True) for pair in zip(references, estimates, strict=True)]
    if length < count * _FILTER:
        raise MetricUndefined(f"shorter than the {count} filters of {_FILTER} samples that BSS Eval fits")
    signals = np.array(pairs).transpose(2, 1, 0, 3)  # [C, 2, K, N]
    peaks = np.abs(signals).max(axis=-1, keepdims=True)
    for channel, side, k, _ in np.argwhere(peaks < SILENCE):
        name = ("reference", "estimate")[side]
        raise MetricUndefined(f"channel {channel + 1}: the {name} of source {k + 1} is silent")
    ratios = np.zeros((3, count, count))
    rows = np.arange(count)
    # The level of a source does not matter to the ratios, but very different ones spoil the equations.
    for s, e in signals / peaks:
        # Each turn compares every reference with another estimate, so that together they give all pairs.
        for turn in range(1 if fixed_order else count):
            compared = (rows + turn) % count
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns that mir_eval 0.9 will not have it
                values = mir_eval.separation.bss_eval_sources(s, e[compared], compute_permutation=False)[:3]
            ratios[:, rows, compared] += np.clip(values, -2 * _EXACT_DB, 2 * _EXACT_DB) / channels
    return ratios


def _squared_errors(references: Signal, estimates: Signal) -> Array:
    """Sum of squared differences ``[K, K]`` by reference and estimate; 0 where it is not a number."""
    with np.errstate(all="ignore"):
        errors = [[np.sum((s.astype(np.float64) - e) ** 2) for e in estimates] for s in references]
    return np.nan_to_num(np.array(errors), posinf=0.0)
