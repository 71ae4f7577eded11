"""One iteration of the Design paper's network: dap beside the code that the paper's authors released.

    python benchmarks/iteration.py --released CLONE [--iterations 50] [--clip WAV] [--control] [--figure FILE.svg]

Both fit the same network, with the same weights, input and target, to one second at 16 kHz (512 bins x 252 frames)
with white noise of standard deviation 0.1: theirs as its script does, in float32; dap's through the loop that every
restoration runs, in float32 and in bfloat16. They take turns, one iteration each. Prints the median time of an
iteration after a warm-up and what became of the loss; --figure draws the losses over each other. Without --clip the
sound is a harmonic tone. Wants a machine that does nothing else.

Rounding alone drives two fits apart: Adam divides every gradient by its size, however small. --control shows how far:
the released code is fitted once more, from weights that differ by 1e-7 of themselves.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import librosa
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.released import HOP, RATE, TRANSFORM, Released, describe_machine, whole_length
from dapcli.audio import read_audio, resample
from dapcli.fit import STOPPING_RULES, Fit, Step, StopContext, choose_dtype
from dapcli.objectives.generate import Generation
from dapcli.priors import build_prior
from dapcli.settings import PRESETS

Array = NDArray[np.float64]
T = TypeVar("T")

LENGTH = 251 * HOP
WHITE_STD = 0.1
RELEASED = "released"
WITH_INVERSE = "released, with its inverse STFT"
CONTROL = "released, weights nudged"
NUDGE = 1e-7


class Cost(NamedTuple):
    """Seconds on the wall and of all processors."""

    wall: float
    processor: float


def timed(call: Callable[[], T]) -> tuple[T, Cost]:
    wall, processor = time.perf_counter(), time.process_time()
    result = call()
    return result, Cost(time.perf_counter() - wall, time.process_time() - processor)


def read_clip(path: Path) -> Array:
    """The middle of a clip, as long as the released network takes."""
    audio = read_audio(path)
    samples: Array = resample(audio.samples, audio.rate, RATE)[0]
    size = whole_length(min(LENGTH, samples.size))
    return samples[(samples.size - size) // 2 :][:size]


def make_tone() -> Array:
    """Eight harmonics of 220 Hz."""
    phase = 2 * np.pi * 220 * np.arange(LENGTH) / RATE
    return np.asarray(sum(0.2 / k * np.sin(k * phase) for k in range(1, 9)))


def start_fit(samples: Tensor, released: Released, precision: str, arguments: argparse.Namespace) -> Fit:
    """The fit of the paper preset, from the released network's weights, put together as in dapcli.restore."""
    settings = PRESETS["paper"]
    device = samples.device
    generator = torch.Generator(device).manual_seed(arguments.seed)
    unused = torch.ones(1, TRANSFORM.n_fft // 2 + 1)
    rule = STOPPING_RULES["fixed"](StopContext(TRANSFORM, samples, unused, None, None))
    observation = Generation(samples, TRANSFORM, None, perturbation=0.0, generator=generator)
    network = build_prior("ddunet", *observation.networks[0], width=settings.width)
    released.copy_weights(network)
    return Fit(
        network,
        observation,
        rule,
        iterations=arguments.iterations,
        optimizer=settings.optimizer,
        learning_rate=settings.learning_rate,
        averaging=0.0,
        dtype=choose_dtype(precision, device),
        generator=generator,
    )


def invert_and_judge(output: Tensor, clean: Array, noisy: Array) -> tuple[float, float]:
    """What the released script does with every iterate: its samples, and their SNR against both recordings."""
    planes = output[0].numpy()
    samples = librosa.istft(planes[0] + 1j * planes[1], win_length=TRANSFORM.n_fft, hop_length=HOP, length=clean.size)
    samples = np.clip(samples, -1.0, 1.0)
    snr = [10 * np.log10(np.sum(signal**2) / np.sum((signal - samples) ** 2)) for signal in (clean, noisy)]
    return float(snr[0]), float(snr[1])


def count_gflop(network: nn.Module, z: Tensor) -> float:
    """GFLOP of one forward and backward pass, counted on shapes alone."""
    network = copy.deepcopy(network).to("meta")
    with FlopCounterMode(display=False) as counter:
        network(z.to("meta")).sum().backward()
    return float(counter.get_total_flops()) / 1e9


def run(
    clean: Array, released: Released, arguments: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, list[Cost]], float]:
    """Losses and costs of every iteration of each implementation, and the GFLOP of one."""
    noisy = clean + WHITE_STD * np.random.default_rng(arguments.seed).standard_normal(clean.size)
    samples = torch.from_numpy(noisy).float()[None]
    fits = {f"dap, {name}": start_fit(samples, released, name, arguments) for name in ("float32", "bfloat16")}
    observations = [fit.observation for fit in fits.values()]
    assert all(isinstance(observation, Generation) for observation in observations)
    inputs: list[Tensor] = [observation._z for observation in observations]  # type: ignore[attr-defined]
    assert all(torch.equal(z, inputs[0]) for z in inputs)
    z, target = inputs[0].clone(), observations[0].spectrogram.clone()

    steps: dict[str, Iterator[Step]] = {name: iter(fit) for name, fit in fits.items()}
    controls = {}
    if arguments.control:
        controls[CONTROL] = Released(arguments.released, arguments.seed)
        controls[CONTROL].nudge(NUDGE)
    losses: dict[str, list[float]] = {name: [] for name in (RELEASED, *fits, *controls)}
    costs: dict[str, list[Cost]] = {name: [] for name in (RELEASED, WITH_INVERSE, *fits, *controls)}
    for iteration in range(1, arguments.iterations + 1):
        (loss, output), cost = timed(lambda: released.step(z, target))
        _, inverse = timed(lambda output=output: invert_and_judge(output, clean, noisy))  # type: ignore[misc]
        losses[RELEASED].append(loss)
        costs[RELEASED].append(cost)
        costs[WITH_INVERSE].append(Cost(cost.wall + inverse.wall, cost.processor + inverse.processor))
        for name, fit in steps.items():
            step, cost = timed(lambda fit=fit: next(fit))  # type: ignore[misc]
            losses[name].append(step.loss)
            costs[name].append(cost)
        for name, control in controls.items():
            (loss, _), cost = timed(lambda control=control: control.step(z, target))  # type: ignore[misc]
            losses[name].append(loss)
            costs[name].append(cost)
        line = "  ".join(f"{name} {losses[name][-1]:.5f} {costs[name][-1].wall:.2f} s" for name in losses)
        print(f"{iteration}  {line}", file=sys.stderr, flush=True)
    return losses, costs, count_gflop(released.network, z)


def print_table(
    losses: dict[str, list[float]], costs: dict[str, list[Cost]], gflop: float, arguments: argparse.Namespace
) -> None:
    median = {name: Cost(*np.median(rows[arguments.warm_up :], axis=0)) for name, rows in costs.items()}
    reference = np.array(losses[RELEASED])
    print(
        f"\n{describe_machine()}, {os.cpu_count()} cores; {gflop:.0f} GFLOP per iteration\n\n"
        "| implementation | s per iteration | processor s | released / this (wall, processor) | GFLOP/s "
        f"| loss after {arguments.iterations} | difference | largest difference |\n|---|---|---|---|---|---|---|---|"
    )
    for name, cost in median.items():
        curve = np.array(losses.get(name, losses[RELEASED]))
        difference = curve / reference - 1
        print(
            f"| {name} | {cost.wall:.2f} | {cost.processor:.2f} | {median[RELEASED].wall / cost.wall:.2f}, "
            f"{median[RELEASED].processor / cost.processor:.2f} | {gflop / cost.wall:.0f} | {curve[-1]:.5f} "
            f"| {100 * difference[-1]:+.2f} % | {100 * np.abs(difference).max():.2f} % |"
        )


def draw(losses: dict[str, list[float]], path: Path) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")  # without pyplot, matplotlib needs no display
    axes: Any = figure.subplots()
    for (name, curve), style in zip(losses.items(), ("-", "--", ":", "-."), strict=False):
        axes.semilogy(range(1, len(curve) + 1), curve, style, label=name)
    axes.set(xlabel="iteration", ylabel="mean squared error")
    axes.legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--released", type=Path, required=True, help="clone of vivsivaraman/designaudiopriors")
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--warm-up", type=int, default=3, help="first iterations that are not timed")
    parser.add_argument("--clip", type=Path, help="clean WAV instead of a tone")
    parser.add_argument("--control", action="store_true", help="show how far rounding alone drives fits apart")
    parser.add_argument("--figure", type=Path, help="draw the losses to this file")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not 0 <= arguments.warm_up < arguments.iterations:
        parser.error("--warm-up must leave iterations to time")
    clean = read_clip(arguments.clip) if arguments.clip else make_tone()
    losses, costs, gflop = run(clean, Released(arguments.released, arguments.seed), arguments)
    print_table(losses, costs, gflop, arguments)
    if arguments.figure:
        draw(losses, arguments.figure)


if __name__ == "__main__":
    main()
