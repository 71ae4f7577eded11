"""Optimizers. To add one, write a class and give it a line in :data:`OPTIMIZERS`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

# Weight of the past in Muon's momentum.
_MOMENTUM = 0.9
# Coefficients and number of the Newton-Schulz steps: they need not converge, only bring all singular values near 1.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5
# Adam's step for what is no matrix, relative to Muon's.
_VECTOR_RATE = 0.04
# Far below any gradient, of quiet sound too.
_TINY = 1e-20


class Muon(torch.optim.Optimizer):
    """Steps along the nearest orthogonal matrix to the momentum; Adam for biases.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). A kernel ``[out, in, k, k]`` counts
    as the matrix ``[out, in * k * k]``, and its step is ``lr * sqrt(max(1, rows / columns))``. (``torch.optim.Muon``
    takes nothing but matrices.)
    """

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        parameters = list(params)
        super().__init__(parameters, {"lr": lr})
        vectors = [each for each in parameters if each.ndim < 2]
        self._matrices = [each for each in parameters if each.ndim >= 2]
        self._adam = torch.optim.Adam(vectors, lr=_VECTOR_RATE * lr, eps=_TINY)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step with the gradients that the parameters hold; ``closure`` is not supported."""
        assert closure is None
        rate = self.param_groups[0]["lr"]
        for matrix in self._matrices:
            if matrix.grad is None:
                continue
            if matrix not in self.state:
                self.state[matrix]["momentum"] = torch.zeros_like(matrix)
            momentum = self.state[matrix]["momentum"]
            momentum.mul_(_MOMENTUM).add_(matrix.grad)
            direction = (matrix.grad + _MOMENTUM * momentum).flatten(1)  # Nesterov's
            rows, columns = direction.shape
            matrix.add_(orthogonalise(direction).view_as(matrix), alpha=-rate * math.sqrt(max(1, rows / columns)))
        self._adam.param_groups[0]["lr"] = _VECTOR_RATE * rate
        self._adam.step()


def orthogonalise(matrix: Tensor) -> Tensor:
    """The matrix ``[R, C]`` with its singular values brought near 1 (0.7 to 1.2), by Newton-Schulz iteration."""
    a, b, c = _NEWTON_SCHULZ
    x = matrix / (matrix.norm() + _TINY)
    wide: Tensor = x.T if x.shape[0] > x.shape[1] else x
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide.T if x.shape[0] > x.shape[1] else wide


#: By name, a function of the parameters and the step size.
OPTIMIZERS: dict[str, Callable[[Iterable[Tensor], float], torch.optim.Optimizer]] = {
    "muon": Muon,
    "adam": partial(torch.optim.Adam, fused=True),
}
