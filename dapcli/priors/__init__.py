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

#: Stands for no network: the classical estimate alone.
NO_PRIOR = "none"

_EXPONENTIAL = ((2, 4), (8, 16), (32, 32), (16, 8), (4, 2))


@dataclass(frozen=True)
class Prior:
    """One line of the registry: what it is, and its network by channels of input and output, and settings.

    Of the settings only the network's own count: ``base_channels``, ``fold`` and ``dilation``.
    """

    summary: str
    build: Callable[[int, int, Settings], PriorNetwork]


def _paper(summary: str, dilations: Sequence[tuple[int, int]] | None, *, dense: bool = False) -> Prior:
    """A prior of the Design paper's text; without dilations they are those of the settings throughout."""

    def build(in_channels: int, out_channels: int, settings: Settings) -> PriorNetwork:
        w, d = settings.base_channels, settings.dilation
        filters = ((w, 2 * w), (2 * w, 4 * w), (2 * w, 2 * w), (4 * w, 2 * w), (2 * w, w))
        layout = UNetLayout(filters, tuple(dilations or ((d, d),) * 5), dense=dense, fold=settings.fold)
        return UNet(layout, in_channels, out_channels)

    return Prior(summary, build)


def _released(in_channels: int, out_channels: int, settings: Settings) -> PriorNetwork:
    """The network that the authors of the Design paper released."""
    filters = tuple((k * settings.base_channels, k * settings.base_channels) for k in (1, 2, 4, 2, 1))
    dilations = ((1, 2), (4, 8), (16, 32), (32, 16), (8, 4))
    layout = UNetLayout(filters, dilations, dense=True, upsample_conv=True, raw_skip=True, fold=settings.fold)
    return UNet(layout, in_channels, out_channels)


PRIORS: dict[str, Prior] = {
    "conv": _paper("plain convolutions", ((1, 1),) * 5),
    "dilated": _paper("one constant dilation", None),
    "exp": _paper("dilations that double from layer to layer", _EXPONENTIAL),
    "exp-dense": _paper("exponential dilations and dense blocks", _EXPONENTIAL, dense=True),
    "ddunet": Prior("exp-dense as the authors released it", _released),
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
