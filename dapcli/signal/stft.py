"""The short-time Fourier transform on which every prior works, and its inverse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

#: Functions of the length; the Harmonic paper has a box.
WINDOWS: dict[str, Callable[[int], Tensor]] = {"hann": torch.hann_window, "box": torch.ones}


@dataclass(frozen=True)
class STFT:
    """A complex STFT, as real and imaginary planes.

    ``n_fft`` is the length of the ``window``, one of :data:`WINDOWS`, and ``hop`` the distance of frames, in samples.
    The forward and the inverse use the same ``n_fft``, so that the round trip is exact (the Design paper's released
    script takes 1023 forward and 1022 back, which alone limits it to 20.6 dB). Samples beyond the ends count as zero.
    """

    n_fft: int
    hop: int
    window: str = "hann"

    @classmethod
    def for_rate(cls, rate: int, window_s: float, hop_s: float, window: str = "hann") -> STFT:
        """The STFT with a window and a hop given in seconds at ``rate`` Hz; ``n_fft`` is even, as its inverse needs."""
        hop = max(1, round(hop_s * rate))
        return cls(max(2 * round(window_s * rate / 2), 2 * hop, 8), hop, window)

    @cached_property
    def white_gain(self) -> float:
        """Mean square of either plane of the spectrogram of white noise with variance 1: half the window's energy."""
        return float(_window(self.window, self.n_fft, torch.device("cpu"), torch.float64).square().sum()) / 2

    def forward(self, samples: Tensor) -> Tensor:
        """Spectrogram of samples: ``[..., N] -> [..., 2, F, T]`` with F = n_fft / 2 + 1, real part first."""
        window = _window(self.window, self.n_fft, samples.device, samples.dtype)
        flat = samples.reshape(-1, samples.shape[-1])
        spectrum = torch.stft(
            flat, self.n_fft, self.hop, window=window, center=True, pad_mode="constant", return_complex=True
        )
        planes = torch.stack([spectrum.real, spectrum.imag], dim=1)
        return planes.reshape(*samples.shape[:-1], *planes.shape[1:])

    def touched(self, flags: Tensor) -> Tensor:
        """Frames that depend on a flagged sample: flags ``[C, N]`` to flags ``[C, T]``."""
        window = (_window(self.window, self.n_fft, flags.device, torch.float32) != 0).float()
        padded = F.pad(flags.float(), (self.n_fft // 2, self.n_fft // 2))
        return F.conv1d(padded[:, None], window[None, None], stride=self.hop)[:, 0] > 0

    def inverse(self, spectrogram: Tensor, length: int) -> Tensor:
        """Samples of a spectrogram: ``[..., 2, F, T] -> [..., length]``."""
        window = _window(self.window, self.n_fft, spectrogram.device, spectrogram.dtype)
        flat = torch.complex(*spectrogram.unbind(dim=-3)).reshape(-1, *spectrogram.shape[-2:])
        samples = torch.istft(flat, self.n_fft, self.hop, window=window, center=True, length=length)
        return samples.reshape(*spectrogram.shape[:-3], length)


@lru_cache(maxsize=8)
def _window(name: str, n_fft: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The window on its device."""
    return WINDOWS[name](n_fft).to(device, dtype)
