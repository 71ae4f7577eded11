"""The fitting loop: it neither prints nor reads files."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dapcli.errors import SettingsError
from dapcli.fit.optimizers import OPTIMIZERS
from dapcli.fit.stopping import StoppingRule
from dapcli.objectives import Objective


@dataclass(frozen=True)
class Step:
    """One iteration: its loss and the stopping rule's criterion (lower is better).

    ``residual`` is what the estimate leaves over of the recording, as a root mean square over the STFT's planes.
    """

    iteration: int
    loss: float
    criterion: float
    residual: float


class Fit:
    """The fit of one network to one observation.

    Iterate over it to run it; each :class:`Step` is one iteration. Between and after steps ``estimate``
    ``[C, 2, F, T]`` is the best average so far by the stopping rule, found at ``best_iteration``; ``stopped_by`` and
    ``seconds`` are set at the end. ``averaging`` is the weight of the past in the running average of estimates: the
    noise that a prior passes differs from iteration to iteration, the sound does not. ``annealed`` lets the steps
    fall to 0 at the end.

    Raises ``SettingsError`` when the loss is no longer finite.
    """

    def __init__(
        self,
        network: nn.Module,
        observation: Objective,
        rule: StoppingRule,
        *,
        iterations: int,
        optimizer: str,
        learning_rate: float,
        annealed: bool = False,
        averaging: float,
        dtype: torch.dtype,
        generator: torch.Generator,
    ) -> None:
        self.observation = observation
        self.rule = rule
        self.iterations = iterations
        self.averaging = averaging
        self.estimate: Tensor = torch.zeros_like(observation.spectrogram)
        self.best_iteration = 0
        self.stopped_by = ""
        self.seconds = 0.0
        self._dtype = dtype
        self._generator = generator
        self._annealed = annealed
        # Channels last keeps convolutions from reordering their inputs: twice as fast on CPUs.
        self._network = network.to(device=observation.spectrogram.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._learning_rate = learning_rate
        self._optimizer = OPTIMIZERS[optimizer](network.parameters(), learning_rate)

    def __iter__(self) -> Iterator[Step]:
        started = time.perf_counter()
        best = math.inf
        average: Tensor | None = None
        self.stopped_by = f"all {self.iterations} iterations done"
        for iteration in range(1, self.iterations + 1):
            if self._annealed:
                share = 1 - (iteration - 1) / self.iterations
                self._optimizer.param_groups[0]["lr"] = share * self._learning_rate
            loss, output = self._step()
            value = float(loss)
            if not math.isfinite(value):
                raise SettingsError(f"the fit diverged at iteration {iteration}; use a smaller --learning-rate")
            # The first averages are plain means, so that the network's random start is soon forgotten.
            weight = min(self.averaging, 1 - 1 / iteration)
            average = output if average is None else torch.lerp(output, average, weight)
            criterion = self.rule.criterion(output, average)
            if criterion < best or iteration == 1:
                best, self.best_iteration, self.estimate = criterion, iteration, average
            self.seconds = time.perf_counter() - started
            residual = float((self.observation.spectrogram - average).square().mean().sqrt())
            yield Step(iteration, value, criterion, residual)
            if self.rule.patience is not None and iteration - self.best_iteration >= self.rule.patience:
                self.stopped_by = f"no better iterate in {self.rule.patience} iterations"
                break

    def _step(self) -> tuple[Tensor, Tensor]:
        """One iteration: the loss before it and the estimate ``[C, 2, F, T]``, both detached."""
        loss, output = self.observation.evaluate(self._forward, self._generator)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss.detach(), output

    def _forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, dtype=self._dtype, enabled=self._dtype is not torch.float32):
            output: Tensor = self._network(x)
        return output.float().contiguous()
