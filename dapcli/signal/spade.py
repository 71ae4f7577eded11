"""The sparsest signal between two bounds, for clipped and for quantized samples.

A-SPADE: Kitić, Bertin & Gribonval, "Sparsity and cosparsity for audio declipping: a flexible non-convex approach"
(2015). Záviška, Rajmic, Mokrý & Průša, "A proper version of synthesis-based sparse audio declipper" (2019), set its
synthesis variant right and compare the two; Záviška, Rajmic & Mokrý, "Audio dequantization using (co)sparse
(non)convex methods" (2021), take both to quantized samples.
"""

from __future__ import annotations

import numpy as np
import scipy
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch.nn.functional import avg_pool2d

from dapcli.signal.stft import STFT

Signal = NDArray[np.float64]
Frames = NDArray[np.float32]

#: Length of a frame, s; a quarter of it is the distance of frames.
WINDOW_S = 0.064
# Bins of the spectrum are so many times closer than those of the frame alone, so that fewer of them hold a tone.
_REDUNDANCY = 2
# Samples of a frame for every bin that is let in at a time, so that more of them do not take more rounds.
_SAMPLES_PER_BIN = 1024
# A frame is done when what the sparse spectrum leaves of it is 50 dB below the peak of signal and bounds: 0.1 of the
# papers, which take the norm of 1024 samples.
_RESIDUAL = 0.1 / 32
# Thresholds of the refinement, relative to the mean power. Falling further, or estimating the power again after it,
# makes speech better but the piano worse.
_THRESHOLDS = np.geomspace(1e-2, 1e-4, 60)
# Bins that share a power, in frequency and in time, and the power, relative to the mean, that all of them have.
_BINS = 3
_FLOOR = 1e-9


def restore_sparse(samples: Signal, low: Signal, high: Signal, rate: int) -> Signal:
    """The signal ``[N]`` between ``low`` and ``high`` whose short-time spectrum has the fewest bins that are not zero.

    ``low <= samples <= high``, all ``[N]``: the two are equal where a sample is reliable, and infinite where there is
    no bound. ``rate`` is in Hz. The search is a heuristic, and what it finds need not be the very sparsest. Every
    frame is restored by itself, and those in which all samples are reliable are left as they are. Samples beyond the
    ends are taken for zeros.
    """
    peak = max(float(np.abs(signal[np.isfinite(signal)]).max(initial=0.0)) for signal in (samples, low, high))
    if peak == 0.0:
        return samples
    length = max(4 * round(WINDOW_S * rate / 4), 8)
    hop = length // 4
    # Never zero, so that an infinite bound stays one.
    window = np.sin(np.pi * (np.arange(length) + 0.5) / length)

    def frames(signal: Signal) -> Signal:
        return sliding_window_view(np.pad(signal / peak, length), length)[::hop]

    unsure = np.flatnonzero((frames(low) < frames(high)).any(axis=1))
    total = np.pad(samples, length)
    # Squared windows that are a quarter apart add up to 2.
    weight = window * peak / 2
    given, below, above = ((frames(signal)[unsure] * window).astype(np.float32) for signal in (samples, low, high))
    for number, change in zip(unsure, _sparsest(given, below, above) - given, strict=True):
        total[number * hop : number * hop + length] += weight * change
    return np.clip(total[length:-length], low, high)


def refine_sparse(estimate: Signal, low: Signal, high: Signal, rate: int) -> Signal:
    """The signal ``[N]`` between the bounds whose bins have the least power relative to the estimate's around them.

    Sparse signals lack what is quiet beside what is loud. Here sum |X|^2 / v is made small, where v is the mean power
    of the estimate in 3 x 3 bins: a step of reweighted least squares (Daubechies, DeVore, Fornasier & Güntürk,
    "Iteratively reweighted least squares minimization for sparse recovery", 2010), by alternating directions.
    ``rate`` is in Hz; the estimate must lie between the bounds.
    """
    stft = STFT.for_rate(rate, WINDOW_S, WINDOW_S / 4)
    bounds = [torch.tensor(bound, dtype=torch.float32)[None] for bound in (low, high)]
    spectrum = stft.forward(torch.tensor(estimate, dtype=torch.float32)[None])
    power = spectrum.square().sum(dim=1, keepdim=True)
    mean = float(power.mean())
    if mean == 0.0:
        return estimate
    power = avg_pool2d(power / mean, _BINS, 1, _BINS // 2, count_include_pad=False) + _FLOOR
    dual = torch.zeros_like(spectrum)
    for threshold in _THRESHOLDS:
        likely = (spectrum + dual) * (power / (power + threshold))
        dual += spectrum - likely
        refined = stft.inverse(likely - dual, len(estimate)).clamp(*bounds)
        spectrum = stft.forward(refined)
    return np.asarray(refined[0].double().numpy().clip(low, high))


def _sparsest(given: Frames, low: Frames, high: Frames) -> Frames:
    """Frames ``[T, n]`` between bounds, each with a sparse spectrum; ``given`` is where the search begins.

    Alternating directions: the spectrum keeps its k largest bins, the frame is the nearest between the bounds, and
    what separates the two (``dual``) is added up. k grows each time until the two agree.
    """
    restored: Frames = np.array(given)
    length = given.shape[1]
    size = scipy.fft.next_fast_len(_REDUNDANCY * length, real=True)
    bins = size // 2 + 1
    # The frames that are not done, and where they are in the result.
    left = np.arange(len(given))
    spectrum = scipy.fft.rfft(given, size, norm="ortho")
    dual = np.zeros_like(spectrum)
    step = max(1, round(length / _SAMPLES_PER_BIN))
    for k in range(step, length // 2, step):
        if left.size == 0:
            break
        sparse = spectrum + dual
        power = sparse.real**2 + sparse.imag**2
        sparse *= power > np.partition(power, bins - k - 1, axis=1)[:, bins - k - 1, None]
        near = scipy.fft.irfft(sparse - dual, size, norm="ortho")[:, :length]
        estimate = np.clip(near, low, high)
        restored[left] = estimate
        spectrum = scipy.fft.rfft(estimate, size, norm="ortho")
        residual = spectrum - sparse
        dual += residual
        on = (residual.real**2 + residual.imag**2).sum(axis=1) > length * _RESIDUAL**2
        if not on.all():
            left, low, high, spectrum, dual = (each[on] for each in (left, low, high, spectrum, dual))
    return restored
