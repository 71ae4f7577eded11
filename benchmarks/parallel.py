"""Segments fitted at the same time: throughput by their number, on any device.

    python benchmarks/parallel.py [--device cpu] [--preset fast] [--seconds 30] [--parallel 1 2 4] [--most-gb 2]

Restores noise of 16 kHz mono in memory; the first row is what the ratios refer to. A short restoration goes before,
in which a device allocates memory and chooses its kernels. *Fits* is the time without pretraining. On CUDA segments
stand side by side in one network; peak memory is that of tensors, and --most-gb limits it, as a smaller card would.
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
    parser.add_argument("--most-gb", type=float, help="memory of a CUDA device that may be used")
    arguments = parser.parse_args()
    samples = 0.1 * np.random.default_rng(0).standard_normal((1, round(arguments.seconds * PAPER_RATE)))
    settings, device = PRESETS[arguments.preset], arguments.device
    cuda = device.startswith("cuda")
    if cuda and arguments.most_gb:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(1e9 * arguments.most_gb / total, torch.device(device).index or 0)
    denoise(Audio(samples[:, :PAPER_RATE], PAPER_RATE), settings, device=device)
    print(f"{device}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    headings = ["segments at a time", "wall s", "times real time", "fits s", "fits: times the first row"]
    headings += ["peak GB"] if cuda else []
    print(f"| {' | '.join(headings)} |\n|{'---|' * len(headings)}")
    first = None
    for parallel in arguments.parallel:
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        result = denoise(Audio(samples, PAPER_RATE), settings, device=device, parallel=parallel)
        fits = result.seconds - result.pretraining_seconds
        first = first or fits
        speed = f"{arguments.seconds / result.seconds:.2f}"
        row = [f"{result.parallel}", f"{result.seconds:.2f}", speed, f"{fits:.2f}", f"{first / fits:.2f}"]
        row += [f"{torch.cuda.max_memory_allocated() / 1e9:.2f}"] if cuda else []
        print(f"| {' | '.join(row)} |", *(f" {note}" for note in result.notes), flush=True)


if __name__ == "__main__":
    main()
