"""Whether the channels of a recording are better fitted together or one by one.

    python benchmarks/channels.py FOLDER_OR_WAV... [--preset quality]

Pans every two neighbouring recordings into two channels (each is 6 dB lower on the other's side), adds independent
white noise of standard deviation 0.1, and restores both ways.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.denoise import draw_cases, make_parser
from dapcli.audio import Audio
from dapcli.metrics.waveform import snr_db
from dapcli.settings import PRESETS
from dapcli.tasks._api_restore import denoise


def main() -> None:
    arguments = make_parser(__doc__ or "").parse_args()
    settings = replace(PRESETS[(arguments.preset or ["quality"])[0]], seed=arguments.seed)
    cases = list(draw_cases(arguments))
    rows = []
    for first, second in pairwise(cases):
        size = min(first.clean.size, second.clean.size)
        left, right = first.clean[:size], second.clean[:size]
        clean = np.stack([left + right / 2, left / 2 + right])
        noisy = clean + np.stack([first.noise[:size], second.noise[:size]])
        started = time.perf_counter()
        jointly = denoise(Audio(noisy, first.rate), settings).audio.samples
        between = time.perf_counter()
        apart = np.concatenate([denoise(Audio(row[None], first.rate), settings).audio.samples for row in noisy])
        seconds = (between - started, time.perf_counter() - between)
        rows.append([snr_db(clean, jointly, first.rate), snr_db(clean, apart, first.rate), *seconds])
        print(
            f"{first.name} and {second.name}: jointly {rows[-1][0]:.2f} dB, one by one {rows[-1][1]:.2f} dB", flush=True
        )
    jointly, apart, *times = np.mean(rows, axis=0)
    print("\n| channels | SNR (dB) | s |\n|---|---|---|")
    print(f"| jointly | {jointly:.2f} | {times[0]:.1f} |\n| one by one | {apart:.2f} | {times[1]:.1f} |")


if __name__ == "__main__":
    main()
