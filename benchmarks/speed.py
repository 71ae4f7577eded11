"""One iteration on a device: its time, the share of it in which the device computes, and the memory it takes.

    python benchmarks/speed.py [--device cuda] [--preset paper] [--prior exp-dense ...] [--seconds 2]

Fits noise of one second of mono at 16 kHz, as `dap doctor` does. On CUDA every kernel is counted in a second fit, and
peak memory is what tensors took at once. A device waits for the host in the rest of an iteration. CUDA's convolutions
round float32 to TF32 (10 bits of fraction) unless that is switched off, as in the rows `float32, no TF32`.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dapcli.audio import Audio
from dapcli.priors import PRIORS, build_prior
from dapcli.settings import PAPER_RATE, Settings
from dapcli.signal.stft import STFT
from dapcli.tasks import TASKS
from dapcli.tasks.denoise import denoise
from dapcli.tasks.speed import describe_machine, measure_speed

COUNTED = 20
PRESETS = TASKS["denoise"].presets


class Kernels(NamedTuple):
    """Of one iteration: how many kernels the device runs, and for how many ms."""

    number: float
    ms: float


def count_kernels(settings: Settings, device: str) -> Kernels:
    """What a CUDA device does in one iteration."""
    samples = 0.1 * np.random.default_rng(0).standard_normal((1, PAPER_RATE))
    fixed = replace(settings, iterations=COUNTED, finetune_iterations=0, stop="fixed")
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        denoise(Audio(samples, PAPER_RATE), fixed, device=device, parallel=1)
        torch.cuda.synchronize()
    kernels = [each for each in profiler.key_averages() if each.device_type.name == "CUDA"]
    microseconds = sum(each.self_device_time_total for each in kernels)
    return Kernels(sum(each.count for each in kernels) / COUNTED, microseconds / 1000 / COUNTED)


def count_gflop(settings: Settings) -> float:
    """GFLOP of one forward and backward pass, counted on shapes alone."""
    stft = STFT.for_rate(PAPER_RATE, settings.window, settings.hop)
    planes = 2 if settings.estimator == "generate" else 1
    network = build_prior(settings, planes, planes).to("meta")
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, planes, stft.n_fft // 2 + 1, 1 + PAPER_RATE // stft.hop, device="meta")).sum().backward()
    return float(counter.get_total_flops()) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--preset", action="append", choices=PRESETS)
    parser.add_argument("--prior", action="append", choices=PRIORS)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long to measure each")
    arguments = parser.parse_args()
    cuda = arguments.device.startswith("cuda")
    machine = describe_machine()
    names = {"float32": True, **({"float32, no TF32": False} if cuda else {}), "bfloat16": True}
    print(
        f"{machine['devices'].get('cuda:0', machine['processor'])}, {machine['cores']} cores, torch {machine['torch']}"
    )
    extra = ["device ms", "kernels", "peak GB"] if cuda else []
    headings = ["preset, network", "convolutions in", "ms per iteration", *extra, "TFLOP/s"]
    print(f"\n| {' | '.join(headings)} |\n|{'---|' * len(headings)}")
    for preset in arguments.preset or ["paper"]:
        for prior in arguments.prior or ["exp-dense", "conv", "dilated", "exp"]:
            for name, tf32 in names.items():
                settings = replace(PRESETS[preset], prior=prior, precision=name.partition(",")[0])
                torch.backends.cudnn.allow_tf32 = tf32
                if cuda:
                    torch.cuda.reset_peak_memory_stats()
                seconds = measure_speed(settings, arguments.device, arguments.seconds).seconds or float("nan")
                columns = [f"{1000 * seconds:.1f}"]
                if cuda:
                    peak, kernels = torch.cuda.max_memory_allocated() / 1e9, count_kernels(settings, arguments.device)
                    columns += [f"{kernels.ms:.1f}", f"{kernels.number:.0f}", f"{peak:.2f}"]
                rate = count_gflop(settings) / 1000 / seconds
                print(f"| {preset}, {prior} | {name} | {' | '.join(columns)} | {rate:.2f} |", flush=True)


if __name__ == "__main__":
    main()
