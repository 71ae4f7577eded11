"""The Wave-U-Net, a prior of waveforms.

Stoller, Ewert, Dixon, "Wave-U-Net: A Multi-Scale Neural Network for End-to-End Audio Source Separation" (ISMIR 2018),
with the six levels and the normalisation that it has as a prior in Michelashvili & Wolf, "Speech Denoising by
Accumulating Per-Frequency Modeling Fluctuations" (2019), from where the Harmonic paper takes it.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dapcli.priors.network import PriorNetwork, convolve

LEVELS = 6
# Taps on the way down, and on the way up.
_DOWN, _UP = 15, 5
_SLOPE = 0.1


class WaveUNet(PriorNetwork):
    """U-Net along time alone: a waveform is a spectrogram of one bin whose frames are samples.

    Shape: ``[1, in_channels, F, N] -> [1, out_channels, F, N]`` for any F and N of at least 1; of rows, only the
    normalisation sees more than one. Every level has ``base_channels`` more filters than the one before it, and every
    second of its samples. The last layer is linear, where the paper has a tanh: peaks may pass full scale.
    """

    def __init__(self, in_channels: int, out_channels: int, base_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        filters = [base_channels * level for level in range(1, LEVELS + 1)]
        self.down = nn.ModuleList(
            map(_layer, (in_channels, *filters), (*filters, filters[-1]), (_DOWN,) * (LEVELS + 1))
        )
        inputs = [2 * filters[-1], *(one + other for one, other in zip(filters[:0:-1], filters[-2::-1], strict=True))]
        self.up = nn.ModuleList(map(_layer, inputs, filters[::-1], (_UP,) * LEVELS))
        self.head = nn.Conv2d(filters[0] + in_channels, out_channels, 1)

    def zero_output(self) -> None:
        """Set the last convolution to zero."""
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def receptive_field(self) -> tuple[float, float]:
        """One row, and so many samples: those of the worst place on the coarsest grid."""
        return 1, max(map(_reach, range(2**LEVELS)))

    def forward(self, z: Tensor) -> Tensor:
        """Map ``[1, in_channels, F, N]`` to ``[1, out_channels, F, N]``."""
        length, step = z.shape[-1], 2**LEVELS
        x = z = F.pad(z, (0, max(-(-length // step), 2) * step - length))
        skips: list[Tensor] = []
        for level, convolution in enumerate(self.down):
            x = _activate(convolve(convolution, [x]))
            if level < LEVELS:
                skips.append(x)
                x = x[..., ::2]
        for convolution in self.up:
            # Between samples, linear; a bilinear kernel would mix the rows.
            x = F.interpolate(x, scale_factor=(1, 2), mode="bilinear", align_corners=False)
            x = _activate(convolve(convolution, [x, skips.pop()]))
        return convolve(self.head, [x, z])[..., :length]


def _reach(position: int) -> int:
    """Length of the stretch of the input that the output sample at ``position`` depends on."""
    low = high = position
    skips: list[tuple[int, int]] = []
    for _ in range(LEVELS):
        low, high = low - _UP // 2, high + _UP // 2
        skips.append((low, high))
        low, high = (low - 1) // 2, (high + 1) // 2  # of the two nearest samples
    low, high = low - _DOWN // 2, high + _DOWN // 2
    for skip in reversed(skips):
        low, high = min(2 * low, skip[0]) - _DOWN // 2, max(2 * high, skip[1]) + _DOWN // 2
    return high - low + 1


def _layer(in_channels: int, out_channels: int, taps: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, (1, taps), padding=(0, taps // 2))


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(F.batch_norm(x, None, None, training=True), _SLOPE)
