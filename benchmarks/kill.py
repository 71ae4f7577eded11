"""Kill runs at random moments, and let each go on: python benchmarks/kill.py --runs 100 --seed 0.

A run of several segments is ended by SIGKILL, SIGTERM or SIGINT, each as often as the others, at a moment that is
uniform over the time of a whole run, and repeated with --resume. It must then have the bits of a run that nothing
disturbed, and leave OUT and its record alone in its folder.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile

RATE = 8_000
OPTIONS = (
    *(
        "--preset",
        "fast",
        "--segment",
        "1.5",
        "--iterations",
        "12",
        "--finetune-iterations",
        "10",
        "--base-channels",
        "4",
    ),
    *("--device", "cpu", "--seed", "0", "--quiet"),
)
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    """A run in a folder. Ctrl-C is not ignored there, as it is in the background of a shell."""
    return subprocess.Popen(
        [sys.executable, "-m", "dapcli", "denoise", str(folder.parent / "in.wav"), "out.wav", *OPTIONS, *options],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def faults_of(code: int, err: str, sent: signal.Signals, done: bool) -> list[str]:
    """What is wrong with how a run ended that was sent a signal."""
    if sent == signal.SIGKILL or (done and code == 0):
        return []
    if code == -sent and not err:  # before Python had started, or dap could say more
        return []
    faults = [] if code == 128 + sent else [f"exit code {code} after {sent.name}"]
    if "Traceback" in err or "ignored in" in err or err.count("\n") != 1:
        faults.append(f"not one line after {sent.name}: {err[-300:]!r}")
    elif "--resume" not in err and "nothing was written" not in err:
        faults.append(f"no way to go on after {sent.name}: {err!r}")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        rng = np.random.default_rng(0)
        tone = 0.2 * np.sin(2 * np.pi * 440 * np.arange(5 * RATE) / RATE)
        soundfile.write(root / "in.wav", tone + 0.05 * rng.standard_normal(tone.size), RATE)
        whole = root / "whole"
        whole.mkdir()
        started = time.monotonic()
        start(whole).communicate()
        length = time.monotonic() - started
        print(f"a whole run takes {length:.1f} s", flush=True)
        wanted, expected = (whole / "out.wav").read_bytes(), names(whole)

        moments: Counter[str] = Counter()
        faults: list[str] = []
        for number in range(arguments.runs):
            sent, moment = SIGNALS[number % len(SIGNALS)], draw.uniform(0, length)
            folder = root / str(number)
            folder.mkdir()
            run = start(folder)
            try:
                _, err = run.communicate(timeout=moment)
            except subprocess.TimeoutExpired:
                run.send_signal(sent)
                _, err = run.communicate()
            left = names(folder)
            kept = len(list(folder.glob("*.partial/segment-*")))
            done = "out.wav.json" in left
            moments["after the end" if done else f"with {kept} segments kept" if kept else "before a segment"] += 1
            wrong = faults_of(run.returncode, err, sent, done)
            if not done:
                if sent != signal.SIGKILL and not set(left) <= {"out.wav.partial"}:
                    wrong.append(f"{left} left after {sent.name}")
                again = start(folder, "--resume")
                _, err = again.communicate()
                if again.returncode:
                    wrong.append(f"--resume after {sent.name}: {err!r}")
            if names(folder) != expected:
                wrong.append(f"{names(folder)} left at the end after {sent.name}")
            elif (folder / "out.wav").read_bytes() != wanted:
                wrong.append(f"other bits after {sent.name}")
            for fault in wrong:
                print(f"run {number}, {moment:.2f} s: {fault}", flush=True)
            faults += wrong
            if number % 10 == 9:
                print(f"{number + 1} runs, {len(faults)} faults, {time.monotonic() - started:.0f} s", flush=True)
        print(f"{arguments.runs} runs: {', '.join(f'{count} {when}' for when, count in sorted(moments.items()))}")
        print(f"{len(faults)} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
