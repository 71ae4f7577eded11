"""The classical separation of a mixture into sources of known types.

A sustained sound is a line along time in a spectrogram, a struck one a line along frequency, and a median filter along
a line keeps what is on it (FitzGerald, "Harmonic/percussive separation using median filtering", DAFx 2010; the general
form is that of Liutkus et al., "Kernel additive models for source separation", IEEE TSP 2014).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import librosa
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.ndimage import median_filter
from torch import Tensor

from dapcli.audio import Samples
from dapcli.signal.source_types import CONTRASTS, SOURCE_TYPES, Contrast
from dapcli.signal.stft import STFT

Magnitudes = NDArray[np.float64]

# Frames, and bins, of the medians of the first separation, as librosa has them.
_MEDIAN = 31
# The power of the magnitudes in the masks when it is done again.
_SOFTNESS = 1.5
# From this frequency on, Hz, what is struck is stronger than it seems.
_BRIGHT_HZ = 2000.0
# Keeps masks of silence finite.
_SILENCE = 1e-30
# Factorisation of a part that holds several sources of one type: its window in s, and components of each.
_PARTS_WINDOW, _PARTS_COMPONENTS = 0.064, 6
_ITERATIONS = 100


def separate_types(samples: Samples, rate: int, types: Sequence[str], seed: int) -> Samples:
    """Sources ``[K, C, N]`` of these ``types``, which sum to the mixture: samples ``[C, N]`` at ``rate`` Hz.

    The type that lasts longest is taken out first. Where sources have the same type, its part of the mixture is divided
    by how alike the spectra of its components are; random numbers for that are drawn from ``seed``.
    """
    lasting = [name for name in SOURCE_TYPES if name in types]
    parts: dict[str, Samples] = {}
    rest = samples
    for name, other in pairwise(lasting):
        parts[name] = _lasting_part(rest, rate, SOURCE_TYPES[name].windows, CONTRASTS[name, other])
        rest = rest - parts[name]
    parts[lasting[-1]] = rest
    divided = {name: iter(_divide(part, rate, types.count(name), seed)) for name, part in parts.items()}
    return np.stack([next(divided[name]) for name in types])


def _lasting_part(samples: Samples, rate: int, windows: Sequence[float], contrast: Contrast) -> Samples:
    """The part of samples ``[C, N]`` that lasts, by its windows, s, and its contrast to the rest.

    First as the papers have it, with the mean over several windows. Then again, after Liutkus's kernel backfitting:
    each part is smoothed along its own lines by itself, and not within the mixture, so that shorter kernels are enough.
    Low frequencies are left as they were at first: a drum that rings is a line there, which only long medians tell from
    a note.
    """
    part = first = _mean(_median_masked(samples, rate, window) for window in windows)
    for _ in range(contrast.rounds):
        part = _mean(_backfitted(samples, part, rate, window, contrast) for window in contrast.windows)
    length = samples.shape[1]
    low = np.fft.rfftfreq(length, 1 / rate) < contrast.lowest
    return np.asarray(np.fft.irfft(np.where(low, np.fft.rfft(first), np.fft.rfft(part)), length))


def _mean(parts: Iterable[Samples]) -> Samples:
    return np.asarray(np.mean(list(parts), axis=0))


def _median_masked(samples: Samples, rate: int, window: float) -> Samples:
    """The harmonic part of samples ``[C, N]`` by medians over so many frames and bins, in one window, s."""
    stft = STFT.for_rate(rate, window, window / 4)
    spectrogram = stft.forward(torch.from_numpy(samples))
    magnitudes = _magnitudes(spectrogram)
    lasting, wide = (median_filter(magnitudes, size) ** 2 for size in ((1, 1, _MEDIAN), (1, _MEDIAN, 1)))
    return _masked(stft, spectrogram, lasting, wide, samples.shape[1])


def _backfitted(samples: Samples, part: Samples, rate: int, window: float, contrast: Contrast) -> Samples:
    """The part ``[C, N]`` of samples once more, by smoothing it over time, and the rest over frequency."""
    stft = STFT.for_rate(rate, window, window / 8)
    frames, bins = contrast.lasting * rate / stft.hop, contrast.width * stft.n_fft / rate
    spectrogram = stft.forward(torch.from_numpy(samples))
    lasting, wide = (_magnitudes(stft.forward(torch.from_numpy(each))) for each in (part, samples - part))
    lasting = median_filter(lasting, (1, 1, 2 * round(frames / 2) + 1), mode="nearest")
    wide = median_filter(wide, (1, 2 * round(bins / 2) + 1, 1))
    wide[:, round(_BRIGHT_HZ * stft.n_fft / rate) :] *= contrast.brightness
    wide = np.maximum(wide, _magnitudes(spectrogram) - contrast.excess * lasting)
    return _masked(stft, spectrogram, lasting**_SOFTNESS, wide**_SOFTNESS, samples.shape[1])


def _magnitudes(spectrogram: Tensor) -> Magnitudes:
    """Magnitudes ``[C, F, T]`` of a spectrogram ``[C, 2, F, T]``."""
    return np.asarray(spectrogram.square().sum(dim=1).sqrt().numpy())


def _masked(stft: STFT, spectrogram: Tensor, lasting: Magnitudes, wide: Magnitudes, length: int) -> Samples:
    """Samples ``[C, N]`` of a spectrogram ``[C, 2, F, T]``, masked by powers ``[C, F, T]`` of what stays and goes."""
    mask = torch.from_numpy((lasting + _SILENCE / 2) / (lasting + wide + _SILENCE))
    return np.asarray(stft.inverse(mask[:, None] * spectrogram, length).numpy())


def _divide(samples: Samples, rate: int, count: int, seed: int) -> Samples:
    """Parts ``[count, C, N]`` that sum to samples ``[C, N]``, by components with similar spectra."""
    if count == 1 or not samples.any():
        return np.stack([samples / count] * count)
    stft = STFT.for_rate(rate, _PARTS_WINDOW, _PARTS_WINDOW / 4)
    spectrogram = stft.forward(torch.from_numpy(samples))
    magnitudes = spectrogram.square().sum(dim=1).sqrt().numpy()

    def centre(spectra: Magnitudes, _: Magnitudes) -> Magnitudes:
        return np.asarray(np.log2(np.arange(1, len(spectra) + 1) @ spectra / (spectra.sum(axis=0) + _SILENCE) + 1))

    levels = magnitudes.mean(axis=0) / magnitudes.max()
    masks = factor_masks(levels, count, _PARTS_COMPONENTS, centre, seed, beta_loss="kullback-leibler")
    return np.stack([stft.inverse(torch.from_numpy(mask) * spectrogram, samples.shape[1]).numpy() for mask in masks])


def factor_masks(
    magnitudes: Magnitudes,
    count: int,
    components: int,
    scale: Callable[[Magnitudes, Magnitudes], Magnitudes],
    seed: int,
    beta_loss: str = "frobenius",
) -> Magnitudes:
    """Ratio masks ``[count, F, T]`` of magnitudes ``[F, T]`` by non-negative factorisation, so many components each.

    ``scale`` gives every component of the spectra ``[F, R]`` and the activations ``[R, T]`` a value ``[R]``, by which
    k-means divides them, from the lowest up.
    """
    spectra, activations = librosa.decompose.decompose(
        magnitudes,
        n_components=components * count,
        init="random",
        solver="mu",
        beta_loss=beta_loss,
        max_iter=_ITERATIONS,
        tol=0.0,
        random_state=np.random.RandomState(seed),
    )
    values = scale(spectra, activations)
    groups = kmeans2(values, np.quantile(values, (np.arange(count) + 0.5) / count), minit="matrix")[1]
    powers = np.stack([(spectra[:, groups == part] @ activations[groups == part]) ** 2 for part in range(count)])
    return np.asarray((powers + _SILENCE) / (powers + _SILENCE).sum(axis=0))
