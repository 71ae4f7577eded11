"""Many recordings: `dap batch` beside a loop of the shell, its overhead, its memory, and how long it takes to resume.

    python benchmarks/batch.py [--clips 100] [--loop 10] [--preset fast] [--entries 10000] [--cluster ADDRESS]
    python benchmarks/batch.py --calls 5000 [--cluster ADDRESS]

Clips are one second of a tone in noise at 16 kHz, each another. The loop is measured on the first few of them; its
commands have one thread each, one after the other, as `for` and `while read` run them. Overhead is the time of the
processes that is not that of restorations, relative to the latter. To resume, copies of one clip and of its results are
listed and checked, and nothing is fitted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dapcli.cli.task import task_command
from dapcli.pipeline.cluster import join_cluster

ROOT = Path(__file__).resolve().parent.parent
RATE = 16_000


def dap(*arguments: str | Path) -> tuple[float, float]:
    """Wall time of a command, s, and the memory of its largest process, MB."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    running = subprocess.Popen([sys.executable, "-m", "dapcli", *map(str, arguments), "--quiet"], env=environment)
    _, status, usage = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    assert running.returncode == 0, arguments
    return time.perf_counter() - started, usage.ru_maxrss / 1000


def batch(folder: Path, clips: int, arguments: argparse.Namespace) -> tuple[float, float, float]:
    """Wall time and memory of a batch of the first clips, and the seconds of their restorations."""
    manifest, out = folder / "clips.csv", folder / f"batch{clips}"
    manifest.write_text("".join(f"in/{number}.wav\n" for number in range(clips)))
    options = ["--cluster", arguments.cluster] if arguments.cluster else []
    jobs = ["--jobs", str(arguments.jobs)]
    call = ("batch", "denoise", manifest, "--output-dir", out, "--preset", arguments.preset, *jobs, *options)
    wall, memory = dap(*call)
    files = json.loads((out / "batch.json").read_text())["files"]
    return wall, memory, sum(line["seconds"] for line in files)


def write_clips(folder: Path, clips: int) -> None:
    rng, t = np.random.default_rng(0), np.arange(RATE) / RATE
    folder.mkdir()
    for number in range(clips):
        tone = 0.2 * np.sin(2 * np.pi * rng.uniform(100, 1000) * t) * (1 + np.sin(2 * np.pi * 3 * t))
        soundfile.write(folder / f"{number}.wav", tone + 0.05 * rng.standard_normal(RATE), RATE)


def write_results(folder: Path, entries: int, preset: str) -> None:
    """Copies of one clip, and of what is made of it."""
    (folder / "many").mkdir()
    shutil.copy(folder / "in" / "0.wav", folder / "many" / "0.wav")
    dap("batch", "denoise", folder / "many", "--output-dir", folder / "done", "--preset", preset)
    for number in range(1, entries):
        for source in (folder / "many" / "0.wav", folder / "done" / "0.wav", folder / "done" / "0.wav.json"):
            shutil.copy(source, source.with_name(source.name.replace("0.wav", f"{number}.wav", 1)))


def nothing(item: object) -> None:
    del item


def rate(address: str, calls: int) -> float:
    """Calls by the second that do nothing, with the command of a recording each, after some to begin with."""
    command = task_command("denoise")(input_path=Path("in/0.wav"), output_path=Path("out/0.wav"), quiet=True)
    with join_cluster(address, None, lambda _: 0.0) as workers:
        list(workers.map(nothing, [command] * 100))
        started = time.perf_counter()
        list(workers.map(nothing, [command] * calls))
        return calls / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--loop", type=int, default=10, help="clips of the loop; 0 leaves it out")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--entries", type=int, default=10_000, help="files to list and to resume; 0 leaves that out")
    parser.add_argument("--cluster", help="address of a Ray cluster")
    parser.add_argument("--calls", type=int, help="only measure the rate of so many empty calls on the cluster")
    arguments = parser.parse_args()
    if arguments.calls:
        print(f"{rate(arguments.cluster or 'local', arguments.calls):.0f} calls/s")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clips(folder / "in", max(arguments.clips, arguments.loop))
        (folder / "loop").mkdir()
        print("| clips | s | s by clip | largest process (MB) |\n|---|---|---|---|")
        loop = 0.0
        for number in range(arguments.loop):
            paths = (folder / "in" / f"{number}.wav", folder / "loop" / f"{number}.wav")
            loop += dap("denoise", *paths, "--preset", arguments.preset)[0] / arguments.loop
        if arguments.loop:
            print(f"| {arguments.loop} in a loop | {loop * arguments.loop:.1f} | {loop:.2f} | |", flush=True)
        for clips in (arguments.clips // 4, arguments.clips):
            wall, memory, fits = batch(folder, clips, arguments)
            print(f"| {clips} in a batch | {wall:.1f} | {wall / clips:.2f} | {memory:.0f} |", flush=True)
        if arguments.loop:
            print(f"\nthe batch takes {wall / clips / loop:.0%} of the loop's time")
        print(f"{fits:.1f} s of restorations; overhead {wall * arguments.jobs / fits - 1:.0%}\n", flush=True)
        if arguments.entries:
            write_results(folder, arguments.entries, arguments.preset)
            for pattern in ("many/??.wav", "many"):
                call = ("batch", "denoise", folder / pattern, "--output-dir", folder / "done")
                wall, memory = dap(*call, "--preset", arguments.preset)
                files = json.loads((folder / "done" / "batch.json").read_text())["files"]
                assert {line["status"] for line in files} == {"kept"}
                print(f"{len(files)} resumed in {wall:.1f} s, {memory:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
