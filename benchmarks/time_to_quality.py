"""Processor time to quality: dap on the command line beside the code that the Design paper's authors released.

    python benchmarks/time_to_quality.py --released CLONE CLEAN... [--preset quality --preset fast]

Cuts a stretch out of each clean recording at 16 kHz, and adds white noise, as `dap evaluate denoise` does; restores it
twice. The released method is timed for a few iterations; 2000 of them, as many as its script runs, are extrapolated.
Its SNR is that of its best iterate against the clean recording, an oracle, found by fitting the same network with dap's
paper preset in bfloat16 (benchmarks/iteration.py shows that losses agree; the released code would take half an hour
each). dap is blind, and its cost is that of the whole process, from the start of the interpreter to the written file.
Set OMP_NUM_THREADS=1, because threads that wait for each other count as well.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.released import HOP, RATE, TRANSFORM, Released, describe_machine, whole_length
from dapcli import denoise
from dapcli.audio import Audio, encode, read_audio
from dapcli.evaluation.clips import collect, draw_clips
from dapcli.evaluation.protocols import Case, Gaussian
from dapcli.evaluation.run import Evaluation
from dapcli.metrics.waveform import snr_db
from dapcli.tasks import TASKS

ROOT = Path(__file__).resolve().parent.parent
PRESETS = TASKS["denoise"].presets
SCRIPT_ITERATIONS = 2000
TIMED_ITERATIONS = 5


def draw_cases(arguments: argparse.Namespace) -> Iterator[tuple[str, Case]]:
    """Noisy stretches of the next length whose frames the released network returns all."""
    samples = round(arguments.seconds * RATE)
    seconds = next(size for size in range(samples, samples + 4 * HOP) if whole_length(size) == size) / RATE
    files = collect(arguments.clean, outside=Path("never"))
    clips = draw_clips([files], seconds, arguments.clips, arguments.seed).clips
    settings = replace(PRESETS["paper"], seed=arguments.seed)
    evaluation = Evaluation(Gaussian(), settings, "cpu", seconds, clips, ())
    for clip in clips:
        case = evaluation.case(clip)
        if case.problem.rate != RATE:
            raise SystemExit(f"{clip.name}: {case.problem.rate} Hz; the released code works at {RATE} Hz")
        yield clip.name, case


def fit_released(case: Case, arguments: argparse.Namespace) -> list[float]:
    """The released method's best SNR, the iteration of it, and processor seconds of 2000 iterations."""
    released = Released(arguments.released, arguments.seed)
    target = TRANSFORM.forward(torch.from_numpy(case.problem.samples).float())
    z = torch.randn(target.shape, generator=torch.Generator().manual_seed(arguments.seed))
    seconds = []
    for _ in range(TIMED_ITERATIONS):
        started = time.process_time()
        released.step(z, target)
        seconds.append(time.process_time() - started)
    settings = replace(PRESETS["paper"], prior="ddunet", stop="oracle", precision="auto", seed=arguments.seed)
    settings = replace(settings, iterations=arguments.iterations)
    clean = Audio(case.truth[0], RATE)
    result = denoise(case.problem.recording, settings, device="cpu", references=[clean])
    # Its script clips the samples to full scale too.
    best = snr_db(clean.samples, result.audio.samples.clip(-1, 1), RATE)
    return [best, result.segments[0].best_iteration, SCRIPT_ITERATIONS * float(np.median(seconds[1:]))]


def run_dap(case: Case, preset: str, seed: int) -> list[float]:
    """SNR of the written file in dB, and processor and wall seconds of a process of its own."""
    main = ["-c", "from dapcli.cli import main; main()"]
    with tempfile.TemporaryDirectory() as folder:
        noisy, restored = Path(folder, "noisy.wav"), Path(folder, "restored.wav")
        noisy.write_bytes(encode(Audio(case.problem.samples, RATE)))
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        options = ["--preset", preset, "--seed", str(seed), "--device", "cpu", "--quiet"]
        # From the root of the checkout, so that this dap is measured and not one that is installed.
        subprocess.run([sys.executable, *main, "denoise", noisy, restored, *options], cwd=ROOT, check=True)
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        snr = snr_db(case.truth[0], read_audio(restored).samples, RATE)
    return [snr, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, wall]


def to_row(name: str, released: list[float], scores: list[list[float]]) -> str:
    best, iteration, seconds = released
    cells = [name, f"{best:.2f}", f"{iteration:.0f}", f"{seconds:.0f}"]
    for snr, processor, wall in scores:
        cells += [f"{snr:.2f}", f"{processor:.1f}", f"{wall:.1f}", f"{seconds / processor:.0f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clean", type=Path, nargs="+", help="clean recordings, or folders of them")
    parser.add_argument("--released", type=Path, required=True, help="clone of vivsivaraman/designaudiopriors")
    parser.add_argument("--clips", type=int, help="draw so many")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of the clips")
    parser.add_argument("--iterations", type=int, default=160, help="iterations among which the oracle chooses")
    parser.add_argument("--preset", action="append", help="presets of dap to run: quality and fast")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    presets = arguments.preset or ["quality", "fast"]
    header = ["recording", "released, oracle SNR (dB)", "at iteration", "processor s of 2000 iterations (extrapolated)"]
    for preset in presets:
        header += [f"dap {preset}, blind SNR (dB)", "processor s", "wall s", "released / dap"]
    print(f"{describe_machine()}\n\n| {' | '.join(header)} |\n{'|---' * len(header)}|", flush=True)
    rows = []
    for name, case in draw_cases(arguments):
        rows.append([fit_released(case, arguments), *(run_dap(case, preset, arguments.seed) for preset in presets)])
        print(to_row(name, rows[-1][0], rows[-1][1:]), flush=True)
    released, *means = np.mean(rows, axis=0).tolist()
    print(to_row("mean", released, means))


if __name__ == "__main__":
    main()
