"""The STFT: exact inverse, known answers, scaling with the rate."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dapcli.signal.stft import STFT, WINDOWS
from dapcli.tasks import TASKS


@given(
    length=st.integers(2, 3000),
    leading=st.lists(st.integers(1, 3), max_size=3),
    n_fft=st.integers(4, 200).map(lambda half: 2 * half),
    ratio=st.sampled_from([2, 4, 8, 16]),
    window=st.sampled_from([*WINDOWS]),
)
@settings(max_examples=60, deadline=None)
def test_round_trip_is_exact_for_any_leading_dimensions(
    length: int, leading: list[int], n_fft: int, ratio: int, window: str
) -> None:
    stft = STFT(n_fft, max(1, n_fft // ratio), window)
    samples = torch.randn(*leading, length, dtype=torch.float64)
    spectrogram = stft.forward(samples)
    assert spectrogram.shape[:-1] == (*leading, 2, n_fft // 2 + 1)
    torch.testing.assert_close(stft.inverse(spectrogram, length), samples, rtol=0, atol=1e-10)


def test_paper_setting_at_its_own_rate() -> None:
    paper = TASKS["denoise"].presets["paper"]
    stft = STFT.for_rate(16_000, paper.window, paper.hop)
    assert stft.forward(torch.zeros(1, 16_000)).shape == (1, 2, 512, 251)


@given(st.integers(8_000, 192_000))
def test_window_and_hop_keep_their_length_in_seconds(rate: int) -> None:
    stft = STFT.for_rate(rate, 0.064, 0.008)
    assert stft.n_fft % 2 == 0
    assert (stft.n_fft / rate, stft.hop / rate) == pytest.approx((0.064, 0.008), abs=1 / rate)


def test_a_tone_is_in_its_bin() -> None:
    tone = torch.cos(2 * math.pi * 32 / 256 * torch.arange(4096))
    power = STFT(256, 64).forward(tone).square().sum(dim=0)
    assert (power[:, 4:-4].argmax(dim=0) == 32).all()


@pytest.mark.parametrize("window", WINDOWS)
def test_white_noise_has_the_announced_power(window: str) -> None:
    stft = STFT(128, 32, window)
    noise = torch.randn(1, 200_000, generator=torch.Generator().manual_seed(0))
    assert float(stft.forward(noise)[..., 4:-4].square().mean()) == pytest.approx(stft.white_gain, rel=0.02)
