"""Signals that the tests share, ``[C, N]`` at 8 kHz unless said, and how alike two are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dapcli.audio import Audio
from dapcli.signal.clipping import Clipping
from dapcli.signal.gaps import Gaps
from dapcli.signal.missing import Missing
from dapcli.signal.quantization import Quantization

Samples = NDArray[np.float64]

RATE = 8_000


def noise(*shape: int, std: float = 0.1, seed: int = 0) -> Samples:
    """White noise."""
    return std * np.random.default_rng(seed).standard_normal(shape)


def melody(seconds: float = 1.0) -> Samples:
    """Decaying notes with five partials, four a second."""
    t = np.arange(round(seconds * RATE)) / RATE
    start = np.floor(t * 4) / 4
    pitch = 220 * 2 ** ((np.floor(t * 4) % 5) / 5)
    partials = sum(np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, 6))
    return np.asarray(0.3 * partials * np.exp(-5 * (t - start)))[None]


def noisy_melody(seconds: float = 1.0, std: float = 0.1) -> tuple[Samples, Audio]:
    """A melody, and the same in white noise."""
    clean = melody(seconds)
    return clean, Audio(clean + noise(*clean.shape, std=std), RATE)


def harmonics(length: int, channels: int = 1, rate: int = 4_000) -> Samples:
    """Decaying harmonics, which differ between channels."""
    t = np.arange(length) / rate
    rows = [sum(0.4 / k * np.sin(2 * np.pi * f * k * t + k) for k in range(1, 5)) for f in (220, 330)[:channels]]
    return np.asarray(np.stack(rows) * np.exp(-t))


def degraded(kind: str, clean: Samples) -> tuple[Any, Samples]:
    """A degradation, ``gaps``, ``clipping`` or another, and samples that it has changed."""
    if kind == "gaps":
        degradation = Missing(Gaps((((500, 560),),) * len(clean)))
        return degradation, np.where(degradation.gaps.mask(0, clean.shape[1]), 0.0, clean)
    if kind == "clipping":
        clipping = Clipping((-0.25,) * len(clean), (0.3,) * len(clean))
        return clipping, clipping.clip(clean)
    quantization = Quantization(1 / 8, 1 / 16)
    return quantization, quantization.quantize(clean)


def tone(pitch: float, seconds: float = 1.0) -> Samples:
    """A steady sine."""
    return np.asarray(0.3 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * RATE)) / RATE))[None]


def clicks(seconds: float = 1.0) -> Samples:
    """Two a second, of 5 ms each, about as strong as the sine."""
    samples = np.zeros(round(seconds * RATE))
    samples[RATE // 10 :: RATE // 2] = 0.5
    decay = np.exp(-np.arange(RATE // 200) / 10) * np.cos(2 * np.pi * 0.3 * np.arange(RATE // 200))
    return np.asarray(np.convolve(samples, decay)[None, : samples.size])


def snr_db(reference: Samples, estimate: Samples) -> float:
    """SNR of an estimate, dB."""
    return float(10 * np.log10(np.square(reference).sum() / np.square(reference - estimate).sum()))
