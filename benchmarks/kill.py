"""Kill runs at random moments, and let each go on: python benchmarks/kill.py --runs 100 --seed 0.

A run of several segments is ended by SIGKILL, SIGTERM or SIGINT, each as often as the others, at a moment that is
uniform over the time of a whole run, and repeated with --resume. It must then have the bits of a run that nothing
disturbed, and leave OUT and its record alone in its folder. Every fifth run is a process of its own from the start of
Python on; the others are forked where all is imported, so that their moments lie in the fit.
"""

from __future__ import annotations

import argparse
import importlib
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
import torch

from dapcli.cli import main as dap

RATE = 8_000
OPTIONS = (
    *("--preset", "fast", "--prior", "conv", "--segment", "1.5", "--hop", "0.03", "--iterations", "20"),
    *("--finetune-iterations", "20", "--base-channels", "4", "--device", "cpu", "--seed", "0", "--quiet"),
)
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# One in so many runs starts with Python.
FRESH = 5


class Run:
    """A run in a folder, of which a file beside that takes what it says."""

    def __init__(self, folder: Path, *options: str, fresh: bool) -> None:
        self.code: int | None = None
        self._said = folder.with_suffix(".err")
        arguments = ["denoise", "../in.wav", "out.wav", *OPTIONS, *options]
        if fresh:
            with self._said.open("w") as said:
                command = [sys.executable, "-m", "dapcli", *arguments]
                # Ctrl-C is not ignored there, as it is in the background of a shell.
                restore = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
                self._pid = subprocess.Popen(command, cwd=folder, stderr=said, preexec_fn=restore).pid
            return
        self._pid = os.fork()
        if self._pid:
            return
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.dup2(os.open(self._said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            os.chdir(folder)
            sys.argv = ["dap", *arguments]
            dap()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            os._exit(code)

    def wait(self, seconds: float = 1e9) -> bool:
        """Whether the run has ended, at the latest after so many seconds."""
        end = time.monotonic() + seconds
        while self.code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                return False
            else:
                time.sleep(0.002)
        return True

    def send(self, sent: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self._pid, sent)

    @property
    def said(self) -> str:
        """What it has printed on stderr."""
        return self._said.read_text()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def faults_of(run: Run, sent: signal.Signals, *, done: bool) -> list[str]:
    """What is wrong with how a run ended that was sent a signal."""
    if sent == signal.SIGKILL or (done and run.code == 0):
        return []
    if run.code == -sent and not run.said:  # before Python had started, or dap could say more
        return []
    faults = [] if run.code == 128 + sent else [f"exit code {run.code}"]
    if "Traceback" in run.said or "ignored in" in run.said or run.said.count("\n") != 1:
        faults.append(f"not one line: {run.said[-300:]!r}")
    elif "--resume" not in run.said and "nothing was written" not in run.said:
        faults.append(f"no way to go on: {run.said!r}")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    torch.set_num_threads(1)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    for name in ("tasks.denoise", "report.record", "report.console"):
        importlib.import_module(f"dapcli.{name}")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        rng = np.random.default_rng(0)
        tone = 0.2 * np.sin(2 * np.pi * 440 * np.arange(5 * RATE) / RATE)
        soundfile.write(root / "in.wav", tone + 0.05 * rng.standard_normal(tone.size), RATE)
        lengths = {}
        for fresh in (True, False):
            whole = root / f"whole-{fresh}"
            whole.mkdir()
            started = time.monotonic()
            run = Run(whole, fresh=fresh)
            run.wait()
            lengths[fresh] = time.monotonic() - started
            print(
                f"a whole run {'from the start of Python' if fresh else 'forked'} takes {lengths[fresh]:.1f} s",
                flush=True,
            )
        wanted, expected = (whole / "out.wav").read_bytes(), names(whole)
        assert wanted == (root / "whole-True" / "out.wav").read_bytes()

        moments: Counter[str] = Counter()
        faults: list[str] = []
        for number in range(arguments.runs):
            fresh = number % FRESH == 0
            sent, moment = SIGNALS[number % len(SIGNALS)], draw.uniform(0, lengths[fresh])
            folder = root / str(number)
            folder.mkdir()
            run = Run(folder, fresh=fresh)
            if not run.wait(moment):
                run.send(sent)
                run.wait()
            left = names(folder)
            kept = len(list(folder.glob("*.partial/segment-*")))
            done = "out.wav.json" in left
            moments["after the end" if done else "with segments kept" if kept else "before a segment"] += 1
            wrong = faults_of(run, sent, done=done)
            if not done:
                if sent != signal.SIGKILL and not set(left) <= {"out.wav.partial"}:
                    wrong.append(f"{left} left")
                again = Run(folder, "--resume", fresh=False)
                again.wait()
                if again.code:
                    wrong.append(f"--resume: {again.said!r}")
            if names(folder) != expected:
                wrong.append(f"{names(folder)} left at the end")
            elif (folder / "out.wav").read_bytes() != wanted:
                wrong.append("other bits")
            faults += [f"run {number}, {sent.name} at {moment:.2f} s: {fault}" for fault in wrong]
            if wrong:
                print(*faults[-len(wrong) :], sep="\n", flush=True)
            if number % 10 == 9:
                print(f"{number + 1} runs, {len(faults)} faults, {time.monotonic() - started:.0f} s", flush=True)
        print(f"{arguments.runs} runs: {', '.join(f'{count} {when}' for when, count in sorted(moments.items()))}")
        print(f"{len(faults)} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
