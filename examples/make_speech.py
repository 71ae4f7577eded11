"""Make the bundled example: synthetic speech, and the same with white noise at 5 dB SNR.

    espeak-ng -v en-gb -s 150 -w speech.wav "The old recording was full of noise, and now we can hear every word."
    python examples/make_speech.py speech.wav examples/

Writes speech_clean.flac and speech_noisy.flac, 16 kHz mono, 16 bits.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import soundfile

from dapcli.audio import read_audio, resample

RATE = 16_000
SNR_DB = 5.0
LONGEST_S = 4.0


def main(source: Path, folder: Path) -> None:
    """Trim, resample and normalise the speech, add the noise, write both."""
    spoken = read_audio(source)
    clean = resample(spoken.samples, spoken.rate, RATE)[0]
    sounding = np.flatnonzero(np.abs(clean) > 1e-3)
    margin = RATE // 4
    clean = clean[max(0, sounding[0] - margin) : sounding[-1] + margin][: round(LONGEST_S * RATE)]
    clean *= 0.5 / np.abs(clean).max()
    noise = np.random.default_rng(2021).standard_normal(clean.size)
    noise *= np.linalg.norm(clean) / np.linalg.norm(noise) / 10 ** (SNR_DB / 20)
    for name, samples in (("speech_clean", clean), ("speech_noisy", clean + noise)):
        soundfile.write(folder / f"{name}.flac", samples, RATE, subtype="PCM_16")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
