"""The sparsest signal between bounds: it is between them and near the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dapcli.signal.spade import refine_sparse, restore_sparse
from tests import signals
from tests.signals import RATE, noise, snr_db

Signal = NDArray[np.float64]


def harmonics(samples: int = RATE, rate: int = RATE) -> Signal:
    return np.asarray(signals.harmonics(samples, rate=rate)[0])


def clipped(signal: Signal, level: float) -> tuple[Signal, Signal, Signal]:
    samples = np.clip(signal, -level, level)
    low = np.where(samples <= -level, -np.inf, samples)
    return samples, low, np.where(samples >= level, np.inf, samples)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100])
def test_a_tone_that_was_clipped_comes_back(rate: int) -> None:
    clean = harmonics(rate // 4, rate)
    samples, low, high = clipped(clean, 0.3)
    restored = restore_sparse(samples, low, high, rate)
    assert snr_db(clean, restored) > snr_db(clean, samples) + 10
    reliable = low == high
    np.testing.assert_array_equal(restored[reliable], samples[reliable])


def test_a_tone_that_was_quantized_is_nearer_than_the_centres_of_its_cells() -> None:
    clean = harmonics()
    centres = (np.floor(clean * 8) + 0.5) / 8
    restored = restore_sparse(centres, centres - 1 / 16, centres + 1 / 16, RATE)
    assert snr_db(clean, restored) > snr_db(clean, centres) + 4
    assert np.abs(restored - centres).max() <= 1 / 16


def test_what_is_reliable_stays_as_it_is_to_the_bit() -> None:
    clean = harmonics()
    np.testing.assert_array_equal(restore_sparse(clean, clean, clean, RATE), clean)
    # Frames without a clipped sample are not even looked at.
    late = np.concatenate([0.1 * clean, clean])
    restored = restore_sparse(*clipped(late, 0.4), RATE)
    np.testing.assert_array_equal(restored[:RATE], late[:RATE])


def test_silence_stays_silence_and_is_no_obstacle_beside_sound() -> None:
    zeros = np.zeros(RATE)
    for low, high in ((zeros, zeros), (zeros - 0.1, zeros + 0.1)):
        np.testing.assert_array_equal(restore_sparse(zeros, low, high, RATE), zeros)
        np.testing.assert_array_equal(refine_sparse(zeros, low, high, RATE), zeros)
    clean = np.concatenate([zeros, harmonics()])
    samples, low, high = clipped(clean, 0.3)
    restored = refine_sparse(restore_sparse(samples, low, high, RATE), low, high, RATE)
    assert snr_db(clean, restored) > snr_db(clean, samples) + 10


def test_samples_are_restored_in_the_same_way_at_any_level() -> None:
    samples, low, high = clipped(harmonics(), 0.4)
    loud, quiet = (restore_sparse(samples / by, low / by, high / by, RATE) for by in (1, 1024))
    np.testing.assert_allclose(1024 * quiet, loud, rtol=0, atol=1e-6)


def test_refining_helps_where_the_sound_is_not_sparse() -> None:
    clean = harmonics() + np.convolve(noise(RATE, std=0.05), np.ones(8) / 8, "same")
    samples, low, high = clipped(clean, 0.3)
    sparse = restore_sparse(samples, low, high, RATE)
    refined = refine_sparse(sparse, low, high, RATE)
    assert snr_db(clean, refined) > snr_db(clean, sparse)


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=300),
    st.sampled_from([1, 3]),
)
@settings(deadline=None, max_examples=20)
def test_the_signal_is_between_any_bounds_at_any_length(some: list[tuple[float, float, float]], times: int) -> None:
    samples, below, above = np.tile(np.array(some).T, times)
    low = np.where(below > 0.9, -np.inf, samples - below)
    high = np.where(above > 0.9, np.inf, samples + above)
    restored = restore_sparse(samples, low, high, RATE)
    for signal in (restored, refine_sparse(restored, low, high, RATE)):
        assert signal.shape == samples.shape
        assert np.isfinite(signal).all()
        assert ((low <= signal) & (signal <= high)).all()
