"""Segments fitted at the same time: throughput by their number, on any device.

    python benchmarks/parallel.py [--device cpu] [--preset fast] [--seconds 30] [--parallel 1 2 4]

Restores noise of 16 kHz mono in memory; the first row is what the ratios refer to. A short restoration goes before,
in which a device allocates memory and chooses its kernels.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dapcli import TASKS, Audio, denoise
from dapcli.settings import PAPER_RATE

PRESETS = TASKS["denoise"].presets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--preset", default="fast", choices=PRESETS)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--parallel", type=int, nargs="+", default=[1, 2, 4])
    arguments = parser.parse_args()
    samples = 0.1 * np.random.default_rng(0).standard_normal((1, round(arguments.seconds * PAPER_RATE)))
    settings, device = PRESETS[arguments.preset], arguments.device
    denoise(Audio(samples[:, :PAPER_RATE], PAPER_RATE), settings, device=device)
    print(f"{device}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| segments at a time | wall s | times real time | times the first row |\n|---|---|---|---|")
    first = None
    for parallel in arguments.parallel:
        seconds = denoise(Audio(samples, PAPER_RATE), settings, device=device, parallel=parallel).seconds
        first = first or seconds
        print(f"| {parallel} | {seconds:.1f} | {arguments.seconds / seconds:.2f} | {first / seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
