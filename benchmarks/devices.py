"""The same degraded recordings on two devices: whether both restore them equally well, and how long they take.

    python benchmarks/devices.py [--device cuda] [--seconds 1] [--cases 2]

Degrades stretches of the bundled example with the papers' protocols, and mixes it with a rhythm of clicks to separate
it; restores all of them with the `quality` presets. SNR is over the whole recording and all sources. The devices draw
other random numbers from the same seed, so that their results differ as those of two seeds do. Seconds are of the last
case: in the first one a device allocates memory and chooses its kernels.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dapcli.audio import Audio, Samples, read_audio
from dapcli.evaluation.methods import Network
from dapcli.evaluation.protocols import Case, make_protocol
from dapcli.tasks import TASKS
from dapcli.tasks.speed import describe_machine

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "speech_clean.flac"
CLICKS_S = 0.25


class Run(NamedTuple):
    """Where a task was restored: the SNR in dB and the seconds of every case, and the estimates."""

    snr: list[float]
    seconds: list[float]
    estimates: list[Samples]


def make_case(task: str, speech: Audio, number: int, size: int) -> Case:
    """The degraded stretch of this number."""
    start = number * (speech.length - size)
    clean = speech.with_samples(speech.samples[:, start : start + size])
    rng = np.random.default_rng(number)
    clips = [clean]
    if task == "separate":
        clicks = np.zeros(size)
        each = round(CLICKS_S * speech.rate)
        for onset in range(0, size, each):
            burst = rng.standard_normal(min(each, size - onset))
            clicks[onset:][:each] = burst * np.exp(-np.arange(burst.size) / (0.01 * speech.rate))
        clips.append(speech.with_samples(clicks[None]))
    return make_protocol(task, None, {}).degrade(clips, rng)


def snr(wanted: Samples, estimate: Samples) -> float:
    return 10 * float(np.log10(np.sum(wanted**2) / max(float(np.sum((wanted - estimate) ** 2)), 1e-20)))


def restore(task: str, cases: Sequence[Case], device: str) -> Run:
    settings = TASKS[task].presets["quality"]
    method = Network(task, settings.prior, settings, device)
    run = Run([], [], [])
    for case in cases:
        started = time.perf_counter()
        estimate = method.restore(case.problem, None).samples
        run.seconds.append(time.perf_counter() - started)
        run.snr.append(snr(case.truth, estimate))
        run.estimates.append(estimate)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--cases", type=int, choices=(1, 2), default=2)
    arguments = parser.parse_args()
    speech = read_audio(EXAMPLE)
    machine = describe_machine()
    print(f"{machine['processor']}, {torch.get_num_threads()} threads, torch {machine['torch']}")
    print(f"cpu {machine['devices']['cpu']}; {arguments.device}: {machine['devices'].get('cuda:0', '')}")
    print(f"\n| task | SNR on the CPU (dB) | on {arguments.device} | greatest difference | each other's SNR", end="")
    print(f" | s on the CPU | on {arguments.device} | CPU / {arguments.device} |\n|---|---|---|---|---|---|---|---|")
    for task in TASKS:
        size = round(arguments.seconds * speech.rate)
        cases = [make_case(task, speech, number, size) for number in range(arguments.cases)]
        cpu, other = (restore(task, cases, device) for device in ("cpu", arguments.device))
        apart = max((b - a for a, b in zip(cpu.snr, other.snr, strict=True)), key=abs)
        alike = np.mean([snr(a, b) for a, b in zip(cpu.estimates, other.estimates, strict=True)])
        seconds = cpu.seconds[-1], other.seconds[-1]
        print(
            f"| {task} | {np.mean(cpu.snr):.2f} | {np.mean(other.snr):.2f} | {apart:+.2f} | {alike:.1f} "
            f"| {seconds[0]:.2f} | {seconds[1]:.2f} | {seconds[0] / seconds[1]:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
