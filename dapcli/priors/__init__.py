"""The priors: untrained networks, each by the name that the command line knows.

To add one, write a function from :class:`PriorSize` to a network and give it a line in :data:`PRIORS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from dapcli.errors import SettingsError
from dapcli.priors.unet import UNet, UNetLayout

#: Filters of the first convolution in the Design paper; all others are its multiples by 2 and 4.
PAPER_WIDTH = 35
#: Dilation of every convolution of the ``dilated`` prior; the paper names none, its released code takes 4.
DEFAULT_DILATION = 4

_EXPONENTIAL = ((2, 4), (8, 16), (32, 32), (16, 8), (4, 2))


@dataclass(frozen=True)
class Prior:
    """One entry of the registry: what it is, and its layout as a function of width and dilation."""

    summary: str
    layout: Callable[[int, int], UNetLayout]


def _paper_filters(width: int) -> tuple[tuple[int, ...], ...]:
    w = width
    return ((w, 2 * w), (2 * w, 4 * w), (2 * w, 2 * w), (4 * w, 2 * w), (2 * w, w))


def _released_filters(width: int) -> tuple[tuple[int, ...], ...]:
    return tuple((k * width, k * width) for k in (1, 2, 4, 2, 1))


def _constant(dilation: int) -> tuple[tuple[int, ...], ...]:
    return ((dilation, dilation),) * 5


PRIORS: dict[str, Prior] = {
    "conv": Prior("plain convolutions", lambda w, _: UNetLayout(_paper_filters(w), _constant(1))),
    "dilated": Prior("one constant dilation", lambda w, d: UNetLayout(_paper_filters(w), _constant(d))),
    "exp": Prior("dilations that double from layer to layer", lambda w, _: UNetLayout(_paper_filters(w), _EXPONENTIAL)),
    "exp-dense": Prior(
        "exponential dilations and dense blocks", lambda w, _: UNetLayout(_paper_filters(w), _EXPONENTIAL, dense=True)
    ),
    "ddunet": Prior(
        "exp-dense as the authors released it",
        lambda w, _: UNetLayout(
            _released_filters(w),
            ((1, 2), (4, 8), (16, 32), (32, 16), (8, 4)),
            dense=True,
            upsample_conv=True,
            raw_skip=True,
        ),
    ),
}


def prior_layout(name: str, *, width: int = PAPER_WIDTH, dilation: int = DEFAULT_DILATION, fold: int = 1) -> UNetLayout:
    """The layout of a registered prior.

    Raises:
        SettingsError: No prior has this name, or a number is below 1.
    """
    if name not in PRIORS:
        raise SettingsError(f"unknown prior {name!r}; choose one of {', '.join(PRIORS)}")
    if min(width, dilation, fold) < 1:
        raise SettingsError("width, dilation and fold must be at least 1")
    return replace(PRIORS[name].layout(width, dilation), fold=fold)


def build_prior(
    name: str,
    in_channels: int,
    out_channels: int,
    *,
    width: int = PAPER_WIDTH,
    dilation: int = DEFAULT_DILATION,
    fold: int = 1,
) -> UNet:
    """An untrained network of a registered prior, ``[1, in_channels, F, T] -> [1, out_channels, F, T]``.

    Its weights are drawn from torch's global generator. Raises as :func:`prior_layout`.
    """
    return UNet(prior_layout(name, width=width, dilation=dilation, fold=fold), in_channels, out_channels)
