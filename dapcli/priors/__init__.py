"""The priors: untrained networks, each by the name that the command line knows.

To add one, write a subclass of :class:`PriorNetwork` and give it a line in :data:`PRIORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from dapcli.priors.network import IndependentNetworks, PriorNetwork
from dapcli.priors.unet import UNet, UNetLayout
from dapcli.settings import Settings, look_up

Blocks = tuple[tuple[int, int], ...]

#: Stands for no network: the classical estimate alone.
NO_PRIOR = "none"

# Filters of the blocks' convolutions, in multiples of the base channels, as the Design paper's text has them and as the
# code that its authors released.
_PAPER, _RELEASED = ((1, 2), (2, 4), (2, 2), (4, 2), (2, 1)), ((1, 1), (2, 2), (4, 4), (2, 2), (1, 1))
_EXPONENTIAL = ((2, 4), (8, 16), (32, 32), (16, 8), (4, 2))
_FROM_ONE = ((1, 2), (4, 8), (16, 32), (32, 16), (8, 4))


@dataclass(frozen=True)
class Prior:
    """One line of the registry: what it is, and its network by channels of input and output, and settings.

    Of the settings only the network's own count: ``base_channels``, ``fold`` and ``dilation``.
    """

    summary: str
    build: Callable[[int, int, Settings], PriorNetwork]


def _unet(summary: str, filters: Blocks, dilations: Blocks | None, **layout: bool) -> Prior:
    """A U-Net; without dilations they are those of the settings throughout."""

    def build(in_channels: int, out_channels: int, settings: Settings) -> PriorNetwork:
        widths = tuple((a * settings.base_channels, b * settings.base_channels) for a, b in filters)
        dilated = dilations or ((settings.dilation, settings.dilation),) * len(filters)
        return UNet(UNetLayout(widths, dilated, fold=settings.fold, **layout), in_channels, out_channels)

    return Prior(summary, build)


PRIORS: dict[str, Prior] = {
    "conv": _unet("plain convolutions", _PAPER, ((1, 1),) * 5),
    "dilated": _unet("one constant dilation", _PAPER, None),
    "exp": _unet("dilations that double from layer to layer", _PAPER, _EXPONENTIAL),
    "exp-dense": _unet("exponential dilations and dense blocks", _PAPER, _EXPONENTIAL, dense=True),
    "ddunet": _unet(
        "exp-dense as the authors released it", _RELEASED, _FROM_ONE, dense=True, upsample_conv=True, raw_skip=True
    ),
}


def build_prior(settings: Settings, in_channels: int, out_channels: int) -> PriorNetwork:
    """The untrained network of ``settings.prior``, ``[1, in_channels, F, T] -> [1, out_channels, F, T]``.

    Its weights are drawn from torch's global generator.

    Raises:
        SettingsError: No prior has this name.
    """
    look_up(settings.prior, PRIORS, "prior")
    return PRIORS[settings.prior].build(in_channels, out_channels, settings)


def build_priors(settings: Settings, channels: Sequence[tuple[int, int]], *, zero: bool) -> nn.Module:
    """One network for each pair of channels of input and output; several as one. ``zero`` lets them put out zeros."""
    networks = [build_prior(settings, *each) for each in channels]
    if zero:
        for network in networks:
            network.zero_output()
    return networks[0] if len(networks) == 1 else IndependentNetworks(networks)
