"""Separate a mixture from Python: python examples/separate_api.py OUTDIR writes one, and the sources found in it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from dapcli import TASKS, Audio, separate
from dapcli.audio import encode
from dapcli.metrics import score_sources

RATE = 16_000
TYPES = ("harmonic", "percussive")

if __name__ == "__main__":
    # A chord, and two strokes a second.
    seconds = np.arange(2 * RATE) / RATE
    chord = sum(0.1 * np.sin(2 * np.pi * pitch * seconds) for pitch in (220.0, 277.2, 329.6))
    strokes = 0.5 * np.random.default_rng(0).standard_normal(len(seconds)) * np.exp(-60 * (seconds % 0.5))
    sources = np.stack([chord, strokes])[:, None]  # [K, C, N]
    mixture = Audio(sources.sum(axis=0), RATE)

    result = separate(mixture, TYPES, replace(TASKS["separate"].presets["quality"], iterations=4))

    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    (folder / "mixture.wav").write_bytes(encode(mixture))
    scores = score_sources(sources, result.estimates.read(0, mixture.length), RATE, fixed_order=True)
    result.save(*(folder / f"{name}.wav" for name in TYPES), overwrite=True)
    for name, (metrics, _) in zip(TYPES, scores.sources, strict=True):
        print(f"{name}: SDR {metrics['sdr_db']:.1f} dB")
