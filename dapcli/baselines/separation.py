"""Splits of a mixture into sources; all but the first share out the mixture's spectrogram by soft masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import librosa
import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from dapcli.baselines.baseline import Array, Observed
from dapcli.errors import SettingsError
from dapcli.signal.separation import separate_types

# Windows, s, with hops of a quarter, and components of a source: those that did best on mixtures of piano and drums, of
# 0.03 to 0.5 s, and of 3 to 16 components.
_HPSS_WINDOW_S, _NMF_WINDOW_S = 0.384, 0.064
_NMF_COMPONENTS, _NMF_ITERATIONS = 4, 100


def mixture(observed: Observed) -> Array:
    """The mixture itself for every source: what every separation has to beat."""
    return np.stack([observed.samples] * observed.sources)


def by_kinds(observed: Observed) -> Array:
    """What dap's own separation starts from: the sources by their kinds, without a network."""
    return separate_types(observed.samples, observed.rate, observed.kinds, observed.seed)


def hpss(observed: Observed) -> Array:
    """Harmonic and percussive part by median filters along time and frequency, in the best window, with Wiener masks.

    Fitzgerald, "Harmonic/percussive separation using median filtering" (DAFx 2010), as `librosa.decompose.hpss` has it.

    Raises:
        SettingsError: There are not two sources.
    """
    return _hpss(observed, _HPSS_WINDOW_S)


def librosa_hpss(observed: Observed) -> Array:
    """The same in librosa's own window of 2048 samples at any rate, as its users meet it; raises the same."""
    return _hpss(observed, 2048 / observed.rate)


def nmf(observed: Observed) -> Array:
    """Non-negative matrix factorisation, with components grouped by how sudden they are; Wiener masks.

    Lee & Seung, "Learning the parts of objects by non-negative matrix factorization" (Nature 1999). Components of
    tones last in time and are sharp in frequency, those of drums the reverse; so each is placed on one scale, and the
    scale is divided into sources by k-means. They come from the most lasting to the most sudden.
    """
    rng = np.random.RandomState(observed.seed)

    def masks(magnitudes: Array) -> Array:
        # One factorisation for all channels, so that a source is the same one in each.
        spectra, activations = librosa.decompose.decompose(
            magnitudes.mean(axis=0),
            n_components=_NMF_COMPONENTS * observed.sources,
            init="random",
            solver="mu",
            max_iter=_NMF_ITERATIONS,
            tol=0.0,
            random_state=rng,
        )
        suddenness = _roughness(activations) - _roughness(spectra.T)
        edges = np.quantile(suddenness, (np.arange(observed.sources) + 0.5) / observed.sources)
        groups = kmeans2(suddenness, np.sort(edges), minit="matrix")[1]
        powers = np.stack([(spectra[:, groups == k] @ activations[groups == k]) ** 2 for k in range(observed.sources)])
        powers += np.finfo(np.float64).tiny
        return np.asarray((powers / powers.sum(axis=0))[:, None])

    return _share_out(observed, _NMF_WINDOW_S, masks)


def _hpss(observed: Observed, window_s: float) -> Array:
    if observed.sources != 2:
        raise SettingsError(f"hpss separates 2 sources, and not {observed.sources}")
    return _share_out(observed, window_s, lambda magnitudes: np.stack(librosa.decompose.hpss(magnitudes, mask=True)))


def _roughness(rows: Array) -> Array:
    """How much rows ``[R, N]``, none below 0, change from value to value in relation to them: a logarithm ``[R]``."""
    tiny = np.finfo(np.float64).tiny
    return np.asarray(np.log((np.sum(np.abs(np.diff(rows)), axis=1) + tiny) / (np.sum(rows, axis=1) + tiny)))


def _share_out(observed: Observed, window_s: float, masks: Callable[[Array], Array]) -> Array:
    """Sources ``[K, C, N]`` by masks ``[K, C or 1, F, T]`` of the mixture's magnitudes ``[C, F, T]``."""
    samples = observed.samples
    count, (_, length) = observed.sources, samples.shape
    if not samples.any():
        return np.zeros((count, *samples.shape))
    hop = max(1, round(window_s * observed.rate / 4))
    transform: dict[str, Any] = {"n_fft": 4 * hop, "hop_length": hop}
    padded = np.pad(samples, ((0, 0), (0, max(0, 4 * hop - length))))
    spectrum: NDArray[np.complex128] = librosa.stft(padded, **transform)
    # The level of the mixture does not matter to shares, but it does to the tolerances of the methods.
    magnitudes = np.abs(spectrum) / np.abs(spectrum).max()
    shares = masks(magnitudes) * spectrum
    return np.asarray(librosa.istft(shares, length=padded.shape[1], **transform)[..., :length])
