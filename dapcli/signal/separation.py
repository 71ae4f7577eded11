"""The classical separation of a mixture into sources of known types.

A sustained sound is a line along time in a spectrogram, a struck one a line along frequency, and a median filter along
a line keeps what is on it (FitzGerald, "Harmonic/percussive separation using median filtering", DAFx 2010; the general
form is that of Liutkus et al., "Kernel additive models for source separation", IEEE TSP 2014).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import librosa
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.ndimage import median_filter

from dapcli.audio import Samples
from dapcli.signal.source_types import SOURCE_TYPES, SourceType
from dapcli.signal.stft import STFT

Magnitudes = NDArray[np.float64]

# Frames of the filters' STFT in one window.
_OVERLAP = 8
# Keeps masks of silence finite.
_SILENCE = 1e-30
# Factorisation of a part that holds several sources of one type: its window in s, and components of each.
_PARTS_WINDOW, _PARTS_COMPONENTS = 0.064, 6
_ITERATIONS = 100


def separate_types(samples: Samples, rate: int, types: Sequence[str], seed: int) -> Samples:
    """Sources ``[K, C, N]`` of these ``types``, which sum to the mixture: samples ``[C, N]`` at ``rate`` Hz.

    The type that goes on for longest is taken out first. Where sources have the same type, its part of the mixture is
    divided by how alike the spectra of its components are; random numbers for that are drawn from ``seed``.
    """
    lasting = sorted(set(types), key=lambda name: -SOURCE_TYPES[name].sustained)
    parts: dict[str, Samples] = {}
    rest = samples
    for index, name in enumerate(lasting[:-1]):
        width = min(SOURCE_TYPES[other].width for other in lasting[index + 1 :])
        parts[name] = _lasting_part(rest, rate, SOURCE_TYPES[name], width)
        rest = rest - parts[name]
    parts[lasting[-1]] = rest
    divided = {name: iter(_divide(part, rate, types.count(name), seed)) for name, part in parts.items()}
    return np.stack([next(divided[name]) for name in types])


def _lasting_part(samples: Samples, rate: int, source_type: SourceType, width: float) -> Samples:
    """The part of samples ``[C, N]`` that goes on for as long as this type does and is not smooth over ``width`` Hz."""
    stft = STFT.for_rate(rate, source_type.window, source_type.window / _OVERLAP)
    spectrogram = stft.forward(torch.from_numpy(samples))
    magnitudes = spectrogram.square().sum(dim=1).sqrt().numpy()
    # Frames that reach beyond the ends see silence there, and so the beginning of a sound in every tone that is cut:
    # they take the mask of the first and the last whole frame.
    cut = min(_OVERLAP // 2, (magnitudes.shape[2] - 1) // 2)
    whole = magnitudes[:, :, cut : magnitudes.shape[2] - cut]
    lasting = _lasting(whole, round(source_type.sustained * rate / stft.hop)) ** 2
    wide = median_filter(whole, (1, 2 * round(width * stft.n_fft / rate / 2) + 1, 1)) ** 2
    mask = (lasting + _SILENCE / 2) / (lasting + wide + _SILENCE)
    mask = np.pad(mask, ((0, 0), (0, 0), (cut, cut)), mode="edge")
    return stft.inverse(torch.from_numpy(mask)[:, None] * spectrogram, samples.shape[1]).numpy()


def _lasting(magnitudes: Magnitudes, frames: int) -> Magnitudes:
    """The level ``[C, F, T]`` that lasts for so many frames.

    A median filter centred on the frame, as in the papers, takes the onset of a note for something else, and the decay
    of a drum for a note. The median of the frames that follow, or of those before where it is higher, does not, but is
    uncertain where a note ends. The mean of the two is better than either. Time ends with the last frame; before the
    first there was silence.
    """
    reach = max(frames, 2) // 2
    size = 2 * reach + 1
    following = median_filter(magnitudes, (1, 1, size), origin=(0, 0, -reach), mode="nearest")
    preceding = median_filter(magnitudes, (1, 1, size), origin=(0, 0, reach), mode="constant")
    around = median_filter(magnitudes, (1, 1, 2 * size - 1), mode="reflect")
    return np.asarray((np.maximum(following, preceding) + around) / 2)


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
