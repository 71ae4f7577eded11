"""What a prior costs and how far it sees, without running it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from dapcli.priors import PRIORS, build_prior
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


def in_units(extent: tuple[float, float], stft: STFT, rate: int) -> tuple[float, float]:
    """A receptive field in bins and frames as one in s and Hz, of which there are no more than half the rate."""
    bins, frames = extent
    return frames * stft.hop / rate, min(bins * rate / stft.n_fft, rate / 2)


def describe_priors(settings: Settings, rate: int) -> list[PriorCost]:
    """The cost of every registered prior for one second of mono at ``rate`` Hz with these settings."""
    stft = STFT.for_rate(rate, settings.window, settings.hop, settings.window_shape)
    planes = 1 if settings.estimator == "mask" else 2
    shape = (1, planes, stft.n_fft // 2 + 1, 1 + rate // stft.hop)
    costs = []
    for name, prior in PRIORS.items():
        # The meta device computes shapes only, which is all that counting takes.
        with torch.device("meta"):
            network = build_prior(replace(settings, prior=name), planes, planes)
            z = torch.empty(shape)
        with FlopCounterMode(display=False) as counter:
            network(z).sum().backward()
        seconds, hertz = in_units(network.receptive_field(), stft, rate)
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
