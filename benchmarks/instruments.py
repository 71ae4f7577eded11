"""Write sustained instrument sounds to measure on: bowed string, flute, organ and trumpet, two of each.

    python benchmarks/instruments.py FOLDER

Harmonics with vibrato, tremolo and breath as such instruments have them, 2 s at 16 kHz, RMS 0.1, from fixed seeds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 16_000
SECONDS = 2.0
RMS = 0.1
Array = NDArray[np.float64]


def partials(phase: Array, amplitudes: Array, rng: np.random.Generator) -> Array:
    orders = np.arange(1, len(amplitudes) + 1)[:, None]
    start = rng.uniform(0, 2 * np.pi, (len(amplitudes), 1))
    return np.asarray((amplitudes[:, None] * np.sin(orders * phase + start)).sum(axis=0))


def play(kind: str, seed: int) -> Array:
    rng = np.random.default_rng([seed, *kind.encode()])
    t = np.arange(round(SECONDS * RATE)) / RATE
    pitch = float(rng.uniform(150, 500))
    count = int(0.45 * RATE / pitch)
    orders = np.arange(1, count + 1)

    def phase(frequency: float, vibrato: float, speed: float) -> Array:
        return np.asarray(2 * np.pi * np.cumsum(frequency * (1 + vibrato * np.sin(2 * np.pi * speed * t))) / RATE)

    if kind == "string":
        sound = partials(phase(pitch, 0.006, 5.5), rng.uniform(0.3, 1, count) / orders**1.2, rng)
        return np.asarray(sound * (1 + 0.1 * np.sin(2 * np.pi * 5.5 * t)))
    if kind == "flute":
        sound = partials(phase(2 * pitch, 0.003, 4.8), np.array([1, 0.4, 0.15, 0.05]), rng)
        return sound * (1 + 0.15 * np.sin(2 * np.pi * 4.8 * t)) + 0.02 * rng.standard_normal(t.size)
    if kind == "organ":
        chord = [partials(phase(pitch * ratio, 0, 1), 1 / np.arange(1.0, 7), rng) for ratio in (1, 1.26, 1.5)]
        return np.asarray(np.sum(chord, axis=0) * (1 + 0.02 * np.sin(2 * np.pi * 6 * t)))
    drift = 1 + 3e-6 * np.cumsum(rng.standard_normal(t.size))
    sound = partials(phase(pitch, 0.002, 5) * drift, np.exp(-(((orders - 4) / 4) ** 2)), rng)
    return np.asarray(sound * (1 + 0.2 * np.exp(-3 * t)))


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python benchmarks/instruments.py FOLDER")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("string", "flute", "organ", "trumpet"):
        for seed in (1, 2):
            sound = play(kind, seed)
            soundfile.write(folder / f"{kind}_{seed}.wav", RMS * sound / sound.std(), RATE, subtype="FLOAT")


if __name__ == "__main__":
    main()
