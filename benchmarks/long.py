"""What learning once and refining on each segment costs and gains on long recordings.

    python benchmarks/long.py FOLDER... [--clips 10] [--seconds 3] [--preset quality] [--refinements 0 5 10 15 30]

Joins the damaged clips of each folder to one recording and restores it, with every segment fitted anew (refinement 0)
and with so many iterations on each segment after a common start.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.denoise import draw_cases, make_parser
from dapcli.audio import Audio
from dapcli.metrics.waveform import snr_db
from dapcli.settings import PRESETS
from dapcli.tasks._api_restore import denoise


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--refinements", type=int, nargs="+", default=[0, 5, 10, 15, 30])
    arguments = parser.parse_args()
    folders = list(arguments.clean)
    print("| recording | s | preset | refinement | SNR (dB) | processor s |\n|---|---|---|---|---|---|")
    for folder in folders:
        arguments.clean = [folder]
        cases = list(draw_cases(arguments))
        rate = cases[0].rate
        clean = np.concatenate([case.clean for case in cases])[None]
        noisy = np.concatenate([case.noisy for case in cases])[None]
        for preset in arguments.preset or ["quality"]:
            for refinement in arguments.refinements:
                settings = replace(PRESETS[preset], refinement=refinement, seed=arguments.seed)
                started = time.process_time()
                restored = denoise(Audio(noisy, rate), settings).audio.samples
                seconds = time.process_time() - started
                print(
                    f"| {folder.name} | {clean.size / rate:.1f} | {preset} | {refinement} "
                    f"| {snr_db(clean, restored, rate):.2f} | {seconds:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
