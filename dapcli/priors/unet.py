"""The U-Net of the Design paper (Narayanaswamy, Thiagarajan, Spanias 2021), in all its variants.

One configurable network expresses the paper's four priors, the network that its authors released, and those of the
Harmonic paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from dapcli.priors.harmonic import HarmonicConvolution
from dapcli.priors.network import PriorNetwork, convolve

# Standard deviation of the weights that the Harmonic paper starts from.
_WEIGHT_STD = 0.02


@dataclass(frozen=True)
class UNetLayout:
    """The layout of a U-Net whose resolution halves after every down block.

    ``filters`` and ``dilations`` hold one entry per block (down blocks, bottleneck, up blocks), each with one
    number per convolution, whose kernels have ``kernel`` bins and frames. ``dense`` lets every convolution of a
    block see the concatenation of all before it, closed by one 1x1 transition. ``upsample_conv`` puts a 3x3
    convolution after each upsampling, and ``raw_skip`` takes the skip connection from before the transition; the
    released code does both, the text of the paper neither. ``fold`` bins and as many frames are folded into channels
    before the first convolution, and unfolded after the last: a quarter of the work where it is 2. ``anchors``, in
    groups, make the convolutions harmonic (see :class:`~dapcli.priors.harmonic.HarmonicConvolution`).
    ``harmonic_paper`` takes from that paper its average pooling, in place of the maximum, and its first weights.

    Raises ``ValueError`` when the two tables do not match or do not describe a symmetric U-Net.
    """

    filters: tuple[tuple[int, ...], ...]
    dilations: tuple[tuple[int, ...], ...]
    dense: bool = False
    upsample_conv: bool = False
    raw_skip: bool = False
    fold: int = 1
    kernel: int = 3
    anchors: tuple[tuple[int, ...], ...] = ()
    harmonic_paper: bool = False

    def __post_init__(self) -> None:
        if len(self.filters) % 2 == 0:
            raise ValueError("a U-Net has as many up blocks as down blocks and one bottleneck between them")
        if [len(block) for block in self.filters] != [len(block) for block in self.dilations]:
            raise ValueError("filters and dilations must name the same convolutions")

    @property
    def depth(self) -> int:
        """Number of down blocks, and of halvings of the resolution."""
        return len(self.filters) // 2

    def convolution(self, in_channels: int, out_channels: int, dilation: int, level: int) -> nn.Module:
        """One convolution of a block, between ``level`` halvings of the resolution."""
        if self.anchors:
            return HarmonicConvolution(in_channels, out_channels, self.anchors, self.fold * 2**level)
        padding = dilation * (self.kernel // 2)
        return nn.Conv2d(in_channels, out_channels, self.kernel, padding=padding, dilation=dilation)

    def receptive_field(self) -> tuple[float, float]:
        """Extent in bins and frames of the input that one output bin can depend on, the network's borders aside.

        Harmonic convolutions reach all bins, whose number is not known here: infinity stands for it. The rest is found
        by following an interval back through the network, for the worst position on the coarsest grid.
        Normalisation, which lets every bin depend a little on all, is left out.
        """
        frames = self.fold * max(self._reach(position) for position in range(2**self.depth))
        return math.inf if self.anchors else frames, frames

    def _reach(self, position: int) -> int:
        """Length of the interval of input bins that the output bin at ``position`` depends on."""
        low = high = position
        side = self.kernel // 2
        skips: list[tuple[int, int]] = []
        for dilations in reversed(self.dilations[self.depth + 1 :]):
            low, high = low - side * sum(dilations), high + side * sum(dilations)
            skips.append((low, high))
            if self.upsample_conv:
                low, high = low - 1, high + 1
            # Bilinear upsampling mixes the two nearest bins of the coarser grid.
            low, high = (low - 1) // 2, (high + 1) // 2
        for index in range(self.depth, -1, -1):
            if index < self.depth:
                # Pooling reads two bins; the skip connection of this level may reach further.
                low, high = min(2 * low, skips[-1][0]), max(2 * high + 1, skips.pop()[1])
            reach = side * sum(self.dilations[index])
            low, high = low - reach, high + reach
        return high - low + 1


class ConvBlock(nn.Module):
    """Consecutive convolutions, plain or densely connected, each made of channels in and out and its dilation.

    Shape: parts whose concatenation is ``[1, in_channels, F, T]`` to ``[1, out_channels, F, T]``. Returns the block's
    output and, as parts, what a skip connection may take from before the transition (the output in a plain block).
    """

    def __init__(
        self,
        in_channels: int,
        filters: Sequence[int],
        dilations: Sequence[int],
        make: Callable[[int, int, int], nn.Module],
        *,
        dense: bool,
        normalise: bool,
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.convolutions = nn.ModuleList()
        channels = in_channels
        for width, dilation in zip(filters, dilations, strict=True):
            self.convolutions.append(make(channels, width, dilation))
            channels = channels + width if dense else width
        self.raw_channels = channels
        self.transition = nn.Conv2d(channels, filters[-1], 1) if dense else None
        self.out_channels = filters[-1]

    def forward(self, parts: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The block's output, and the parts from before the transition."""
        y = parts[0]
        for convolution in self.convolutions:
            y = convolution(parts) if isinstance(convolution, HarmonicConvolution) else convolve(convolution, parts)
            if self.normalise:
                y = F.batch_norm(y, None, None, training=True)
            y = F.relu(y)
            parts = [y] if self.transition is None else [y, *parts]
        return (y if self.transition is None else convolve(self.transition, parts)), parts


class UNet(PriorNetwork):
    """U-Net from an input of noise to a spectrogram.

    Shape: ``[1, in_channels, F, T] -> [1, out_channels, F, T]`` for any F and T of at least 1: the input is
    padded with zeros to a multiple of ``2**depth`` and the output cropped. One recording at a time, so that
    instance normalisation is batch normalisation over a batch of one, which runs without copies on CPUs.

    Instance normalisation stands in the down path and the bottleneck only, as in the released code: in the up
    path it would tie the level of every channel to its mean over the whole clip, and costs 3 dB (in the networks of
    the Harmonic paper 1.4 dB for ``mask``).
    """

    def __init__(self, layout: UNetLayout, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layout = layout
        self.in_channels = in_channels
        depth = layout.depth
        blocks = list(zip(layout.filters, layout.dilations, strict=True))

        self.down = nn.ModuleList()
        channels = in_channels * layout.fold**2
        skips: list[int] = []
        for level, (filters, dilations) in enumerate(blocks[: depth + 1]):
            make = partial(layout.convolution, level=level)
            block = ConvBlock(channels, filters, dilations, make, dense=layout.dense, normalise=True)
            self.down.append(block)
            channels = block.out_channels
            skips.append(block.raw_channels if layout.raw_skip else block.out_channels)

        self.up = nn.ModuleList()
        self.upsample = nn.ModuleList()
        for level, skip in reversed([*enumerate(skips[:-1])]):
            filters, dilations = blocks[-1 - level]
            if layout.upsample_conv:
                self.upsample.append(nn.Conv2d(channels, filters[-1], 3, padding=1))
                channels = filters[-1]
            else:
                self.upsample.append(nn.Identity())
            make = partial(layout.convolution, level=level)
            block = ConvBlock(channels + skip, filters, dilations, make, dense=layout.dense, normalise=False)
            self.up.append(block)
            channels = block.out_channels
        self.head = nn.Conv2d(channels, out_channels * layout.fold**2, 1)
        if layout.harmonic_paper:
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.normal_(module.weight, std=_WEIGHT_STD)
                    nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def zero_output(self) -> None:
        """Set the last convolution to zero."""
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def receptive_field(self) -> tuple[float, float]:
        """That of the layout."""
        return self.layout.receptive_field()

    def forward(self, z: Tensor) -> Tensor:
        """Map ``[1, in_channels, F, T]`` to ``[1, out_channels, F, T]``."""
        height, width = z.shape[-2:]
        fold = self.layout.fold
        step = fold * 2**self.layout.depth
        padded_height, padded_width = (max(-(-size // step), 2) * step for size in (height, width))
        x = F.pixel_unshuffle(F.pad(z, (0, padded_width - width, 0, padded_height - height)), fold)
        pool = F.avg_pool2d if self.layout.harmonic_paper else F.max_pool2d
        skips: list[list[Tensor]] = []
        for level, block in enumerate(self.down):
            if level:
                x = pool(x, 2)
            x, raw = block([x])
            skips.append(raw if self.layout.raw_skip else [x])
        skips.pop()
        for upsample, block in zip(self.upsample, self.up, strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            if isinstance(upsample, nn.Conv2d):
                x = convolve(upsample, [x])
            x, _ = block([x, *skips.pop()])
        return F.pixel_shuffle(convolve(self.head, [x]), fold)[..., :height, :width]
