"""Harmonic convolution.

Zhang et al., "Deep Audio Priors Emerge from Harmonic Convolutional Networks" (ICLR 2020), the Harmonic paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

HARMONICS = 7
TAPS = 7
# Kernels begin with energy 1, so that outputs are as large as those of 7x7 convolutions with the paper's N(0, 0.02).
_KERNEL_STD = 7**-0.5
_MIXING_STD = 0.02 * 7**0.5


class HarmonicConvolution(nn.Module):
    """Convolution over the harmonics of every bin in place of its neighbours.

    Equation 5 of the paper::

        Y[w, t] = sum_n w_n sum_k sum_s X[k w / n, t - s] K[k, s]

    Every anchor n takes w as the n-th harmonic of a fundamental, whose harmonics k = 1 ... 7 are weighted. Rows between
    bins are interpolated linearly, rows out of range are zero. The kernel is factored into ``frequency`` and ``time``,
    one of each for every channel of the input, and a 1x1 convolution mixes anchors and channels: for 35 channels a
    thirtieth of the products that a kernel for every pair of channels takes.

    ``groups`` are the anchors, by the group of output channels that mixes them. ``scale`` bins of the spectrogram, and
    as many frames, were pooled or folded into one: the centre of a bin then lies (1 - 1 / scale) / 2 bins higher, and
    it is the centres that are multiplied.

    Shape: parts whose concatenation is ``[1, in_channels, F, T]`` to ``[1, out_channels, F, T]``.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: Sequence[Sequence[int]], scale: int) -> None:
        super().__init__()
        # Where there are fewer outputs than groups, the last groups have none.
        outputs = [len(range(index, out_channels, len(groups))) for index in range(len(groups))]
        self.groups = nn.ModuleList(
            _Group(in_channels, count, tuple(anchors), scale)
            for anchors, count in zip(groups, outputs, strict=True)
            if count
        )

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """The outputs of all groups."""
        return torch.cat([group(parts) for group in self.groups], dim=1)


class _Group(nn.Module):
    """The outputs that mix the same anchors; tap s in time is ``time[:, 3 - s]``."""

    def __init__(self, in_channels: int, out_channels: int, anchors: tuple[int, ...], scale: int) -> None:
        super().__init__()
        self.anchors, self.scale = anchors, scale
        self.frequency = nn.Parameter(_KERNEL_STD * torch.randn(in_channels, HARMONICS))
        self.time = nn.Parameter(_KERNEL_STD * torch.randn(in_channels, TAPS))
        self.mixing = nn.Linear(in_channels * len(anchors), out_channels)
        nn.init.normal_(self.mixing.weight, std=_MIXING_STD)
        nn.init.zeros_(self.mixing.bias)

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        sizes = [part.shape[1] for part in parts]
        mixing = torch.split(self.mixing.weight, [size * len(self.anchors) for size in sizes], dim=1)
        y = self.mixing.bias[:, None]
        kernels = zip(parts, torch.split(self.frequency, sizes), torch.split(self.time, sizes), mixing, strict=True)
        for x, frequency, time, weight in kernels:
            # A matrix product is the same as a 1x1 convolution, and faster with the frames innermost.
            y = torch.addmm(y, weight, self._gather(x, frequency, time))
        return y.view(1, -1, *parts[0].shape[2:])

    def _gather(self, x: Tensor, frequency: Tensor, time: Tensor) -> Tensor:
        """The sums over k and s for each channel and anchor: ``[1, C, F, T] -> [C * N, F * T]``."""
        _, channels, bins, frames = x.shape
        # In bfloat16 it might crash (see convolve); the meta device has no types to cast to.
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            smooth = F.conv2d(x.to(time.dtype), time[:, None, None], padding=(0, TAPS // 2), groups=channels)
        entries = _interpolation(bins, self.anchors, self.scale, x.device)
        weights = frequency[:, entries.harmonics] * entries.weights.to(frequency.dtype)
        table = smooth.to(x.dtype).reshape(channels * bins, frames)
        y: Tensor = _SumRows.apply(table, weights.to(x.dtype), entries)  # type: ignore[no-untyped-call]
        return y.view(channels * len(self.anchors), bins * frames)


class _Entries(NamedTuple):
    """A sparse matrix of linear interpolation ``[N * F, F]``, by its entries row after row.

    ``starts`` are the numbers of the rows' first entries. ``order`` sorts the entries by column, where the columns'
    first ones are ``column_starts``.
    """

    columns: Tensor
    rows: Tensor
    weights: Tensor
    harmonics: Tensor
    starts: Tensor
    order: Tensor
    column_starts: Tensor


@lru_cache(maxsize=32)
def _interpolation(bins: int, anchors: tuple[int, ...], scale: int, device: torch.device) -> _Entries:
    """The bins from which the rows k w / n are interpolated, for every n and w; ``harmonics`` are k - 1."""
    shift = (1 - 1 / scale) / 2
    centres = torch.arange(bins, dtype=torch.float64)[:, None] + shift
    numbers = torch.arange(1, HARMONICS + 1)
    position = numbers * centres / torch.tensor(anchors)[:, None, None] - shift
    low = position.floor()
    read = torch.stack([low, low + 1], dim=-1)
    weights = torch.stack([low + 1 - position, position - low], dim=-1)
    used = (weights > 0) & (read >= 0) & (read < bins)
    columns = read[used].long()
    rows = torch.arange(len(anchors) * bins).view(-1, bins, 1, 1).expand_as(used)[used]
    harmonics = (numbers - 1)[:, None].expand_as(used)[used]
    starts, column_starts = (
        torch.searchsorted(each, torch.arange(count))
        for each, count in ((rows, len(anchors) * bins), (columns.sort().values, bins))
    )
    found = (columns, rows, weights[used], harmonics, starts, columns.argsort(stable=True), column_starts)
    return _Entries(*(each.to(device) for each in found))


def _repeat(numbers: Tensor, channels: int, total: int) -> Tensor:
    """Indices of one channel, for all that share ``total`` of what is counted."""
    return (numbers + total // channels * torch.arange(channels, device=numbers.device)[:, None]).flatten()


def _sum_rows(x: Tensor, columns: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """The same sparse matrix for each of C channels, with ``weights [C, entries]``, times ``x [C * columns, T]``."""
    channels = len(weights)
    columns, starts = _repeat(columns, channels, len(x)), _repeat(starts, channels, weights.numel())
    return F.embedding_bag(columns, x, starts, mode="sum", per_sample_weights=weights.flatten())


class _SumRows(torch.autograd.Function):
    """Sums of rows; its gradient is that of torch for the weights, and for the rows sums by columns, ten times as fast.

    Shape: ``[C * F, T]`` and weights ``[C, entries]`` to ``[C * N * F, T]``.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, entries: _Entries) -> Tensor:
        ctx.save_for_backward(x, weights)
        ctx.entries = entries
        return _sum_rows(x, entries.columns, entries.starts, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (x, weights), (columns, rows, *_, starts, order, column_starts) = ctx.saved_tensors, ctx.entries
        gradient = gradient.contiguous()
        by_row = _sum_rows(gradient, rows[order], column_starts, weights[:, order])
        lengths = ((columns, len(x)), (starts, weights.numel()), (rows, len(gradient)))
        indices = (_repeat(each, len(weights), total) for each, total in lengths)
        by_weight = torch.ops.aten._embedding_bag_per_sample_weights_backward(gradient, x, *indices, 0)
        return by_row, by_weight.view_as(weights), None
