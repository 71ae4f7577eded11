"""How time and memory grow with duration, rate, channels, prior and sources, and what each task takes.

    python benchmarks/scaling.py [--preset fast] [--threads N]
        [--only duration rate channels prior memory sources tasks]

Every row is a whole process, `dap denoise` or another task on a tone in white noise. The rows of `memory` run one
iteration a segment, which takes as much memory as all of them; those of `sources` two iterations of `dap separate
--estimator double-dip`, which fits two networks for each source but the last.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dapcli.priors import PRIORS

ROOT = Path(__file__).resolve().parent.parent


class Case(NamedTuple):
    """A recording of so many seconds, rate (Hz) and channels, and the command that restores it."""

    seconds: float
    rate: int = 16_000
    channels: int = 1
    options: tuple[str, ...] = ()
    task: str = "denoise"


class Cost(NamedTuple):
    """Wall and processor time in s and peak memory in GB of one process."""

    wall: float
    processor: float
    memory: float


_BRIEF = ("--iterations", "1", "--finetune-iterations", "1")
_GENERATED = ("--estimator", "double-dip", "--preset", "double-dip", "--iterations", "2")
CASES = {
    "duration": [Case(seconds) for seconds in (1.0, 4.0, 10.0, 30.0, 60.0, 120.0, 600.0)],
    "rate": [Case(4.0, rate) for rate in (8_000, 16_000, 24_000, 44_100, 48_000)],
    "channels": [Case(4.0, channels=channels) for channels in (1, 2, 4)],
    "prior": [Case(4.0, options=("--prior", prior)) for prior in PRIORS],
    "memory": [Case(seconds, 44_100, 2, _BRIEF) for seconds in (10.0, 600.0)],
    "tasks": [
        Case(4.0, task="separate"),
        Case(4.0, task="declip", options=("--level", "0.3")),
        Case(4.0, task="dequantize"),
        Case(4.0, task="inpaint", options=("--gap", "1:1.1")),
        Case(1.0, 44_100, 2, ("--gap", "0.5:0.505"), "inpaint"),
        Case(4.0, 44_100, 2, ("--gap", "1:1.25"), "inpaint"),
    ],
    "sources": [Case(4.0, options=(*_GENERATED, "--sources", count), task="separate") for count in ("2", "3", "4")],
}


def tone_in_noise(case: Case) -> Iterator[np.ndarray]:
    """The recording ``[C, n]``, a second at a time."""
    rng = np.random.default_rng(0)
    for second in range(int(case.seconds)):
        t = second + np.arange(case.rate) / case.rate
        tone = 0.2 * np.sin(2 * np.pi * 440 * t) * (1 + np.sin(2 * np.pi * 3 * t))
        block = tone + 0.05 * rng.standard_normal((case.channels, case.rate))
        yield np.round(8 * block) / 8 if case.task == "dequantize" else block


def run(case: Case, preset: str, threads: int | None) -> Cost:
    """The cost of restoring a recording, the start of the process included."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.wav"), Path(folder, "out" if case.task == "separate" else "out.wav")
        with soundfile.SoundFile(source, "w", case.rate, case.channels, subtype="PCM_16", format="WAV") as file:
            for block in tone_in_noise(case):
                file.write(block.T)
        command = [sys.executable, "-c", "from dapcli.cli import main; main()", case.task, str(source), str(target)]
        command += ["--preset", preset, "--device", "cpu", "--quiet", *case.options]
        environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
        started = time.perf_counter()
        # From the root of the checkout, so that this dap is measured and not one that is installed.
        process = subprocess.Popen(command, env=environment, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        if status:
            sys.exit(f"dap failed on {case}")
        return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--threads", type=int, help="OMP_NUM_THREADS of every process")
    arguments = parser.parse_args()
    print("| varied | s | Hz | channels | task and options | wall s | processor s | processor s per s | peak GB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in arguments.only:
        for case in CASES[name]:
            cost = run(case, arguments.preset, arguments.threads)
            print(
                f"| {name} | {case.seconds:g} | {case.rate} | {case.channels} | {' '.join((case.task, *case.options))} "
                f"| {cost.wall:.1f} | {cost.processor:.1f} | {cost.processor / case.seconds:.2f} "
                f"| {cost.memory:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
