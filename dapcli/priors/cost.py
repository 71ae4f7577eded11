"""What a prior costs and how far it sees, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from dapcli.priors import NO_PRIOR, PRIORS, build_prior
from dapcli.settings import Settings
from dapcli.signal.stft import STFT


@dataclass(frozen=True)
class PriorCost:
    """A prior's parameters, receptive field in seconds and Hz, and GFLOP of one iteration on one second of mono."""

    name: str
    summary: str
    parameters: int
    receptive_field_s: float
    receptive_field_hz: float
    gflop_per_iteration: float


def receptive_field(settings: Settings, stft: STFT, rate: int) -> tuple[float, float]:
    """What one output bin of a prior depends on at the most, in s and Hz; without a network, that bin alone."""
    if settings.prior == NO_PRIOR:
        bins, frames = 1.0, 1.0
    else:
        with torch.device("meta"):
            bins, frames = build_prior(settings, 1, 1).receptive_field()
        if PRIORS[settings.prior].waveform:
            return frames / rate, rate / 2
    return frames * stft.hop / rate, min(bins * rate / stft.n_fft, rate / 2)


def _count_backward(gradient: Sequence[int], _: Sequence[int], weight: Sequence[int], *rest: Any, **__: Any) -> int:
    """FLOP of a convolution's gradients; torch's own count takes grouped ones for full ones."""
    needed: list[bool] = rest[-1]
    return 2 * prod(gradient) * prod(weight[1:]) * sum(needed[:2])


def _count_sums(x: Sequence[int], indices: Sequence[int], *_: Any, **__: Any) -> int:
    """FLOP of weighted sums of rows, and of the gradient of their weights, which torch does not count."""
    return 2 * indices[0] * x[1]


_COUNTS = {
    torch.ops.aten.convolution_backward: _count_backward,
    torch.ops.aten._embedding_bag: _count_sums,
    torch.ops.aten._embedding_bag_forward_only: _count_sums,
    torch.ops.aten._embedding_bag_per_sample_weights_backward: lambda _, *rest, **__: _count_sums(*rest),
}


def describe_priors(settings: Settings, rate: int) -> list[PriorCost]:
    """The cost of every registered prior for one second of mono at ``rate`` Hz with these settings."""
    stft = STFT.for_rate(rate, settings.window, settings.hop, settings.window_shape)
    costs = []
    for name, prior in PRIORS.items():
        chosen = replace(settings, prior=name)
        planes = 1 if settings.estimator == "mask" or prior.waveform else 2
        size = (1, rate) if prior.waveform else (stft.n_fft // 2 + 1, 1 + rate // stft.hop)
        # The meta device computes shapes only, which is all that counting takes.
        with torch.device("meta"):
            network = build_prior(chosen, planes, planes)
            z = torch.empty(1, planes, *size)
        with FlopCounterMode(display=False, custom_mapping=_COUNTS) as counter:
            network(z).sum().backward()
        seconds, hertz = receptive_field(chosen, stft, rate)
        costs.append(
            PriorCost(
                name=name,
                summary=prior.summary,
                parameters=sum(weights.numel() for weights in network.parameters()),
                receptive_field_s=seconds,
                receptive_field_hz=hertz,
                gflop_per_iteration=counter.get_total_flops() / 1e9,
            )
        )
    return costs
