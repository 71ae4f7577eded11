"""Filters that follow a fit. To add one, write a function and give it a line in :data:`POST_FILTERS`."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

PostFilter = Callable[[Tensor, Tensor, Tensor], Tensor]


def _none(estimate: Tensor, observed: Tensor, noise_power: Tensor) -> Tensor:
    """The estimate as it is."""
    del observed, noise_power
    return estimate


def _wiener(estimate: Tensor, observed: Tensor, noise_power: Tensor) -> Tensor:
    """A Wiener filter on the recording, with the fitted estimate as its model of the sound.

    ``estimate`` and ``observed`` are ``[C, 2, F, T]``, ``noise_power`` is ``[C, F, T]``. A generated estimate is
    blurred where the recording is not; where it says that there is sound, the recording is the better witness.
    """
    power = estimate.square().sum(dim=1, keepdim=True)
    return observed * (power / (power + noise_power[:, None]))


POST_FILTERS: dict[str, PostFilter] = {"none": _none, "wiener": _wiener}
