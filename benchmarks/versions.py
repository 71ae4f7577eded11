"""Two versions of dap in turn on the same recordings: time and memory of whole processes, SNR and PESQ.

    python benchmarks/versions.py CHECKOUT CLEAN... [--seconds 4] [--clips 6] [--joined 1] [--noise DIR]
        [--preset quality] [--threads 1] [--before "--preset quality"] [--busy 1]

CHECKOUT is a checkout of the earlier version, as `git worktree add CHECKOUT 271121b` makes it; `.` compares two
presets of this version. Clips are drawn and corrupted as `dap evaluate denoise` does, with white noise, or with those
of a folder at 5 to 9 dB; `--joined` of them are one recording. `--busy` other programs keep a core busy each.
Differences are means with 95 % bootstrap intervals over recordings.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dapcli.audio import Audio, Samples, encode, read_audio
from dapcli.evaluation.clips import collect, draw_clips
from dapcli.evaluation.protocols import Environmental, Gaussian
from dapcli.evaluation.tables import interval
from dapcli.metrics.perceptual import pesq_wb
from dapcli.metrics.waveform import MetricUndefined, snr_db

ROOT = Path(__file__).resolve().parent.parent


class Outcome(NamedTuple):
    """Of one process: wall and processor time in s, peak memory in GB, and metrics of what it wrote."""

    wall: float
    processor: float
    memory: float
    snr_db: float
    pesq_wb: float


def restore(checkout: Path, options: list[str], threads: int, noisy: Audio, clean: Samples) -> Outcome:
    """Restore a recording with the version of a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.wav"), Path(folder, "out.wav")
        source.write_bytes(encode(noisy))
        command = [sys.executable, "-c", "from dapcli.cli import main; main()", "denoise", str(source), str(target)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        started = time.perf_counter()
        # From the root of the checkout, so that its dap runs and not one that is installed.
        process = subprocess.Popen([*command, "--device", "cpu", "--quiet", *options], env=environment, cwd=checkout)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        if status:
            sys.exit(f"dap of {checkout} failed")
        estimate = read_audio(target).samples
    try:
        quality = pesq_wb(clean, estimate, noisy.rate)
    except MetricUndefined:
        quality = float("nan")
    processor = usage.ru_utime + usage.ru_stime
    return Outcome(wall, processor, usage.ru_maxrss / 1e6, snr_db(clean, estimate, noisy.rate), quality)


def draw_recordings(arguments: argparse.Namespace) -> list[tuple[str, Audio, Samples]]:
    """Names, noisy recordings and the clean samples ``[C, N]`` of each."""
    files = collect(arguments.clean, outside=Path("never"))
    count = arguments.clips * arguments.joined
    drawn = draw_clips([files], arguments.seconds, count, arguments.seed).clips
    noises = tuple(collect([arguments.noise], outside=Path("never"))) if arguments.noise else ()
    protocol = Environmental(noise=noises) if noises else Gaussian()
    recordings = []
    for first in range(0, len(drawn), arguments.joined):
        together = drawn[first : first + arguments.joined]
        parts = [clip.read(arguments.seconds, clip.generator(arguments.seed))[0] for clip in together]
        whole = parts[0].with_samples(np.concatenate([part.samples for part in parts], axis=1))
        case = protocol.degrade([whole], together[0].generator(arguments.seed))
        recordings.append((together[0].name, Audio(case.problem.samples, whole.rate), case.truth[0]))
    return recordings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="checkout of the earlier version")
    parser.add_argument("clean", type=Path, nargs="+", help="clean recordings of one rate, or folders of them")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a clip")
    parser.add_argument("--clips", type=int, default=6, help="recordings to draw")
    parser.add_argument("--joined", type=int, default=1, help="clips in one recording")
    parser.add_argument("--noise", type=Path, help="folder of noise recordings")
    parser.add_argument("--preset", default="quality")
    parser.add_argument("--before", help="options of the earlier version; by default the same preset")
    parser.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS of every process")
    parser.add_argument("--busy", type=int, default=0, help="other programs that keep a core busy")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    now = ["--preset", arguments.preset]
    versions = [(arguments.checkout, now if arguments.before is None else shlex.split(arguments.before)), (ROOT, now)]
    print("| recording | s | version | wall s | processor s | peak GB | SNR (dB) | PESQ-WB |\n|" + "---|" * 8)
    outcomes: list[list[Outcome]] = []
    with ExitStack() as busy:
        for _ in range(arguments.busy):
            other = busy.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            busy.callback(other.kill)
        for name, noisy, clean in draw_recordings(arguments):
            outcomes.append([])
            for label, (checkout, options) in zip(("before", "now"), versions, strict=True):
                outcome = restore(checkout, options, arguments.threads, noisy, clean)
                outcomes[-1].append(outcome)
                cells = f"{outcome.wall:.1f} | {outcome.processor:.1f} | {outcome.memory:.2f}"
                cells += f" | {outcome.snr_db:.2f} | {outcome.pesq_wb:.3f}"
                print(f"| {name} | {noisy.length / noisy.rate:.0f} | {label} | {cells} |", flush=True)
    table = np.array(outcomes)  # [recordings, versions, columns]
    for label, row in zip(("before", "now"), np.nanmean(table, axis=0), strict=True):
        print(f"| mean | | {label} | {row[0]:.1f} | {row[1]:.1f} | {row[2]:.2f} | {row[3]:.2f} | {row[4]:.3f} |")
    ratio = table[:, 0].mean(axis=0) / table[:, 1].mean(axis=0)
    last = [f"{each:.2f} times" for each in ratio[:3]]
    for column in (3, 4):
        values = table[:, 1, column] - table[:, 0, column]
        values = values[np.isfinite(values)]
        low, high = interval(values)
        last.append("" if low is None else f"{values.mean():+.3f} [{low:+.3f}, {high:+.3f}]")
    print(f"| before / now; now - before | | | {' | '.join(last)} |")


if __name__ == "__main__":
    main()
