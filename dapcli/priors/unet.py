"""The U-Net of the Design paper (Narayanaswamy, Thiagarajan, Spanias 2021), in all its variants.

One configurable network expresses the paper's four priors and the network that its authors released.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from dapcli.priors.network import PriorNetwork, convolve


@dataclass(frozen=True)
class UNetLayout:
    """The layout of a U-Net whose resolution halves after every down block.

    ``filters`` and ``dilations`` hold one entry per block (down blocks, bottleneck, up blocks), each with one
    number per 3x3 convolution. ``dense`` lets every convolution of a block see the concatenation of all before
    it, closed by one 1x1 transition. ``upsample_conv`` puts a 3x3 convolution after each upsampling, and
    ``raw_skip`` takes the skip connection from before the transition; the released code does both, the text of
    the paper neither. ``fold`` bins and as many frames are folded into channels before the first convolution, and
    unfolded after the last: a quarter of the work where it is 2.

    Raises ``ValueError`` when the two tables do not match or do not describe a symmetric U-Net.
    """

    filters: tuple[tuple[int, ...], ...]
    dilations: tuple[tuple[int, ...], ...]
    dense: bool = False
    upsample_conv: bool = False
    raw_skip: bool = False
    fold: int = 1

    def __post_init__(self) -> None:
        if len(self.filters) % 2 == 0:
            raise ValueError("a U-Net has as many up blocks as down blocks and one bottleneck between them")
        if [len(block) for block in self.filters] != [len(block) for block in self.dilations]:
            raise ValueError("filters and dilations must name the same convolutions")

    @property
    def depth(self) -> int:
        """Number of down blocks, and of halvings of the resolution."""
        return len(self.filters) // 2

    def receptive_field(self) -> int:
        """Extent in bins (or frames) of the input that one output bin can depend on, the network's borders aside.

        Found by following an interval back through the network, for the worst position on the coarsest grid.
        Normalisation, which lets every bin depend a little on all, is left out.
        """
        return self.fold * max(self._reach(position) for position in range(2**self.depth))

    def _reach(self, position: int) -> int:
        """Length of the interval of input bins that the output bin at ``position`` depends on."""
        low = high = position
        skips: list[tuple[int, int]] = []
        for dilations in reversed(self.dilations[self.depth + 1 :]):
            low, high = low - sum(dilations), high + sum(dilations)
            skips.append((low, high))
            if self.upsample_conv:
                low, high = low - 1, high + 1
            # Bilinear upsampling mixes the two nearest bins of the coarser grid.
            low, high = (low - 1) // 2, (high + 1) // 2
        for index in range(self.depth, -1, -1):
            if index < self.depth:
                # Max pooling reads two bins; the skip connection of this level may reach further.
                low, high = min(2 * low, skips[-1][0]), max(2 * high + 1, skips.pop()[1])
            low, high = low - sum(self.dilations[index]), high + sum(self.dilations[index])
        return high - low + 1


class ConvBlock(nn.Module):
    """Consecutive 3x3 convolutions, plain or densely connected.

    Shape: parts whose concatenation is ``[1, in_channels, F, T]`` to ``[1, out_channels, F, T]``. Returns the block's
    output and, as parts, what a skip connection may take from before the transition (the output in a plain block).
    """

    def __init__(
        self, in_channels: int, filters: Sequence[int], dilations: Sequence[int], *, dense: bool, normalise: bool
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.convolutions = nn.ModuleList()
        channels = in_channels
        for width, dilation in zip(filters, dilations, strict=True):
            self.convolutions.append(nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation))
            channels = channels + width if dense else width
        self.raw_channels = channels
        self.transition = nn.Conv2d(channels, filters[-1], 1) if dense else None
        self.out_channels = filters[-1]

    def forward(self, parts: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The block's output, and the parts from before the transition."""
        y = parts[0]
        for convolution in self.convolutions:
            y = convolve(convolution, parts)
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
    path it would tie the level of every channel to its mean over the whole clip, and costs 3 dB.
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
        for filters, dilations in blocks[: depth + 1]:
            block = ConvBlock(channels, filters, dilations, dense=layout.dense, normalise=True)
            self.down.append(block)
            channels = block.out_channels
            skips.append(block.raw_channels if layout.raw_skip else block.out_channels)

        self.up = nn.ModuleList()
        self.upsample = nn.ModuleList()
        for (filters, dilations), skip in zip(blocks[depth + 1 :], reversed(skips[:-1]), strict=True):
            if layout.upsample_conv:
                self.upsample.append(nn.Conv2d(channels, filters[-1], 3, padding=1))
                channels = filters[-1]
            else:
                self.upsample.append(nn.Identity())
            block = ConvBlock(channels + skip, filters, dilations, dense=layout.dense, normalise=False)
            self.up.append(block)
            channels = block.out_channels
        self.head = nn.Conv2d(channels, out_channels * layout.fold**2, 1)

    def zero_output(self) -> None:
        """Set the last convolution to zero."""
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def receptive_field(self) -> int:
        """That of the layout."""
        return self.layout.receptive_field()

    def forward(self, z: Tensor) -> Tensor:
        """Map ``[1, in_channels, F, T]`` to ``[1, out_channels, F, T]``."""
        height, width = z.shape[-2:]
        fold = self.layout.fold
        step = fold * 2**self.layout.depth
        padded_height, padded_width = (max(-(-size // step), 2) * step for size in (height, width))
        x = F.pixel_unshuffle(F.pad(z, (0, padded_width - width, 0, padded_height - height)), fold)
        skips: list[list[Tensor]] = []
        for level, block in enumerate(self.down):
            if level:
                x = F.max_pool2d(x, 2)
            x, raw = block([x])
            skips.append(raw if self.layout.raw_skip else [x])
        skips.pop()
        for upsample, block in zip(self.upsample, self.up, strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            if isinstance(upsample, nn.Conv2d):
                x = convolve(upsample, [x])
            x, _ = block([x, *skips.pop()])
        return F.pixel_shuffle(convolve(self.head, [x]), fold)[..., :height, :width]
