"""The fitting loop. It neither prints nor reads files, and hands on all that it finds as values."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dapcli.errors import SettingsError
from dapcli.fit.optimizers import OPTIMIZERS
from dapcli.fit.stopping import Step, StoppingRule
from dapcli.settings import Settings

Network = Callable[[Tensor], Tensor]
Report = Callable[["Iteration"], None]

# A network that knows the recording is finetuned in smaller steps; the usual ones would first unlearn.
_FINETUNING_RATE = 0.5


class Objective(ABC):
    """How a network's output explains a recording of C channels as K sources, and what that costs.

    Where it knows how, also the channels of several recordings side by side, each with its own loss.
    """

    validates: ClassVar[bool] = False
    """Whether its steps have a validation error, relative to that of a classical :attr:`initial` estimate."""
    starts_from_zero: ClassVar[bool] = False
    """Whether the networks' outputs are to be zero before the fit."""
    generates: ClassVar[bool] = False
    """Whether the network paints one recording out of noise, or else filters any by what is known of it."""
    waveforms: ClassVar[bool] = False
    """Whether the network may map waveforms ``[1, C, 1, N]`` in place of spectrograms."""

    networks: tuple[tuple[int, int], ...]
    """The channels that each of its networks takes in and puts out.

    Several are handed to it as one, which has the channels of all, one after the other.
    """
    initial: Tensor
    """The estimate ``[K, C, 2, F, T]`` without a network: the recording itself where there is no better one."""

    def begin(self) -> Any:
        """The state that its first step is given; by default the number of steps done."""
        return 0

    @abstractmethod
    def step(self, network: Network, state: Any, generator: torch.Generator) -> Step:
        """One forward pass, out of the state that the step before has returned."""


@dataclass(frozen=True)
class Iteration:
    """One iteration: its loss and the stopping rule's criterion (lower is better).

    ``residual`` is what the averaged estimate leaves over of the recording, as a root mean square over the STFT's
    planes; ``validation`` the error on what the network does not learn from, relative to that of the initial estimate.
    """

    iteration: int
    loss: float
    criterion: float
    residual: float
    validation: float | None = None


@dataclass(frozen=True)
class Fitted:
    """A finished fit: the best average of estimates ``[K, C, 2, F, T]`` by the stopping rule, and how it was found."""

    estimate: Tensor
    best_iteration: int
    stopped_by: str
    seconds: float
    iterations: tuple[Iteration, ...]


def fit(
    network: nn.Module | None,
    objective: Objective,
    rules: Sequence[StoppingRule],
    settings: Settings,
    dtype: torch.dtype,
    generator: torch.Generator,
    reports: Sequence[Report] = (),
    *,
    finetune: bool = False,
) -> list[Fitted]:
    """Fit a network to an objective, or to that of B segments side by side, whose channels follow each other.

    Args:
        network: Fitted in place, on the device of the generator; None leaves the objective's initial estimate.
        objective: What it is fitted to.
        rules: What stops it, and says which iterate is best, for every segment. A segment that has stopped keeps its
            estimate while others go on.
        settings: Iterations at the most, optimizer, its step size, and the decay of the running average of estimates:
            the noise that a prior passes differs from iteration to iteration, the sound does not.
        dtype: The type that convolutions compute in.
        generator: The source of all random numbers.
        reports: Called after every iteration of their segment; none by default.
        finetune: The network knows the recording: let it do the fewer iterations for that, with steps that fall to 0.

    Raises:
        SettingsError: The loss is no longer finite.
    """
    members = len(rules)
    if network is None:
        parts = objective.initial.chunk(members, dim=1)
        return [Fitted(each, 0, "nothing: no network was fitted", 0.0, ()) for each in parts]
    started = time.perf_counter()
    # Channels last keeps convolutions from reordering their inputs: twice as fast on CPUs. Grouped ones are slower.
    memory_format = torch.channels_last if members == 1 else torch.contiguous_format
    network = network.to(device=generator.device, memory_format=memory_format)  # type: ignore[call-overload]
    iterations = settings.finetune_iterations if finetune else settings.iterations
    learning_rate = settings.learning_rate * (_FINETUNING_RATE if finetune else 1.0)
    optimizer = OPTIMIZERS[settings.optimizer](network.parameters(), learning_rate)

    def forward(x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=memory_format)
        with torch.autocast(x.device.type, dtype=dtype, enabled=dtype is not torch.float32):
            output: Tensor = network(x)
        return output.float().contiguous()

    state = objective.begin()
    average = torch.empty(0)
    fits = [_Member(rule, report) for rule, report in zip(rules, reports or [_no_report] * members, strict=True)]
    for iteration in range(1, iterations + 1):
        if finetune:
            optimizer.rate = (1 - (iteration - 1) / iterations) * learning_rate
        step = objective.step(forward, state, generator)
        state = step.state
        step.loss.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses = step.loss.detach().view(-1).tolist()
        if not all(map(math.isfinite, losses)):
            raise SettingsError(f"the fit diverged at iteration {iteration}; use a smaller --learning-rate")
        # The first averages are plain means, so that the network's random start is soon forgotten.
        weight = min(settings.ema_decay, 1 - 1 / iteration)
        average = step.estimate if iteration == 1 else torch.lerp(step.estimate, average, weight)
        by_segment = (each.chunk(members, dim=1) for each in (step.estimate, step.observed, average))
        for each, loss, estimate, observed, mean in zip(fits, losses, *by_segment, strict=True):
            each.take(iteration, loss, Step(step.loss, estimate, observed, None, step.validation), mean)
        if all(each.stopped for each in fits):
            break
    seconds = (time.perf_counter() - started) / members
    usual = f"all iterations done ({iterations})"
    return [Fitted(each.average, each.best, each.stopped or usual, seconds, tuple(each.done)) for each in fits]


def _no_report(_: Iteration) -> None:
    pass


class _Member:
    """One segment of a fit: its iterations so far, and the best average of estimates ``[K, C, 2, F, T]``."""

    def __init__(self, rule: StoppingRule, report: Report) -> None:
        self._rule, self._report = rule, report
        self.done: list[Iteration] = []
        self.average = torch.empty(0)
        self.best = 0
        self.stopped = ""
        self._least = math.inf

    def take(self, iteration: int, loss: float, step: Step, average: Tensor) -> None:
        """Judge an iterate by what a step found of this segment, unless it has stopped."""
        if self.stopped:
            return
        rule = self._rule
        criterion = rule.criterion(iteration, step, average)
        if criterion < self._least or iteration == 1:
            self._least, self.best, self.average = criterion, iteration, average
        validation = None if step.validation is None else float(step.validation)
        self.done.append(Iteration(iteration, loss, criterion, rule.residual(step, average), validation))
        self._report(self.done[-1])
        if rule.patience is not None and iteration - self.best >= rule.patience:
            self.stopped = f"no better iterate in {rule.patience} iterations"
