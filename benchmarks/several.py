"""Memory of fits with several networks: the papers' separation by the number of its sources.

    python benchmarks/several.py [--sources 2 4] [--seconds 1] [--width 16]

Every row is a whole process, two iterations on noise. Networks that ran side by side without dropping what they compute
would take memory in proportion to their number, which `--keep` shows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dapcli import Audio, separate
from dapcli.settings import PAPER_RATE, SEPARATION_PRESETS


def fit(arguments: argparse.Namespace, sources: int) -> None:
    """A fit of two iterations."""
    if arguments.keep:
        patch("dapcli.priors.several.checkpoint", lambda network, part, **_: network(part)).start()
    settings = replace(SEPARATION_PRESETS["paper"]["quality"], width=arguments.width, iterations=2)
    samples = np.random.default_rng(0).standard_normal((1, round(arguments.seconds * PAPER_RATE)))
    separate(Audio(0.1 * samples, PAPER_RATE), ("voice",) * sources, settings, device="cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--keep", action="store_true", help="keep what every network computes")
    parser.add_argument("--once", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        fit(arguments, arguments.once)
        return
    print("| sources | networks | peak GB |\n|---|---|---|")
    for sources in arguments.sources:
        process = subprocess.Popen([sys.executable, *sys.argv, "--once", str(sources)])
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit("the fit failed")
        print(f"| {sources} | {2 * sources - 1} | {usage.ru_maxrss / 1e6:.2f} |", flush=True)


if __name__ == "__main__":
    main()
