"""Clipping: what is consistent with it, training_pairs whose truth is known, and levels that are detected or given."""

from __future__ import annotations

import math
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dapcli.audio import Audio, open_audio, recording
from dapcli.errors import DapError, InputError, SettingsError
from dapcli.metrics.waveform import snr_db
from dapcli.signal.degradation import ROUNDING
from dapcli.signal.clipping import Clipping, clipping_at, detect_clipping
from dapcli.signal.degradation import Degradation

Samples = NDArray[np.float64]

RATE = 8_000
INF = math.inf
UNEVEN = Clipping((-0.3, -INF), (0.4, 0.25))


def music(seconds: float = 1.0, channels: int = 1) -> Samples:
    """Decaying harmonics and a little noise, which differ between channels, with a peak below 1."""
    t = np.arange(round(seconds * RATE)) / RATE
    rows = [
        sum(0.4 / k * np.sin(2 * np.pi * pitch * k * t + k) for k in range(1, 6))
        for pitch in (220, 330, 277)[:channels]
    ]
    noise = 0.002 * np.random.default_rng(0).standard_normal((channels, len(t)))
    return np.asarray(np.stack(rows) * np.exp(-(t % 0.5)) + noise)


def in_16_bits(samples: Samples) -> Samples:
    return np.asarray(np.floor(samples * 2**15) / 2**15)


pairs = st.lists(st.tuples(st.floats(-1, 1), st.floats(-2, 2)), min_size=1, max_size=40).map(
    lambda some: np.tile(np.array(some).T[:, None], (1, 2, 1))
)


# Consistency


@given(pairs)
def test_projection_gives_the_nearest_consistent_estimate(pair: Samples) -> None:
    samples, estimate = UNEVEN.clip(pair[0]), pair[1]
    projected = UNEVEN.project(estimate, samples)
    np.testing.assert_array_equal(UNEVEN.clip(projected), samples)
    np.testing.assert_array_equal(UNEVEN.project(projected, samples), projected)
    np.testing.assert_array_equal(UNEVEN.project(samples, samples), samples)
    reliable = ~UNEVEN.clipped(samples)
    np.testing.assert_array_equal(projected[reliable], samples[reliable])
    consistent = UNEVEN.clip(estimate) == samples
    np.testing.assert_array_equal(projected[consistent], estimate[consistent])
    assert np.abs(projected - UNEVEN.project(projected, samples)).max() <= ROUNDING


@given(pairs, st.sampled_from([torch.float32, torch.float64]))
def test_the_misfit_is_the_squared_distance_to_what_is_consistent(pair: Samples, dtype: torch.dtype) -> None:
    samples = UNEVEN.clip(pair[0])
    projected = UNEVEN.project(pair[1], samples)
    estimate = torch.tensor(pair[1], dtype=dtype, requires_grad=True)
    data_fidelity = UNEVEN.data_fidelity(estimate, torch.tensor(samples, dtype=dtype))
    data_fidelity.backward()  # type: ignore[no-untyped-call]
    assert data_fidelity.item() == pytest.approx(np.mean((pair[1] - projected) ** 2), abs=1e-6)
    expected = 2 * (pair[1] - projected) / projected.size
    assert estimate.grad is not None
    np.testing.assert_allclose(estimate.grad.numpy(), expected, rtol=0, atol=1e-6)
    assert UNEVEN.data_fidelity(torch.tensor(projected, dtype=dtype), torch.tensor(samples, dtype=dtype)) == 0


def test_only_samples_at_a_level_need_anything() -> None:
    assert UNEVEN.affects(np.array([[0.0, 0.4], [0.0, 0.0]]))
    assert UNEVEN.affects(np.array([[0.0, 0.0], [0.0, 0.25]]))
    assert not UNEVEN.affects(np.array([[0.39, -0.29], [-2.0, 0.24]]))
    assert not UNEVEN.affects(np.zeros((2, 0)))


def test_a_part_of_a_clipped_recording_is_clipped_alike() -> None:
    degradation: Degradation = UNEVEN
    assert degradation.part(5, 9) == UNEVEN


@pytest.mark.parametrize(("low", "high"), [((0.1,), (0.5,)), ((-0.1,), (0.0,)), ((-0.1,), (math.nan,))])
def test_levels_that_are_not_around_zero_cannot_be(low: tuple[float, ...], high: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="levels"):
        Clipping(low, high)


# Restoration


def test_candidates_are_consistent_and_nearer_to_the_truth() -> None:
    clean = music(channels=2)
    samples = UNEVEN.clip(clean)
    candidates = UNEVEN.candidates(samples, RATE)
    assert candidates.shape == (2, 2, RATE)
    for candidate in candidates:
        assert np.abs(candidate - UNEVEN.project(candidate, samples)).max() <= ROUNDING
        np.testing.assert_array_equal(UNEVEN.clip(candidate), samples)
        for channel in range(2):
            before, after = (snr_db(clean[[channel]], what[[channel]], RATE) for what in (samples, candidate))
            assert after > before + 8


def test_exercises_are_clipped_harder_and_know_the_truth() -> None:
    samples = UNEVEN.clip(music(0.5, channels=2))
    candidates = UNEVEN.candidates(samples, RATE)
    training_pairs = UNEVEN.training_pairs(samples, candidates, RATE, seed=0)
    assert len(training_pairs) == 2
    fewest = UNEVEN.clipped(samples)
    for training_pair in training_pairs:
        np.testing.assert_array_equal(training_pair.truth, candidates[0])
        assert training_pair.candidates.shape == candidates.shape
        for candidate in training_pair.candidates:
            np.testing.assert_array_equal(candidate[~training_pair.scored], training_pair.truth[~training_pair.scored])
            # Consistent: as far from zero, where the truth was taken away, as the truth is at the least.
            assert (np.sign(candidate) == np.sign(training_pair.truth))[training_pair.scored].all()
        assert (training_pair.scored >= fewest).all()
        assert training_pair.scored.sum() > fewest.sum()
        fewest = training_pair.scored


def test_an_exercise_at_the_same_level_would_teach_nothing() -> None:
    samples = UNEVEN.clip(music(0.25, channels=2))
    candidates = UNEVEN.candidates(samples, RATE)
    np.testing.assert_array_equal(UNEVEN.clip(candidates[0]), samples)


@pytest.mark.parametrize("length", [1, 2, 50])
def test_recordings_of_few_samples_are_restored(length: int) -> None:
    samples = UNEVEN.clip(np.full((2, length), 0.7))
    candidates = UNEVEN.candidates(samples, RATE)
    assert np.isfinite(candidates).all()
    assert (candidates >= samples).all()
    for training_pair in UNEVEN.training_pairs(samples, candidates, RATE, seed=0):
        assert np.isfinite(training_pair.candidates).all()
        assert training_pair.scored.all()


# Detection


@pytest.mark.parametrize("level", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_levels_are_found_in_files(subtype: str, level: float, tmp_path: Path) -> None:
    path = tmp_path / "clipped.wav"
    soundfile.write(path, music().clip(-level, level).T, RATE, subtype=subtype)
    with open_audio(path) as file:
        found = detect_clipping(file)
        samples = file.read(0, file.length)
    assert found is not None
    assert found.high[0] == pytest.approx(level, abs=1e-4)
    assert found.low[0] == pytest.approx(-level, abs=1e-4)
    flagged, clipped = found.clipped(samples), np.abs(music()) >= level
    assert flagged[clipped].all()
    # A peak that has only just escaped cannot be told from the others.
    assert flagged.sum() <= clipped.sum() + 3


def test_levels_are_found_for_every_channel_and_sign() -> None:
    clean = music(channels=3)
    high = np.array([[0.4], [INF], [INF]])
    low = np.array([[-INF], [-0.2], [-INF]])
    found = detect_clipping(Audio(np.clip(clean, low, high), RATE))
    assert found == Clipping((-INF, -0.2, -INF), (0.4, INF, INF))


@pytest.mark.parametrize("decimals", ["none", "16 bits", "8 bits"])
def test_what_was_not_clipped_is_not_called_so(decimals: str) -> None:
    t = np.arange(4 * RATE) / RATE
    noise = np.random.default_rng(1).standard_normal(len(t))
    for signal in (music()[0], 0.2 * noise, 0.9 * np.sin(2 * np.pi * 30.1 * t), np.tanh(3 * music(4.0)[0])):
        samples = signal[None]
        if decimals != "none":
            scale = 2.0 ** (int(decimals.split()[0]) - 1)
            samples = np.round(samples * scale) / scale
        assert detect_clipping(Audio(samples, RATE)) is None


@pytest.mark.parametrize("samples", [np.zeros((2, 500)), np.full((1, 500), 0.5), np.ones((1, 1)), np.zeros((1, 0))])
def test_silence_and_constants_are_not_clipped(samples: Samples) -> None:
    assert detect_clipping(Audio(samples, RATE)) is None


@given(st.integers(1, 700), st.floats(0.05, 2.0))
@settings(deadline=None, max_examples=30)
def test_detection_does_not_depend_on_blocks(block: int, level: float) -> None:
    audio = Audio(in_16_bits(music(0.25, channels=2).clip(-level, level)), RATE)
    with patch.object(recording, "BLOCK", block):
        in_blocks = detect_clipping(audio)
    assert in_blocks == detect_clipping(audio)


# Given


def test_a_level_is_that_of_both_sides_of_all_channels() -> None:
    audio = Audio(in_16_bits(music(channels=2).clip(-0.3, 0.3)), RATE)
    given_level = clipping_at(0.3, audio)
    assert given_level.high == pytest.approx((0.3, 0.3), abs=1e-4)
    # The samples that 16 bits have rounded down are clipped all the same.
    np.testing.assert_array_equal(given_level.clipped(audio.samples), np.abs(music(channels=2)) >= 0.3 - 2**-15)


@pytest.mark.parametrize("level", [0.0, -0.5, math.nan, INF])
def test_a_level_that_cannot_be_is_refused(level: float) -> None:
    with pytest.raises(SettingsError, match="--level"):
        clipping_at(level, Audio(music(), RATE))


@pytest.mark.parametrize("samples", [0.5 * music(), np.zeros((1, 9)), np.zeros((1, 0))])
def test_a_level_above_the_peak_is_refused_with_the_peak(samples: Samples) -> None:
    with pytest.raises(InputError, match=rf"the highest is {np.abs(samples).max(initial=0):.6g}; ") as caught:
        clipping_at(0.9, Audio(samples, RATE))
    assert isinstance(caught.value, DapError)
    assert "\n" not in str(caught.value)
