"""Processor time to quality: dap on the command line beside the code that the Design paper's authors released.

    python benchmarks/time_to_quality.py --released CLONE FOLDER_OR_WAV... [--presets quality fast] [--cache FILE.json]

Takes the middle second of each clean recording at 16 kHz, adds white noise of standard deviation 0.1 as
benchmarks/denoise.py does, and restores it twice.

The released method is timed for a few iterations; 2000 of them, as many as its script runs, are extrapolated. The SNR
is that of its best iterate against the clean recording, an oracle, found by fitting the same network with dap's paper
preset in bfloat16 (benchmarks/iteration.py shows that losses agree; the released code would take half an hour each).

dap is blind, and its cost is that of the whole process, from the start of the interpreter to the written file. Set
OMP_NUM_THREADS=1, because threads that wait for each other count as well. --cache keeps the released method's scores.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.denoise import Case, draw_cases
from benchmarks.released import HOP, RATE, TRANSFORM, Released, describe_machine, whole_length
from dapcli.audio import Audio, read_audio
from dapcli.metrics.waveform import snr_db
from dapcli.settings import PRESETS
from dapcli.tasks._api_restore import denoise

ROOT = Path(__file__).resolve().parent.parent
SCRIPT_ITERATIONS = 2000
TIMED_ITERATIONS = 5


class ReleasedScore(NamedTuple):
    """The released method's best SNR, the iteration of it, and processor seconds of 2000 iterations."""

    snr: float
    iteration: int
    seconds: float


class DapScore(NamedTuple):
    """SNR of the written file in dB, and processor and wall seconds of the process."""

    snr: float
    processor: float
    wall: float


def cut(case: Case) -> Case:
    """A case of a length that the released network returns all frames of."""
    if case.rate != RATE:
        raise SystemExit(f"{case.name}: {case.rate} Hz; the released code works at {RATE} Hz")
    size = whole_length(case.clean.size)
    if size <= 0:
        raise SystemExit(f"{case.name}: too short")
    keep = slice((case.clean.size - size) // 2, (case.clean.size - size) // 2 + size)
    return case._replace(clean=case.clean[keep], noise=case.noise[keep], noisy=case.noisy[keep])


def fit_released(case: Case, arguments: argparse.Namespace) -> ReleasedScore:
    released = Released(arguments.released, arguments.seed)
    target = TRANSFORM.forward(torch.from_numpy(case.noisy).float()[None])
    z = torch.randn(target.shape, generator=torch.Generator().manual_seed(arguments.seed))
    seconds = []
    for _ in range(TIMED_ITERATIONS):
        started = time.process_time()
        released.step(z, target)
        seconds.append(time.process_time() - started)
    settings = replace(
        PRESETS["paper"],
        prior="ddunet",
        stop="oracle",
        iterations=arguments.iterations,
        precision="auto",
        seed=arguments.seed,
    )
    result = denoise(
        Audio(case.noisy[None], case.rate), settings, device="cpu", reference=Audio(case.clean[None], case.rate)
    )
    # Its script clips the samples to full scale too.
    snr = snr_db(case.clean[None], result.audio.samples.clip(-1, 1), case.rate)
    best = result.segments[0].best_iteration
    print(f"{case.name}: best at {best}, {snr:.2f} dB", file=sys.stderr, flush=True)
    return ReleasedScore(snr, best, SCRIPT_ITERATIONS * float(np.median(seconds[1:])))


def look_up_released(case: Case, arguments: argparse.Namespace) -> ReleasedScore:
    """The released method's score, from the cache where it holds one of the same settings and machine."""
    settings = [case.name, case.clean.size, arguments.iterations, arguments.seed]
    key = " ".join(map(str, [*settings, describe_machine()]))
    cache: Path | None = arguments.cache
    known = json.loads(cache.read_text()) if cache and cache.exists() else {}
    if key not in known:
        known[key] = fit_released(case, arguments)._asdict()
        if cache:
            cache.write_text(json.dumps(known, indent=1))
    return ReleasedScore(**known[key])


def run_dap(case: Case, preset: str, seed: int) -> DapScore:
    """Restore a case by a process of its own."""
    main = ["-c", "from dapcli.cli import main; main()"]
    with tempfile.TemporaryDirectory() as folder:
        noisy, restored = Path(folder, "noisy.wav"), Path(folder, "restored.wav")
        soundfile.write(noisy, case.noisy, case.rate, subtype="FLOAT")
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        options = ["--preset", preset, "--seed", str(seed), "--device", "cpu", "--quiet"]
        # From the root of the checkout, so that this dap is measured and not one that is installed.
        subprocess.run([sys.executable, *main, "denoise", noisy, restored, *options], cwd=ROOT, check=True)
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        snr = snr_db(case.clean[None], read_audio(restored).samples, case.rate)
    return DapScore(snr, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, wall)


def print_row(name: str, released: ReleasedScore, scores: list[DapScore]) -> None:
    cells = [name, f"{released.snr:.2f}", f"{released.iteration:.0f}", f"{released.seconds:.0f}"]
    for score in scores:
        ratio = released.seconds / score.processor
        cells += [f"{score.snr:.2f}", f"{score.processor:.1f}", f"{score.wall:.1f}", f"{ratio:.0f}"]
    print("|", " | ".join(cells), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clean", type=Path, nargs="+", help="clean WAV files or folders of them")
    parser.add_argument("--released", type=Path, required=True, help="clone of vivsivaraman/designaudiopriors")
    parser.add_argument("--clips", type=int, help="first clips only")
    parser.add_argument("--seconds", type=float, default=1.0, help="that much from the middle of each clip")
    parser.add_argument("--iterations", type=int, default=160, help="iterations among which the oracle chooses")
    parser.add_argument("--presets", nargs="+", default=["quality", "fast"], help="presets of dap to run")
    parser.add_argument("--cache", type=Path, help="file to keep the released method's results in")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(noise=None, profile=False)
    arguments = parser.parse_args()
    # Up to the next length that the released network takes: 251 hops for one second.
    samples = round(arguments.seconds * RATE)
    arguments.seconds = next(size for size in range(samples, samples + 4 * HOP) if whole_length(size) == size) / RATE

    header = ["recording", "released, oracle SNR (dB)", "at iteration", "processor s of 2000 iterations (extrapolated)"]
    for preset in arguments.presets:
        header += [f"dap {preset}, blind SNR (dB)", "processor s", "wall s", "released / dap"]
    print(f"{describe_machine()}\n\n| {' | '.join(header)} |\n{'|---' * len(header)}|", flush=True)
    rows: list[tuple[ReleasedScore, list[DapScore]]] = []
    for case in map(cut, draw_cases(arguments)):
        released = look_up_released(case, arguments)
        rows.append((released, [run_dap(case, preset, arguments.seed) for preset in arguments.presets]))
        print_row(case.name, *rows[-1])
    if not rows:
        raise SystemExit("no WAV files found")
    means = [DapScore(*np.mean(scores, axis=0)) for scores in zip(*(scores for _, scores in rows), strict=True)]
    print_row("mean", ReleasedScore(*np.mean([released for released, _ in rows], axis=0)), means)


if __name__ == "__main__":
    main()
