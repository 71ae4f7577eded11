"""Quantization: cells that survive writing, training_pairs whose truth is known, and grids that are detected or given."""

from __future__ import annotations

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
from dapcli.errors import InputError, SettingsError
from dapcli.metrics.waveform import snr_db
from dapcli.signal.degradation import ROUNDING
from dapcli.signal.degradation import Degradation
from dapcli.signal.quantization import MOST_LEVELS, Quantization, detect_quantization, quantization_of

Samples = NDArray[np.float64]

RATE = 8_000
SIXTEEN = Quantization(1 / 8, 1 / 16)


def music(seconds: float = 1.0, channels: int = 1) -> Samples:
    """Decaying harmonics and a little noise, which differ between channels, with a peak below 1."""
    t = np.arange(round(seconds * RATE)) / RATE
    rows = [
        sum(0.4 / k * np.sin(2 * np.pi * pitch * k * t + k) for k in range(1, 6)) for pitch in (220, 330)[:channels]
    ]
    noise = 0.002 * np.random.default_rng(0).standard_normal((channels, len(t)))
    return np.asarray(np.stack(rows) * np.exp(-(t % 0.5)) + noise)


def centres(samples: Samples, levels: int) -> Samples:
    """The centre of the cell of every sample, by searching among all."""
    values = -1 + (2 * np.arange(levels) + 1) / levels
    return np.asarray(values[np.abs(samples[..., None] - values).argmin(axis=-1)])


pairs = st.lists(st.tuples(st.integers(-8, 7), st.floats(-2, 2)), min_size=1, max_size=40).map(
    lambda some: (np.array([[(k + 0.5) / 8 for k, _ in some]]), np.array([[e for _, e in some]]))
)
quantizers = st.builds(Quantization, st.floats(2 / MOST_LEVELS, 1), st.floats(-0.5, 0.5))


# Consistency


@given(quantizers, st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=40))
def test_projection_gives_an_estimate_that_is_quantized_into_the_samples(
    quantizer: Quantization, some: list[tuple[float, float]]
) -> None:
    clean, estimate = np.array(some).T[:, None]
    samples = quantizer.quantize(clean)
    projected = quantizer.project(estimate, samples)
    np.testing.assert_allclose(quantizer.quantize(projected), samples, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(quantizer.project(projected, samples), projected)
    np.testing.assert_array_equal(quantizer.project(samples, samples), samples)
    assert np.abs(projected - quantizer.project(projected, samples)).max() <= ROUNDING
    # Never further from the truth, apart from the rounding that it leaves room for.
    assert (np.abs(projected - clean) <= np.abs(estimate - clean) + ROUNDING + 1e-12).all()


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
@pytest.mark.parametrize("levels", [2, 3, 16, 1000, MOST_LEVELS])
def test_what_is_written_in_16_bits_is_still_in_its_cells(levels: int, name: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(levels)
    clean = generator.uniform(-1, 1, (1, 5_000))
    soundfile.write(tmp_path / name, centres(clean, levels).T, RATE, subtype="PCM_16")
    with open_audio(tmp_path / name) as file:
        samples = file.read(0, file.length)
        quantizer = quantization_of(levels, file)
    np.testing.assert_allclose(quantizer.quantize(samples), centres(clean, levels), rtol=0, atol=1e-12)
    projected = quantizer.project(generator.uniform(-1.5, 1.5, samples.shape), samples)
    soundfile.write(tmp_path / name, projected.T, RATE, subtype="PCM_16")
    with open_audio(tmp_path / name) as file:
        written = file.read(0, file.length)
    np.testing.assert_array_equal(quantizer.quantize(written), quantizer.quantize(samples))
    assert np.abs(written - quantizer.project(written, samples)).max() <= ROUNDING


@given(pairs, st.sampled_from([torch.float32, torch.float64]))
def test_the_misfit_is_the_squared_distance_to_the_cell(pair: tuple[Samples, Samples], dtype: torch.dtype) -> None:
    samples = pair[0]
    projected = SIXTEEN.project(pair[1], samples)
    estimate = torch.tensor(pair[1], dtype=dtype, requires_grad=True)
    data_fidelity = SIXTEEN.data_fidelity(estimate, torch.tensor(samples, dtype=dtype))
    data_fidelity.backward()  # type: ignore[no-untyped-call]
    assert data_fidelity.item() == pytest.approx(np.mean((pair[1] - projected) ** 2), abs=1e-6)
    assert estimate.grad is not None
    expected = 2 * (pair[1] - projected) / projected.size
    np.testing.assert_allclose(estimate.grad.numpy(), expected, rtol=0, atol=1e-6)
    zero = SIXTEEN.data_fidelity(torch.tensor(projected, dtype=dtype), torch.tensor(samples, dtype=dtype))
    assert zero.item() == pytest.approx(0, abs=1e-13)


def test_only_what_changes_needs_anything() -> None:
    assert SIXTEEN.affects(np.array([[1, 1, 1], [1, 1, 3]]) / 16)
    assert not SIXTEEN.affects(np.array([[1, 1, 1], [3, 3, 3]]) / 16)
    assert not SIXTEEN.affects(np.full((1, 1), 1 / 16))
    assert not SIXTEEN.affects(np.zeros((1, 0)))


def test_a_part_of_a_quantized_recording_is_quantized_alike() -> None:
    degradation: Degradation = SIXTEEN
    assert degradation.part(5, 9) == SIXTEEN


@pytest.mark.parametrize("step", [0.0, -0.1, 2.0**-15, float("nan")])
def test_cells_that_16_bits_cannot_tell_apart_cannot_be(step: float) -> None:
    with pytest.raises(ValueError, match="step"):
        Quantization(step, 0)


def test_levels_of_a_file_of_few_bits_include_zero() -> None:
    samples = np.round(music() * 64) / 64
    assert quantization_of(128, Audio(samples, RATE)) == Quantization(1 / 64, 0.0)


# Restoration


def test_candidates_are_consistent_and_the_second_is_nearer_to_the_truth() -> None:
    clean = music(channels=2)
    samples = SIXTEEN.quantize(clean)
    candidates = SIXTEEN.candidates(samples, RATE)
    assert candidates.shape == (2, 2, RATE)
    np.testing.assert_array_equal(candidates[0], samples)
    assert np.abs(candidates[1] - SIXTEEN.project(candidates[1], samples)).max() <= ROUNDING
    for channel in range(2):
        before, after = (snr_db(clean[[channel]], what[[channel]], RATE) for what in candidates)
        assert after > before + 3


def test_exercises_lie_otherwise_in_the_cells_and_know_the_truth() -> None:
    samples = SIXTEEN.quantize(music(0.5, channels=2))
    candidates = SIXTEEN.candidates(samples, RATE)
    training_pairs = SIXTEEN.training_pairs(samples, candidates, RATE, seed=0)
    assert len(training_pairs) == 3
    for training_pair in training_pairs:
        np.testing.assert_array_equal(training_pair.truth, candidates[1])
        assert training_pair.candidates.shape == candidates.shape
        assert training_pair.scored.all()
        centre, restored = training_pair.candidates
        # Cells are a little larger than the recording's, and the truth is in them.
        half = (centre - training_pair.truth).max()
        assert 1 / 16 < half < 1.5 / 16
        assert np.abs(centre - restored).max() <= half + 1e-3
        assert (np.abs(centre - samples) > 1e-3).mean() > 0.5
        assert snr_db(training_pair.truth, restored, RATE) > snr_db(training_pair.truth, centre, RATE) + 2


def test_an_exercise_at_the_same_gain_would_teach_nothing() -> None:
    samples = SIXTEEN.quantize(music(0.25))
    np.testing.assert_array_equal(SIXTEEN.quantize(SIXTEEN.candidates(samples, RATE)[1]), samples)


@pytest.mark.parametrize("quantizer", [SIXTEEN, Quantization(0.1, 0.0)])
@pytest.mark.parametrize("samples", [np.zeros((1, 300)), np.full((2, 1), 0.5), np.array([[0.5, -0.5]])])
def test_silence_and_few_samples_are_restored(samples: Samples, quantizer: Quantization) -> None:
    samples = quantizer.quantize(samples)
    candidates = quantizer.candidates(samples, RATE)
    assert np.abs(candidates[1] - quantizer.project(candidates[1], samples)).max() <= ROUNDING
    for training_pair in quantizer.training_pairs(samples, candidates, RATE, seed=0):
        assert np.isfinite(training_pair.candidates).all()


# Detection


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("levels", [8, 15, 16, 128])
def test_grids_are_found_in_files(subtype: str, levels: int, tmp_path: Path) -> None:
    path = tmp_path / "quantized.wav"
    soundfile.write(path, centres(music(channels=2), levels).T, RATE, subtype=subtype)
    with open_audio(path) as file:
        found = detect_quantization(file)
        assert found == quantization_of(levels, file)
    assert found == Quantization(2 / levels, 0.0 if levels % 2 else 1 / levels)


@pytest.mark.parametrize("gain", [0.31, 0.77, 0.97])
def test_a_grid_is_found_at_any_gain(gain: float) -> None:
    found = detect_quantization(Audio(np.round(gain * centres(music(), 16) * 2**15) / 2**15, RATE))
    assert found is not None
    assert found.step == pytest.approx(gain / 8, abs=1e-4)
    assert found.offset == pytest.approx(gain / 16, abs=1e-4)


@pytest.mark.parametrize("bits", [0, 8, 16, 24])
@pytest.mark.parametrize("level", [1.0, 0.001])
def test_an_ordinary_file_is_not_quantized(level: float, bits: int) -> None:
    samples = level * music(4.0)
    if bits:
        samples = np.round(samples * 2 ** (bits - 1)) / 2 ** (bits - 1)
    assert detect_quantization(Audio(samples, RATE)) is None


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros((1, 500)),
        np.zeros((1, 0)),
        np.full((1, 1), 0.25),
        np.sign(music()),
        np.resize([0.0, 0.5, 0.6137], (1, 500)),
        np.array([[-0.5, 0.0, 0.5]]),
    ],
    ids=["silence", "nothing", "one sample", "square", "no grid", "few samples"],
)
def test_few_values_alone_are_no_quantization(samples: Samples) -> None:
    assert detect_quantization(Audio(samples, RATE)) is None


@given(st.integers(1, 700), st.integers(3, 200))
@settings(deadline=None, max_examples=30)
def test_detection_does_not_depend_on_blocks(block: int, levels: int) -> None:
    audio = Audio(centres(music(0.25), levels), RATE)
    with patch.object(recording, "BLOCK", block):
        in_blocks = detect_quantization(audio)
    assert in_blocks == detect_quantization(audio)


# Given


@pytest.mark.parametrize("levels", [1, 0, -2, MOST_LEVELS + 1])
def test_levels_that_cannot_be_are_refused(levels: int) -> None:
    with pytest.raises(SettingsError, match=r"--levels .* between 2 and"):
        quantization_of(levels, Audio(music(), RATE))


@pytest.mark.parametrize(
    ("samples", "off"),
    [(music(), r"0\.06"), (centres(music(), 16) + 0.01, r"0\.01"), (np.full((1, 9), 2.0), r"1\.1")],
)
def test_a_recording_that_is_not_on_the_grid_is_refused_with_how_far_off_it_is(samples: Samples, off: str) -> None:
    with pytest.raises(InputError, match=rf"up to {off}\d* off the 16 levels") as caught:
        quantization_of(16, Audio(samples, RATE))
    assert "\n" not in str(caught.value)
