"""Optimizers. To add one, write a class and give it a line in :data:`OPTIMIZERS`.

They are not torch's: making one of those imports torch's compiler, which takes longer than a fit of one second.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

# Adam's decays of the gradient's mean and of its square, and what keeps a step finite.
_MEAN_DECAY, _SQUARE_DECAY, _EPSILON = 0.9, 0.999, 1e-8
# Weight of the past in Muon's momentum.
_MOMENTUM = 0.9
# Coefficients and number of the Newton-Schulz steps: they need not converge, only bring all singular values near 1.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5
# Adam's step for what is no matrix, relative to Muon's.
_VECTOR_RATE = 0.04
# Far below any gradient, of quiet sound too.
_TINY = 1e-20


class Optimizer(ABC):
    """Changes parameters in place by the gradients that they hold; ``rate`` is the size of its next step."""

    def __init__(self, parameters: Iterable[Tensor], rate: float) -> None:
        self.parameters = list(parameters)
        self.rate = rate

    @abstractmethod
    def step(self) -> None:
        """One step; parameters without a gradient stay as they are, and all gradients are dropped."""


class Adam(Optimizer):
    """Kingma and Ba, "Adam: A Method for Stochastic Optimization" (ICLR 2015), algorithm 1."""

    def __init__(self, parameters: Iterable[Tensor], rate: float, epsilon: float = _EPSILON) -> None:
        super().__init__(parameters, rate)
        self._epsilon = epsilon
        self._state = [
            (torch.zeros_like(each), torch.zeros_like(each), torch.zeros((), device=each.device))
            for each in self.parameters
        ]

    @torch.no_grad()
    def step(self) -> None:
        """One step."""
        moved = [
            (each, each.grad, *state)
            for each, state in zip(self.parameters, self._state, strict=True)
            if each.grad is not None
        ]
        if not moved:
            return
        parameters, gradients, means, squares, done = zip(*moved, strict=True)
        for count in done:
            count += 1
        # The kernel of torch.optim.Adam(fused=True): one for all parameters.
        torch._fused_adam_(
            parameters,
            gradients,
            means,
            squares,
            [],
            done,
            lr=self.rate,
            beta1=_MEAN_DECAY,
            beta2=_SQUARE_DECAY,
            weight_decay=0.0,
            eps=self._epsilon,
            amsgrad=False,
            maximize=False,
        )
        for each in parameters:
            each.grad = None


class Muon(Optimizer):
    """Steps along the nearest orthogonal matrix to the momentum; Adam for biases.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). A kernel ``[out, in, k, k]`` counts
    as the matrix ``[out, in * k * k]``, and its step is ``rate * sqrt(max(1, rows / columns))``. Kernels of several
    networks ``[B, out, in, k, k]`` are B matrices.
    """

    def __init__(self, parameters: Iterable[Tensor], rate: float) -> None:
        super().__init__(parameters, rate)
        self._matrices = [each for each in self.parameters if each.ndim >= 2]
        self._momenta = [torch.zeros_like(each) for each in self._matrices]
        self._adam = Adam((each for each in self.parameters if each.ndim < 2), rate, _TINY)

    @torch.no_grad()
    def step(self) -> None:
        """One step."""
        for matrix, momentum in zip(self._matrices, self._momenta, strict=True):
            if matrix.grad is None:
                continue
            momentum.mul_(_MOMENTUM).add_(matrix.grad)
            direction = (matrix.grad + _MOMENTUM * momentum).flatten(max(matrix.ndim - 3, 1))  # Nesterov's
            rows, columns = direction.shape[-2:]
            matrix.add_(orthogonalise(direction).view_as(matrix), alpha=-self.rate * math.sqrt(max(1, rows / columns)))
            matrix.grad = None
        self._adam.rate = _VECTOR_RATE * self.rate
        self._adam.step()


def orthogonalise(matrix: Tensor) -> Tensor:
    """Matrices ``[..., R, C]`` with singular values brought near 1 (0.7 to 1.2), by Newton-Schulz iteration."""
    a, b, c = _NEWTON_SCHULZ
    x = matrix / (matrix.norm(dim=(-2, -1), keepdim=True) + _TINY)
    tall = x.shape[-2] > x.shape[-1]
    wide: Tensor = x.mT if tall else x
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = wide @ wide.mT
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide.mT if tall else wide


#: By name, a function of the parameters and the step size.
OPTIMIZERS: dict[str, Callable[[Iterable[Tensor], float], Optimizer]] = {"muon": Muon, "adam": Adam}
