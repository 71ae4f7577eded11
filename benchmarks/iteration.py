"""One iteration of the Design paper's network: dap beside the code that the paper's authors released.

    python benchmarks/iteration.py --released CLONE [--iterations 50] [--figure FILE.svg]

Both fit the same network, with the same weights, input and target, to one second of a harmonic tone at 16 kHz (512 bins
x 252 frames) with white noise of standard deviation 0.1: theirs as its script does, in float32; dap's through the loop
that every restoration runs, in float32 and in bfloat16. They take turns, one iteration each. Prints the median time of
an iteration after a warm-up and the losses; --figure draws them over each other. Wants a machine that does nothing
else. Rounding alone drives two fits apart: Adam divides every gradient by its size, however small.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.released import HOP, RATE, TRANSFORM, Released, describe_machine
from dapcli.fit import STOPPING_RULES, Iteration, StopContext, choose_dtype, fit
from dapcli.objectives import Setup
from dapcli.objectives.generate import Generation
from dapcli.priors import build_prior
from dapcli.tasks import TASKS

SETTINGS = replace(TASKS["denoise"].presets["paper"], prior="ddunet")
WHITE_STD = 0.1


class Turn(NamedTuple):
    """The loss of an iteration, its seconds on the wall and of all processors."""

    loss: float
    wall: float
    processor: float


def end_turn(started: tuple[float, float], loss: float) -> Turn:
    """The turn that has begun at these wall and processor times."""
    return Turn(loss, time.perf_counter() - started[0], time.process_time() - started[1])


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def make_noisy(seed: int) -> Tensor:
    """Eight harmonics of 220 Hz in noise, ``[1, N]``, as long as the released network takes."""
    phase = 2 * np.pi * 220 * np.arange(251 * HOP) / RATE
    tone = np.sum([0.2 / k * np.sin(k * phase) for k in range(1, 9)], axis=0)
    return torch.from_numpy(tone + WHITE_STD * np.random.default_rng(seed).standard_normal(tone.size)).float()[None]


def run(samples: Tensor, precision: str, arguments: argparse.Namespace) -> tuple[list[Turn], list[Turn], float]:
    """Turns of dap in some precision and of the released code, and the GFLOP of one."""
    released = Released(arguments.released, arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    objective = Generation(samples, [], Setup(SETTINGS, TRANSFORM, RATE, generator))
    network = build_prior(SETTINGS, 2, 2)
    released.copy_weights(network)
    z, target = objective._z.clone(), objective.initial[0].clone()
    with FlopCounterMode(display=False) as counter:
        copy.deepcopy(released.network).to("meta")(z.to("meta")).sum().backward()
    ours: list[Turn] = []
    theirs: list[Turn] = []
    started = now()

    def take_turns(iteration: Iteration) -> None:
        nonlocal started
        ours.append(end_turn(started, iteration.loss))
        started = now()
        theirs.append(end_turn(started, released.step(z, target)))
        print(iteration.iteration, precision, ours[-1], theirs[-1], file=sys.stderr, flush=True)
        started = now()

    rule = STOPPING_RULES["fixed"](StopContext(TRANSFORM, samples))
    settings = replace(SETTINGS, iterations=arguments.iterations)
    fit(network, objective, [rule], settings, choose_dtype(precision, samples.device), generator, [take_turns])
    return ours, theirs, float(counter.get_total_flops()) / 1e9


def draw(losses: dict[str, list[Turn]], path: Path) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")  # without pyplot, matplotlib needs no display
    axes: Any = figure.subplots()
    for (name, turns), style in zip(losses.items(), ("-", "--", ":"), strict=True):
        axes.semilogy(range(1, len(turns) + 1), [turn.loss for turn in turns], style, label=name)
    axes.set(xlabel="iteration", ylabel="mean squared error")
    axes.legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--released", type=Path, required=True, help="clone of vivsivaraman/designaudiopriors")
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--warm-up", type=int, default=3, help="first iterations that are not timed")
    parser.add_argument("--figure", type=Path, help="draw the losses to this file")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not 0 <= arguments.warm_up < arguments.iterations:
        parser.error("--warm-up must leave iterations to time")
    samples = make_noisy(arguments.seed)
    found: dict[str, list[Turn]] = {}
    rows = []
    for precision in ("float32", "bfloat16"):
        ours, theirs, gflop = run(samples, precision, arguments)
        found |= {"released": theirs, f"dap, {precision}": ours}
        cost, other = (Turn(*np.median(turns[arguments.warm_up :], axis=0)) for turns in (ours, theirs))
        apart = np.array([turn.loss for turn in ours]) / [turn.loss for turn in theirs] - 1
        rows.append(
            f"| {precision} | {cost.wall:.2f} | {cost.processor:.2f} | {other.wall:.2f} | {other.processor:.2f} "
            f"| {other.wall / cost.wall:.2f}, {other.processor / cost.processor:.2f} | {gflop / cost.wall:.0f} "
            f"| {100 * apart[-1]:+.2f} % | {100 * np.abs(apart).max():.2f} % |"
        )
    print(
        f"{describe_machine()}, {os.cpu_count()} cores; {gflop:.0f} GFLOP per iteration\n\n"
        "| dap in | s per iteration | processor s | released, s | processor s | released / dap (wall, processor) "
        "| GFLOP/s | difference of the last losses | largest difference |\n|---|---|---|---|---|---|---|---|---|"
    )
    print("\n".join(rows))
    if arguments.figure:
        draw(found, arguments.figure)


if __name__ == "__main__":
    main()
