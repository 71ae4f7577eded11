"""Estimates that are shifted or inverted against their reference are told from those that are not."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest

from dapcli.metrics import alignment, describe_alignment
from tests.signals import RATE, Samples, noise, tone


def sound(seconds: float = 1.0, seed: int = 0) -> Samples:
    """Noise of low frequencies that comes and goes."""
    white = noise(1, round(seconds * RATE), seed=seed)[0]
    low = np.convolve(white, np.hanning(9), "same")
    return np.asarray(low * np.sin(np.arange(len(low)) / 700))[None]


def shifted(samples: Samples, lag: int) -> Samples:
    """Samples that are late by a lag, with zeros where nothing is known of them."""
    result = np.roll(samples, lag, axis=1)
    result[:, slice(0, lag) if lag > 0 else slice(lag or len(result[0]), None)] = 0
    return result


@pytest.mark.parametrize("snr_db", [0, 20])
@pytest.mark.parametrize(
    ("lag", "sign", "expected"),
    [
        (5, 1, "looks 5 samples (0.625 ms) late"),
        (1_006, 1, "looks 1006 samples (125.8 ms) late"),
        (-401, 1, "looks 401 samples (50.12 ms) early"),
        (1_006, -1, "looks 1006 samples (125.8 ms) late and inverted"),
        (0, -1, "looks inverted"),
    ],
)
def test_lag_and_sign_are_found_at_any_level_in_noise(lag: int, sign: int, expected: str, snr_db: float) -> None:
    clean = sound()
    errors = noise(*clean.shape, std=10 ** (-snr_db / 20) * float(clean.std()), seed=1)
    estimate = 1e-3 * (sign * shifted(clean, lag) + errors + 0.5)
    assert (describe_alignment(clean + 0.5, estimate, RATE) or "").startswith(f"{expected} against")


def test_one_sample_is_found_where_little_else_is_wrong() -> None:
    assert (describe_alignment(sound(), shifted(sound(), 1), RATE) or "").startswith("looks 1 sample (0.125 ms) late ")


@pytest.mark.parametrize(
    "estimate",
    [
        sound(),
        sound() + noise(1, RATE, std=float(sound().std()), seed=1),
        noise(1, RATE, seed=2),
        sound(seed=3),
        np.zeros((1, RATE)),
        np.ones((1, RATE)),
        0.2 * sound() + shifted(sound(seed=4), 100),
    ],
    ids=["itself", "in noise", "noise", "another", "silence", "constant", "beside another"],
)
def test_nothing_is_said_of_what_is_aligned_or_something_else(estimate: Samples) -> None:
    assert describe_alignment(sound(), estimate, RATE) is None


@pytest.mark.parametrize("lag", [3, 9, 100, 1_000])
def test_the_lag_of_a_steady_tone_is_not_told(lag: int) -> None:
    clean = tone(440, 1.1) + tone(880, 1.1)
    assert describe_alignment(clean[:, :RATE], clean[:, lag : RATE + lag], RATE) is None


def test_channels_that_differ_are_named() -> None:
    clean = np.concatenate([sound(), sound(seed=1), noise(1, RATE)])
    estimate = np.concatenate([clean[:1], -clean[1:2], noise(1, RATE, seed=5)])
    assert (describe_alignment(clean, estimate, RATE) or "").startswith("channel 2 looks inverted against")
    assert (describe_alignment(clean[:2], -clean[:2], RATE) or "").startswith("looks inverted against")


def test_the_loudest_stretch_of_a_long_recording_is_enough() -> None:
    clean = np.concatenate([1e-3 * noise(1, RATE), sound(), np.zeros((1, RATE // 2))], axis=1)
    with patch.object(alignment, "_LONGEST", RATE // 2):
        assert (describe_alignment(clean, shifted(clean, 50), RATE) or "").startswith("looks 50 samples ")
        assert describe_alignment(clean, clean, RATE) is None


def test_few_samples_are_no_trouble() -> None:
    for length in (1, 2):
        assert describe_alignment(np.ones((1, length)), -np.ones((1, length)), RATE) is None
