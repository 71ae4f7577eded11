"""The priors: untrained networks, each by the name that the command line knows.

To add one, write a subclass of :class:`PriorNetwork` and give it a line in :data:`PRIORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from dapcli.priors.network import IndependentNetworks, PriorNetwork
from dapcli.priors.unet import UNet, UNetLayout
from dapcli.priors.wave_unet import WaveUNet
from dapcli.settings import Settings, look_up

Blocks = tuple[tuple[int, ...], ...]

#: Stands for no network: the classical estimate alone.
NO_PRIOR = "none"

# Filters of the blocks' convolutions, in multiples of the base channels, as the Design paper's text has them and as the
# code that its authors released.
_PAPER, _RELEASED = ((1, 2), (2, 4), (2, 2), (4, 2), (2, 1)), ((1, 1), (2, 2), (4, 4), (2, 2), (1, 1))
_EXPONENTIAL = ((2, 4), (8, 16), (32, 32), (16, 8), (4, 2))
_FROM_ONE = ((1, 2), (4, 8), (16, 32), (32, 16), (8, 4))
# The Harmonic paper's blocks have one convolution each, and its harmonic convolutions these anchors.
_HARMONIC, _ANCHORS = ((1,), (2,), (2,), (1,), (1,)), (1, 2, 3, 4, 5, 6, 7)


@dataclass(frozen=True)
class Prior:
    """One line of the registry: what it is, and its network by channels of input and output, and settings.

    Of the settings only the network's own count: ``base_channels``, ``fold`` and ``dilation``. The network of a
    ``waveform`` prior maps waveforms, as spectrograms of one bin whose frames are samples.
    """

    summary: str
    build: Callable[[int, int, Settings], PriorNetwork]
    waveform: bool = False


def _unet(summary: str, filters: Blocks, dilations: Blocks | None, **layout: Any) -> Prior:
    """A U-Net; without dilations they are those of the settings throughout."""

    def build(in_channels: int, out_channels: int, settings: Settings) -> PriorNetwork:
        widths = tuple(tuple(each * settings.base_channels for each in block) for block in filters)
        dilated = dilations or ((settings.dilation, settings.dilation),) * len(filters)
        return UNet(UNetLayout(widths, dilated, fold=settings.fold, **layout), in_channels, out_channels)

    return Prior(summary, build)


_harmonic = partial(_unet, filters=_HARMONIC, dilations=((1,),) * 5, kernel=7, harmonic_paper=True)

PRIORS: dict[str, Prior] = {
    "conv": _unet("plain convolutions", _PAPER, ((1, 1),) * 5),
    "dilated": _unet("one constant dilation", _PAPER, None),
    "exp": _unet("dilations that double from layer to layer", _PAPER, _EXPONENTIAL),
    "exp-dense": _unet("exponential dilations and dense blocks", _PAPER, _EXPONENTIAL, dense=True),
    "ddunet": _unet(
        "exp-dense as the authors released it", _RELEASED, _FROM_ONE, dense=True, upsample_conv=True, raw_skip=True
    ),
    "harmonic": _harmonic("harmonic convolutions that mix seven anchors", anchors=(_ANCHORS,)),
    "harmonic-1": _harmonic("harmonic convolutions without anchors", anchors=((1,),)),
    "harmonic-nomix": _harmonic(
        "harmonic convolutions, one anchor for each output", anchors=tuple((each,) for each in _ANCHORS)
    ),
    "conv7": _harmonic("plain 7x7 convolutions"),
    "dilated7": _harmonic("7x7 convolutions of dilation 3", dilations=((3,),) * 5),
    "wave-unet": Prior(
        "convolutions of the waveform",
        lambda in_channels, out_channels, settings: WaveUNet(in_channels, out_channels, settings.base_channels),
        waveform=True,
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
