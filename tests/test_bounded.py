"""Clipping and quantization: consistent estimates, training pairs whose truth is known, levels detected and given."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dapcli.audio import Audio, open_audio, recording
from dapcli.errors import InputError, SettingsError
from dapcli.metrics.waveform import snr_db
from dapcli.signal.clipping import Clipping, clipping_at, detect_clipping
from dapcli.signal.degradation import ROUNDING
from dapcli.signal.quantization import MOST_LEVELS, Quantization, detect_quantization, quantization_of
from tests import signals
from tests.signals import RATE, Samples

INF = math.inf
UNEVEN = Clipping((-0.3, -INF), (0.4, 0.25))
SIXTEEN = Quantization(1 / 8, 1 / 16)
SUBTYPES = pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])

quantizers = st.builds(Quantization, st.floats(2 / MOST_LEVELS, 1), st.floats(-0.5, 0.5))
pairs_of_signals = st.lists(st.tuples(st.floats(-1, 1), st.floats(-2, 2)), min_size=1, max_size=40).map(
    lambda some: np.tile(np.array(some).T[:, None], (1, 2, 1))
)


def music(seconds: float = 1.0, channels: int = 1) -> Samples:
    """Decaying harmonics and a little noise, which differ between channels, with a peak below 1."""
    length = round(seconds * RATE)
    return signals.harmonics(length, channels, RATE) + signals.noise(channels, length, std=0.002)


def in_bits(samples: Samples, bits: int) -> Samples:
    return np.asarray(np.floor(samples * 2 ** (bits - 1)) / 2 ** (bits - 1))


def centres(samples: Samples, levels: int) -> Samples:
    """The centre of the cell of every sample, by searching among all."""
    values = -1 + (2 * np.arange(levels) + 1) / levels
    return np.asarray(values[np.abs(samples[..., None] - values).argmin(axis=-1)])


def degraded(clean: Samples, degradation: Clipping | Quantization) -> Samples:
    return degradation.clip(clean) if isinstance(degradation, Clipping) else degradation.quantize(clean)


def from_file(path: Path, samples: Samples, subtype: str = "PCM_16") -> Audio:
    """Samples as they come back from a file."""
    soundfile.write(path, samples.T, RATE, subtype=subtype)
    with open_audio(path) as file:
        return Audio(file.read(0, file.length), RATE)


# Consistency


@given(st.just(UNEVEN) | quantizers, pairs_of_signals)
def test_projection_gives_the_nearest_consistent_estimate(
    degradation: Clipping | Quantization, signal: Samples
) -> None:
    clean, estimate = signal
    samples = degraded(clean, degradation)
    projected = degradation.project(estimate, samples)
    np.testing.assert_allclose(degraded(projected, degradation), samples, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(degradation.project(projected, samples), projected)
    np.testing.assert_array_equal(degradation.project(samples, samples), samples)
    # The truth is as far, apart from the rounding that is left room for, and no nearer than before.
    for others in (estimate, clean):
        assert (np.abs(projected - others) <= np.abs(estimate - clean) + ROUNDING + 1e-12).all()


@given(st.sampled_from([UNEVEN, SIXTEEN]), pairs_of_signals, st.sampled_from([torch.float32, torch.float64]))
def test_data_fidelity_is_the_squared_distance_to_what_is_consistent(
    degradation: Clipping | Quantization, signal: Samples, dtype: torch.dtype
) -> None:
    samples = degraded(signal[0], degradation)
    projected = degradation.project(signal[1], samples)
    estimate = torch.tensor(signal[1], dtype=dtype, requires_grad=True)
    data_fidelity = degradation.data_fidelity(estimate, torch.tensor(samples, dtype=dtype))
    data_fidelity.backward()  # type: ignore[no-untyped-call]
    assert data_fidelity.item() == pytest.approx(np.mean((signal[1] - projected) ** 2), abs=1e-6)
    assert estimate.grad is not None
    expected = 2 * (signal[1] - projected) / projected.size
    np.testing.assert_allclose(estimate.grad.numpy(), expected, rtol=0, atol=1e-6)
    zero = degradation.data_fidelity(torch.tensor(projected, dtype=dtype), torch.tensor(samples, dtype=dtype))
    assert zero.item() == pytest.approx(0, abs=1e-13)


@pytest.mark.parametrize(
    ("degradation", "samples", "expected"),
    [
        (UNEVEN, [[0.0, 0.4], [0.0, 0.0]], True),
        (UNEVEN, [[0.0, 0.0], [0.0, 0.25]], True),
        (UNEVEN, [[0.39, -0.29], [-2.0, 0.24]], False),
        (UNEVEN, [[], []], False),
        (SIXTEEN, [[1 / 16, 1 / 16], [1 / 16, 3 / 16]], True),
        (SIXTEEN, [[1 / 16, 1 / 16], [3 / 16, 3 / 16]], False),
        (SIXTEEN, [[1 / 16]], False),
        (SIXTEEN, [[]], False),
    ],
)
def test_only_clipped_samples_and_cells_that_change_need_anything(
    degradation: Clipping | Quantization, samples: list[list[float]], expected: bool
) -> None:
    assert degradation.affected(np.array(samples)).any() == expected


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        *((Clipping, each) for each in (((0.1,), (0.5,)), ((-0.1,), (0.0,)), ((-0.1,), (math.nan,)))),
        *((Quantization, (step, 0.0)) for step in (0.0, -0.1, 2.0**-15, math.nan)),
    ],
)
def test_levels_around_nothing_and_cells_too_small_for_16_bits_cannot_be(
    make: Callable[..., object], parameters: tuple[Any, Any]
) -> None:
    with pytest.raises(ValueError, match=r"levels|step"):
        make(*parameters)


@pytest.mark.parametrize("levels", [2, 3, 1000, MOST_LEVELS])
def test_samples_written_in_16_bits_are_still_in_their_cells(levels: int, tmp_path: Path) -> None:
    clean, estimate = np.random.default_rng(levels).uniform(-1, 1, (2, 1, 1_000))
    path = tmp_path / "a.wav"
    file = from_file(path, centres(clean, levels))
    quantizer = quantization_of(levels, file)
    np.testing.assert_allclose(quantizer.quantize(file.samples), centres(clean, levels), rtol=0, atol=1e-12)
    written = from_file(path, quantizer.project(1.5 * estimate, file.samples)).samples
    np.testing.assert_array_equal(quantizer.quantize(written), quantizer.quantize(file.samples))
    assert np.abs(written - quantizer.project(written, file.samples)).max() <= ROUNDING


# Restoration


@pytest.mark.parametrize(("degradation", "gains_db"), [(UNEVEN, (8, 8)), (SIXTEEN, (0, 3))])
def test_candidates_are_consistent_and_nearer_to_the_truth(
    degradation: Clipping | Quantization, gains_db: tuple[float, ...]
) -> None:
    clean = music(channels=2)
    samples = degraded(clean, degradation)
    for candidate, gain_db in zip(degradation.candidates(samples, RATE), gains_db, strict=True):
        assert np.abs(candidate - degradation.project(candidate, samples)).max() <= ROUNDING
        for channel in range(2):
            before, after = (snr_db(clean[[channel]], each[[channel]], RATE) for each in (samples, candidate))
            assert after >= before + gain_db


def test_training_pairs_are_clipped_harder_and_know_the_truth() -> None:
    samples = UNEVEN.clip(music(0.25, channels=2))
    candidates = UNEVEN.candidates(samples, RATE)
    fewest = UNEVEN.affected(samples)
    first, second = UNEVEN.training_pairs(samples, candidates, RATE, seed=0)
    for pair in (first, second):
        np.testing.assert_array_equal(pair.truth, candidates[0])
        assert pair.candidates.shape == candidates.shape
        np.testing.assert_array_equal(pair.candidates[:, ~pair.scored], candidates[[0, 0]][:, ~pair.scored])
        # Consistent: on the same side as the truth that was taken away.
        assert (np.sign(pair.candidates) == np.sign(pair.truth))[:, pair.scored].all()
        assert (pair.scored >= fewest).all()
        assert pair.scored.sum() > fewest.sum()
        fewest = pair.scored


def test_training_pairs_lie_otherwise_in_the_cells_and_know_the_truth() -> None:
    samples = SIXTEEN.quantize(music(0.5, channels=2))
    candidates = SIXTEEN.candidates(samples, RATE)
    pairs = SIXTEEN.training_pairs(samples, candidates, RATE, seed=0)
    assert len(pairs) == 3
    for pair in pairs:
        np.testing.assert_array_equal(pair.truth, candidates[1])
        assert pair.scored.all()
        centre, restored = pair.candidates
        # Cells are a little larger than the recording's, and the truth is in them.
        half = (centre - pair.truth).max()
        assert 1 / 16 < half < 1.5 / 16
        assert np.abs(centre - restored).max() <= half + 1e-3
        assert (np.abs(centre - samples) > 1e-3).mean() > 0.5
        assert snr_db(pair.truth, restored, RATE) > snr_db(pair.truth, centre, RATE) + 2


@pytest.mark.parametrize("degradation", [UNEVEN, SIXTEEN, Quantization(0.1, 0.0)])
@pytest.mark.parametrize("clean", [np.zeros((2, 300)), np.full((2, 1), 0.7), np.array([[0.5, -0.5]] * 2)])
def test_silence_and_few_samples_are_restored(clean: Samples, degradation: Clipping | Quantization) -> None:
    samples = degraded(clean, degradation)
    candidates = degradation.candidates(samples, RATE)
    for candidate in candidates:
        assert np.abs(candidate - degradation.project(candidate, samples)).max() <= ROUNDING
    for pair in degradation.training_pairs(samples, candidates, RATE, seed=0):
        assert np.isfinite(pair.candidates).all()


# Detection

T = np.arange(RATE) / RATE


@SUBTYPES
@pytest.mark.parametrize("level", [0.1, 0.3, 0.5])
def test_levels_are_found_in_files(subtype: str, level: float, tmp_path: Path) -> None:
    file = from_file(tmp_path / "clipped.wav", music().clip(-level, level), subtype)
    found = detect_clipping(file)
    assert found is not None
    assert (found.low[0], found.high[0]) == pytest.approx((-level, level), abs=1e-4)
    flagged, clipped = found.affected(file.samples), np.abs(music()) >= level
    assert flagged[clipped].all()
    # A peak that has only just escaped cannot be told from the others.
    assert flagged.sum() <= clipped.sum() + 3


def test_levels_are_found_for_every_channel_and_sign() -> None:
    found = detect_clipping(Audio(UNEVEN.clip(music(channels=2)), RATE))
    assert found is not None
    assert (*found.low, *found.high) == pytest.approx((*UNEVEN.low, *UNEVEN.high), abs=1e-4)


@pytest.mark.parametrize("bits", [None, 16, 8])
def test_recordings_that_were_not_clipped_are_not_called_so(bits: int | None) -> None:
    t = np.arange(4 * RATE) / RATE
    noise = signals.noise(len(t), std=0.2)
    for signal in (music()[0], noise, 0.9 * np.sin(2 * np.pi * 30.1 * t), np.tanh(3 * music(4.0)[0])):
        samples = np.round(signal * 2 ** (bits - 1)) / 2 ** (bits - 1) if bits else signal
        assert detect_clipping(Audio(samples[None], RATE)) is None


@pytest.mark.parametrize("level", [1e-4, 1.0, 1e4])
def test_waves_that_are_square_but_for_their_edges_are_not_clipped_whatever_is_in_other_channels(level: float) -> None:
    sine = np.sin(2 * np.pi * 220 * T)
    waves = (np.sign(sine), np.where((220 * T) % 1 < 0.1, 1.0, -1.0), np.clip(20 * sine, -1, 1))
    for wave in waves:
        silence = np.zeros(RATE)
        assert detect_clipping(Audio(0.8 * level * np.concatenate([wave, silence])[None], RATE)) is None
    found = detect_clipping(Audio(level * np.stack([0.8 * waves[0], music()[0].clip(-0.3, 0.3)]), RATE))
    assert found is not None
    assert np.isinf([found.low[0], found.high[0]]).all()
    assert (found.low[1], found.high[1]) == pytest.approx((-0.3 * level, 0.3 * level), rel=1e-3)


@SUBTYPES
@pytest.mark.parametrize("levels", [8, 15, 128])
def test_grids_are_found_in_files(subtype: str, levels: int, tmp_path: Path) -> None:
    file = from_file(tmp_path / "quantized.wav", centres(music(channels=2), levels), subtype)
    expected = Quantization(2 / levels, 0.0 if levels % 2 else 1 / levels)
    assert detect_quantization(file) == quantization_of(levels, file) == expected


@pytest.mark.parametrize("gain", [0.31, 0.77, 0.97])
def test_a_grid_is_found_at_any_gain(gain: float) -> None:
    found = detect_quantization(Audio(np.round(gain * centres(music(), 16) * 2**15) / 2**15, RATE))
    assert found is not None
    assert (found.step, found.offset) == pytest.approx((gain / 8, gain / 16), abs=1e-4)


@pytest.mark.parametrize("bits", [None, 8, 16, 24])
@pytest.mark.parametrize("level", [1.0, 0.001])
def test_an_ordinary_file_is_not_quantized(level: float, bits: int | None) -> None:
    samples = level * music(4.0)
    subtype = {None: "FLOAT", 8: "PCM_U8"}.get(bits, f"PCM_{bits}")
    audio = Audio(in_bits(samples, bits) if bits else samples, RATE, subtype)
    assert detect_quantization(audio) is None


@pytest.mark.parametrize(
    "samples",
    [[[0.0] * 500] * 2, [[0.25]], [[0.5] * 500], [[0.0, 0.5, 0.6137] * 170], [[-0.5, 0.0, 0.5]]],
    ids=["silence", "one sample", "constant", "no grid", "few samples"],
)
def test_few_values_alone_are_neither_clipping_nor_quantization(samples: list[list[float]]) -> None:
    audio = Audio(np.array(samples), RATE)
    assert (detect_clipping(audio), detect_quantization(audio)) == (None, None)
    assert detect_quantization(Audio(np.sign(music()), RATE)) is None


@given(st.integers(1, 700), st.floats(0.05, 2.0), st.integers(3, 200))
@settings(deadline=None, max_examples=30)
def test_detection_does_not_depend_on_blocks(block: int, level: float, levels: int) -> None:
    clipped = Audio(in_bits(music(0.25, channels=2).clip(-level, level), 16), RATE)
    quantized = Audio(centres(music(0.25), levels), RATE)
    with patch.object(recording, "BLOCK", block):
        in_blocks = detect_clipping(clipped), detect_quantization(quantized)
    assert in_blocks == (detect_clipping(clipped), detect_quantization(quantized))


# Given


def test_a_level_is_that_of_both_sides_of_all_channels() -> None:
    audio = Audio(in_bits(music(channels=2).clip(-0.3, 0.3), 16), RATE)
    clipping = clipping_at(0.3, audio)
    assert clipping.high == pytest.approx((0.3, 0.3), abs=1e-4)
    # The samples that 16 bits have rounded down are clipped all the same.
    np.testing.assert_array_equal(clipping.affected(audio.samples), np.abs(audio.samples) >= 0.3 - 2**-15)


@pytest.mark.parametrize(
    ("given_of", "value", "samples", "error", "reason"),
    [
        *((clipping_at, level, music(), SettingsError, "--level") for level in (0.0, -0.5, math.nan, INF)),
        (clipping_at, 0.9, np.full((1, 9), 0.5), InputError, r"the highest is 0\.5; "),
        *((quantization_of, levels, music(), SettingsError, "--levels") for levels in (1, 0, -2, MOST_LEVELS + 1)),
        (quantization_of, 16, music(), InputError, r"up to 0\.06\d* off the 16 levels"),
        (quantization_of, 16, centres(music(), 16) + 0.01, InputError, r"up to 0\.01\d* off the 16 levels"),
        (quantization_of, 16, np.full((1, 9), 2.0), InputError, r"up to 1\.1\d* off the 16 levels"),
    ],
)
def test_levels_that_cannot_be_or_do_not_go_with_the_recording_are_refused(
    given_of: Callable[[Any, Audio], object], value: float, samples: Samples, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        given_of(value, Audio(samples, RATE))


def test_levels_of_a_file_of_few_bits_include_zero() -> None:
    samples = np.round(music() * 64) / 64
    assert quantization_of(128, Audio(samples, RATE)) == Quantization(1 / 64, 0.0)
