"""What pretraining once and finetuning on each segment costs and gains on long recordings.

    python benchmarks/long.py CLEAN... [--clips 4] [--seconds 3] [--preset quality] [--finetune 0 5 10 16 30]

Joins clips, adds white noise of standard deviation 0.1 and restores the whole, with every segment fitted anew (0) and
with so many iterations on each segment after a common start. (`dap evaluate` fits a clip in one segment.)
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dapcli import TASKS, Audio, denoise
from dapcli.evaluation.clips import collect, draw_clips
from dapcli.evaluation.protocols import Gaussian
from dapcli.metrics.waveform import snr_db


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clean", type=Path, nargs="+", help="clean recordings of one rate, or folders of them")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each clip")
    parser.add_argument("--preset", default="quality")
    parser.add_argument("--finetune", type=int, nargs="+", default=[0, 5, 10, 16, 30])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    files = collect(arguments.clean, outside=Path("never"))
    drawn = draw_clips([files], arguments.seconds, arguments.clips, arguments.seed).clips
    clips = [clip.read(arguments.seconds, clip.generator(arguments.seed))[0] for clip in drawn]
    joined = Audio(np.concatenate([clip.samples for clip in clips], axis=1), clips[0].rate)
    case = Gaussian().degrade([joined], np.random.default_rng(arguments.seed))
    print("| s | preset | finetune iterations | SNR (dB) | processor s |\n|---|---|---|---|---|")
    for iterations in arguments.finetune:
        preset = TASKS["denoise"].presets[arguments.preset]
        settings = replace(preset, finetune_iterations=iterations, seed=arguments.seed)
        started = time.process_time()
        restored = denoise(case.problem.recording, settings).audio
        seconds = time.process_time() - started
        snr = snr_db(case.truth[0], restored.samples, joined.rate)
        print(f"| {joined.length / joined.rate:.1f} | {arguments.preset} | {iterations} | {snr:.2f} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
