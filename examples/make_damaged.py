"""Make recordings to try dap on: python examples/make_damaged.py OUTDIR writes four damaged ones and what they were.

tape.wav is the bundled speech (speech.wav) in hiss and hum, dropout.wav a melody (melody.wav) that is missing in three
places, clipped.wav the same recorded too loud, and mixture.wav the melody with drums (drums.wav). 16 kHz, mono, 4 s.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

Samples = NDArray[np.float64]

RATE = 16_000
LENGTH = 4 * RATE
# The beginning of "Fuer Elise" (Beethoven, 1810): when, in eighths of a second, and which key of a piano (A4 is 69).
NOTES: tuple[tuple[int, int], ...] = (
    (0, 76),
    (1, 75),
    (2, 76),
    (3, 75),
    (4, 76),
    (5, 71),
    (6, 74),
    (7, 72),
    (8, 69),
    (8, 45),
    (9, 52),
    (10, 57),
)
NOTES += ((11, 60), (12, 64), (13, 69), (14, 71), (14, 40), (15, 52), (16, 56), (17, 64), (18, 68), (19, 71), (20, 72))
NOTES += ((20, 45), (21, 52), (22, 57), (23, 64), (24, 76), (25, 75), (26, 76))
DROPOUTS_S = ((0.62, 0.66), (1.72, 1.78), (2.9, 2.95))


def melody() -> Samples:
    """Struck strings, as sums of decaying partials ``[N]``."""
    sound = np.zeros(LENGTH)
    for beat, key in NOTES:
        start = round((0.1 + beat / 8 * 1.05) * RATE)
        seconds = np.arange(LENGTH - start) / RATE
        pitch = 440 * 2 ** ((key - 69) / 12)
        for partial in range(1, 12):
            hertz = partial * pitch * np.sqrt(1 + 4e-4 * partial**2)
            if hertz < 0.45 * RATE:
                decay = np.exp(-seconds * (1.2 + 0.5 * partial)) * (1 - np.exp(-seconds / 0.003))
                sound[start:] += decay * np.sin(2 * np.pi * hertz * seconds + partial) / partial**1.2
    return np.asarray(0.6 * sound / np.abs(sound).max())


def drums() -> Samples:
    """A bass drum and a snare in turn ``[N]``."""
    sound, generator = np.zeros(LENGTH), np.random.default_rng(1)
    for beat in range(8):
        start = round((0.1 + beat * 0.48) * RATE)
        seconds = np.arange(LENGTH - start) / RATE
        if beat % 2:
            sound[start:] += 0.35 * generator.standard_normal(len(seconds)) * np.exp(-35 * seconds)
        else:
            turns = 55 * seconds + 2.5 * (1 - np.exp(-40 * seconds))
            sound[start:] += 0.8 * np.sin(2 * np.pi * turns) * np.exp(-14 * seconds)
    return np.asarray(0.35 * sound / np.abs(sound).max())


def tape(speech: Samples) -> Samples:
    """Speech ``[N]`` in hiss that rises with frequency, and in hum."""
    seconds, generator = np.arange(len(speech)) / RATE, np.random.default_rng(2)
    hiss = np.diff(generator.standard_normal(len(speech) + 1)) + 0.5 * generator.standard_normal(len(speech))
    hum = sum(level * np.sin(2 * np.pi * 50 * line * seconds) for line, level in enumerate((0.5, 0.3, 0.4, 0.2), 1))
    return np.asarray(speech + 0.018 * hiss + 0.02 * hum)


def main(folder: Path) -> None:
    """Write all recordings into a folder, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    speech, _ = soundfile.read(Path(__file__).parent / "speech_clean.flac")
    music, beat = melody(), drums()
    dropout = music.copy()
    for start, stop in DROPOUTS_S:
        dropout[round(start * RATE) : round(stop * RATE)] = 0.0
    files = {"speech": speech, "tape": tape(speech), "melody": music, "dropout": dropout}
    files |= {"clipped": music.clip(-0.15, 0.15), "drums": beat, "mixture": music + beat}
    for name, samples in files.items():
        soundfile.write(folder / f"{name}.wav", samples, RATE, subtype="PCM_16")
    print(f"{folder}: {', '.join(f'{name}.wav' for name in files)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
