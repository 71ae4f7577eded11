"""Kinds of sources, and the classical separation of a mixture into them.

A sustained sound is a line along time in a spectrogram, a struck one a line along frequency, and a median filter along
a line keeps what is on it (FitzGerald, "Harmonic/percussive separation using median filtering", DAFx 2010; the general
form is that of Liutkus et al., "Kernel additive models for source separation", IEEE TSP 2014). To add a kind, give it a
line in :data:`KINDS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import librosa
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.ndimage import median_filter

from dapcli.audio import Samples
from dapcli.errors import SettingsError
from dapcli.spectral import STFT

Magnitudes = NDArray[np.float64]

# Frames of the filters' STFT in one window.
_OVERLAP = 8
# Keeps shares of silence finite.
_SILENCE = 1e-20
# Factorisation of a part that holds several sources of one kind: its window in s, components of each, iterations.
_PARTS_WINDOW, _PARTS_COMPONENTS, _PARTS_ITERATIONS = 0.064, 6, 100


@dataclass(frozen=True)
class Kind:
    """What is known of a kind of source: for how long its sounds go on, and how wide they are in frequency.

    ``window`` is the length of the STFT's window, s, in which ``sustained``, s, tells it from kinds that go on for less
    time. Those are smooth over ``width``, Hz, where this one has lines.
    """

    description: str
    window: float
    sustained: float
    width: float


KINDS: dict[str, Kind] = {
    "harmonic": Kind("tones that go on: piano, strings, organ, hum", 0.256, 1.0, 30.0),
    "voice": Kind("tones that glide: speech and singing", 0.032, 0.1, 60.0),
    "percussive": Kind("struck and gone: drums, clicks", 0.016, 0.0, 120.0),
}
#: What a source is where its kind is not known, or not made use of.
ANY_KIND = "any"
#: The kinds of K sources where they are not given.
DEFAULT_KINDS = {
    2: ("harmonic", "percussive"),
    3: ("harmonic", "voice", "percussive"),
    4: ("harmonic", "harmonic", "voice", "percussive"),
}


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise ``SettingsError`` unless these are the kinds of two to four sources."""
    for kind in kinds:
        if kind not in KINDS:
            raise SettingsError(f"unknown kind {kind!r}; choose from {', '.join(KINDS)}")
    if len(kinds) not in DEFAULT_KINDS:
        raise SettingsError(f"a mixture is separated into 2 to 4 sources, and {len(kinds)} kinds were given")


def separate_kinds(samples: Samples, rate: int, kinds: Sequence[str], seed: int) -> Samples:
    """Sources ``[K, C, N]``, one of each kind in ``kinds``, that sum to a mixture ``[C, N]`` at ``rate`` Hz.

    What goes on for longest is taken out first. Sources of the same kind share out what is left for them by how alike
    the spectra of its components are, for which random numbers are drawn from ``seed``.
    """
    lasting = sorted(set(kinds), key=lambda kind: -KINDS[kind].sustained)
    parts: dict[str, Samples] = {}
    rest = samples
    for index, kind in enumerate(lasting[:-1]):
        width = min(KINDS[other].width for other in lasting[index + 1 :])
        parts[kind] = _lasting_part(rest, rate, KINDS[kind], width)
        rest = rest - parts[kind]
    parts[lasting[-1]] = rest
    divided = {kind: iter(_divide(part, rate, kinds.count(kind), seed)) for kind, part in parts.items()}
    return np.stack([next(divided[kind]) for kind in kinds])


def _lasting_part(samples: Samples, rate: int, kind: Kind, width: float) -> Samples:
    """What goes on, of samples ``[C, N]``, for as long as this kind does, and is not smooth over ``width`` Hz."""
    stft = STFT.for_rate(rate, kind.window, kind.window / _OVERLAP)
    # With silence beyond the ends a drum that begins with the recording would lose half of its level to tones.
    mirrored = _OVERLAP // 2 * stft.hop
    padded = np.pad(samples, ((0, 0), (mirrored, mirrored)), mode="symmetric")
    spectrogram = stft.forward(torch.from_numpy(padded))
    within = (slice(None), slice(None), slice(_OVERLAP // 2, spectrogram.shape[-1] - _OVERLAP // 2))
    magnitudes = spectrogram.square().sum(dim=1).sqrt().numpy()[within]
    lasting = _lasting(magnitudes, round(kind.sustained * rate / stft.hop)) ** 2
    wide = median_filter(magnitudes, (1, 2 * round(width * stft.n_fft / rate / 2) + 1, 1)) ** 2
    share = np.pad(
        (lasting + _SILENCE / 2) / (lasting + wide + _SILENCE), ((0, 0), (0, 0), (_OVERLAP // 2,) * 2), mode="edge"
    )
    part = stft.inverse(torch.from_numpy(share)[:, None] * spectrogram, padded.shape[1]).numpy()
    return np.asarray(part[:, mirrored : mirrored + samples.shape[1]])


def _lasting(magnitudes: Magnitudes, frames: int) -> Magnitudes:
    """The level ``[C, F, T]`` that lasts for so many frames: the median of those that follow, or of those before.

    A filter centred on the frame, as in the papers, takes the onset of a note for something else, and the decay of a
    drum for a note. Time ends with the last frame; before the first there was silence.
    """
    size = 2 * (max(frames, 2) // 2) + 1
    reach = size // 2
    following = median_filter(magnitudes, (1, 1, size), origin=(0, 0, -reach), mode="nearest")
    preceding = median_filter(magnitudes, (1, 1, size), origin=(0, 0, reach), mode="constant")
    return np.asarray(np.maximum(following, preceding))


def _divide(samples: Samples, rate: int, count: int, seed: int) -> Samples:
    """Parts ``[count, C, N]`` that sum to samples ``[C, N]``, by components with similar spectra."""
    if count == 1 or not samples.any():
        return np.stack([samples / count] * count)
    stft = STFT.for_rate(rate, _PARTS_WINDOW, _PARTS_WINDOW / 4)
    spectrogram = stft.forward(torch.from_numpy(samples))
    magnitudes = spectrogram.square().sum(dim=1).sqrt().numpy()
    spectra, activations = librosa.decompose.decompose(
        magnitudes.mean(axis=0) / magnitudes.max(),
        n_components=_PARTS_COMPONENTS * count,
        init="random",
        solver="mu",
        beta_loss="kullback-leibler",
        max_iter=_PARTS_ITERATIONS,
        tol=0.0,
        random_state=np.random.RandomState(seed),
    )
    centre = np.log2(np.arange(1, len(spectra) + 1) @ spectra / (spectra.sum(axis=0) + _SILENCE) + 1)
    edges = np.quantile(centre, (np.arange(count) + 0.5) / count)
    groups = kmeans2(centre, edges, minit="matrix")[1]
    powers = np.stack([(spectra[:, groups == part] @ activations[groups == part]) ** 2 for part in range(count)])
    shares = torch.from_numpy((powers + _SILENCE) / (powers + _SILENCE).sum(axis=0))
    return np.stack([stft.inverse(share * spectrogram, samples.shape[1]).numpy() for share in shares])
