"""Separations of a mixture; all but the first multiply its spectrogram by soft masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import librosa
import numpy as np
from numpy.typing import NDArray

from dapcli.audio import Samples
from dapcli.errors import SettingsError
from dapcli.signal.separation import factor_masks, separate_types
from dapcli.tasks.problem import Problem

# Windows, s, with hops of a quarter, and components of a source: those that did best on mixtures of piano and drums, of
# 0.03 to 0.5 s, and of 3 to 16 components.
HPSS_WINDOW_S, _NMF_WINDOW_S = 0.384, 0.064
_NMF_COMPONENTS = 4


def mixture(problem: Problem[Any]) -> Samples:
    """The mixture itself for every source: what every separation has to beat."""
    return np.stack([problem.samples] * len(problem.types))


def median_filters(problem: Problem[Any]) -> Samples:
    """The separation that dap's own starts from: the sources by their types, without a network."""
    return separate_types(problem.samples, problem.rate, problem.types, problem.seed)


def hpss(window_s: float | None = None) -> Callable[[Problem[Any]], Samples]:
    """Harmonic and percussive part by median filters along time and frequency in such a window, s, with Wiener masks.

    Fitzgerald, "Harmonic/percussive separation using median filtering" (DAFx 2010), as `librosa.decompose.hpss` has it.
    Without a window it is librosa's own of 2048 samples at any rate, as its users meet it. The method raises
    ``SettingsError`` unless there are two sources.
    """

    def method(problem: Problem[Any]) -> Samples:
        if len(problem.types) != 2:
            raise SettingsError(f"hpss separates 2 sources, and not {len(problem.types)}")
        window = window_s or 2048 / problem.rate
        return _masked(problem, window, lambda magnitudes: np.stack(librosa.decompose.hpss(magnitudes, mask=True)))

    return method


def nmf(problem: Problem[Any]) -> Samples:
    """Non-negative matrix factorisation, with components grouped by how sudden they are; Wiener masks.

    Lee & Seung, "Learning the parts of objects by non-negative matrix factorization" (Nature 1999). Components of
    tones last in time and are sharp in frequency, those of drums the reverse; so each is placed on one scale, and the
    scale is divided into sources by k-means. They come from the most lasting to the most sudden.
    """

    def masks(magnitudes: Samples) -> Samples:
        # One factorisation for all channels, so that a source is the same one in each.
        joint = magnitudes.mean(axis=0)
        return factor_masks(joint, len(problem.types), _NMF_COMPONENTS, suddenness, problem.seed)[:, None]

    def suddenness(spectra: Samples, activations: Samples) -> Samples:
        return _roughness(activations) - _roughness(spectra.T)

    return _masked(problem, _NMF_WINDOW_S, masks)


def _roughness(rows: Samples) -> Samples:
    """How much rows ``[R, N]``, none below 0, change from value to value in relation to them: a logarithm ``[R]``."""
    tiny = np.finfo(np.float64).tiny
    return np.asarray(np.log((np.sum(np.abs(np.diff(rows)), axis=1) + tiny) / (np.sum(rows, axis=1) + tiny)))


def _masked(problem: Problem[Any], window_s: float, masks: Callable[[Samples], Samples]) -> Samples:
    """Sources ``[K, C, N]`` by masks ``[K, C or 1, F, T]`` of the mixture's magnitudes ``[C, F, T]``."""
    samples = problem.samples
    if not samples.any():
        return np.zeros((len(problem.types), *samples.shape))
    length = samples.shape[1]
    hop = max(1, round(window_s * problem.rate / 4))
    transform: dict[str, Any] = {"n_fft": 4 * hop, "hop_length": hop}
    padded = np.pad(samples, ((0, 0), (0, max(0, 4 * hop - length))))
    spectrum: NDArray[np.complex128] = librosa.stft(padded, **transform)
    # The level of the mixture does not matter to masks, but it does to the tolerances of the methods.
    magnitudes = np.abs(spectrum) / np.abs(spectrum).max()
    sources = librosa.istft(masks(magnitudes) * spectrum, length=padded.shape[1], **transform)
    return np.asarray(sources[..., :length])
