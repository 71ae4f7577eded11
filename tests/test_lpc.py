"""Linear prediction: fills with a known answer, invariants, and signals of which next to nothing is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dapcli.signal import lpc
from dapcli.signal.gaps import Gaps
from dapcli.signal.lpc import draw_deviation, predict
from tests.signals import RATE, Samples, noise, snr_db
from tests.signals import tone as steady_tone

Signal = Samples  # [N]
Flags = NDArray[np.bool_]

LENGTH = 4_000
ORDER = 80


def decaying(length: int = LENGTH) -> Signal:
    """A sum of sines that decay at rates of their own."""
    t = np.arange(length) / RATE
    partials = ((220, 0.4, 1), (443, 0.3, 3), (701, 0.2, 6), (1130, 0.1, 9))
    return np.asarray(sum(a * np.exp(-d * t) * np.sin(2 * np.pi * f * t + d) for f, a, d in partials))


def noisy() -> Signal:
    return decaying() + noise(LENGTH, std=0.01)


def tone() -> Signal:
    return np.asarray(steady_tone(440, LENGTH / RATE)[0])


def missing_at(*intervals: tuple[int, int], length: int = LENGTH) -> Flags:
    return np.asarray(Gaps((intervals,)).mask(0, length)[0])


MIDDLE = missing_at((1900, 2100))


def snr(truth: Signal, estimate: Signal, where: Flags) -> float:
    return snr_db(truth[where], estimate[where] + 1e-30)


def fill(samples: Signal, missing: Flags, order: int = ORDER) -> Signal:
    """A prediction that may not see what is missing, and must not touch what is known, nor its arguments."""
    written = np.where(missing, 1e3, samples)
    filled = predict(written, missing, order, RATE)
    np.testing.assert_array_equal(written, np.where(missing, 1e3, samples))
    assert filled.shape == samples.shape
    assert np.isfinite(filled).all()
    np.testing.assert_array_equal(filled[~missing], samples[~missing])
    return filled


# Known answers


@pytest.mark.parametrize(
    "intervals", [((1900, 2100),), ((1000, 1001),), ((1000, 1100), (1101, 1200), (1500, 1600), (1620, 1700))]
)
def test_gaps_in_decaying_sines_are_filled(intervals: tuple[tuple[int, int], ...]) -> None:
    missing = missing_at(*intervals)
    assert snr(decaying(), fill(decaying(), missing), missing) > 40
    assert snr(noisy(), fill(noisy(), missing), missing) > 25


@pytest.mark.parametrize("start", [0, 1, ORDER - 1, ORDER, LENGTH - 201, LENGTH - 200])
def test_gaps_at_the_ends_are_extrapolated_without_growing(start: int) -> None:
    missing = missing_at((start, start + 200))
    assert snr(decaying(), fill(decaying(), missing), missing) > 20
    filled = fill(noisy(), missing)
    # Noise of 0.01 under a sound that decays to that.
    assert np.sqrt(np.mean((filled - noisy())[missing] ** 2)) < 0.06
    assert np.abs(filled[missing]).max() < 1.2 * np.abs(noisy()[missing]).max()


@pytest.mark.parametrize("start", [0, 7, 1900, LENGTH - 200])
def test_noise_is_not_predicted_and_never_louder_than_it_is(start: int) -> None:
    missing = missing_at((start, start + 200))
    assert np.std(fill(noise(LENGTH, std=1, seed=1), missing)[missing]) < 0.5


@pytest.mark.parametrize("std", [0.0, 1e-3])
def test_a_steady_tone_keeps_its_level_in_the_middle_of_a_long_gap(std: float) -> None:
    filled = fill(tone() + noise(LENGTH, std=std), missing_at((1500, 2500)))
    assert np.std(filled[1900:2100]) == pytest.approx(np.std(tone()), rel=0.01)


def test_more_than_is_known_is_filled() -> None:
    missing = missing_at((300, 3700))
    assert snr(tone(), fill(tone(), missing), missing) > 20
    constant = np.full(LENGTH, 0.5)
    np.testing.assert_allclose(fill(constant, missing), constant, atol=1e-3)


def test_a_deviation_makes_up_for_the_power_that_the_prediction_lacks() -> None:
    samples = noise(LENGTH, std=1, seed=1)
    deviation = draw_deviation(samples, MIDDLE, ORDER, RATE, np.random.default_rng(2))
    assert not deviation[~MIDDLE].any()
    assert np.std((fill(samples, MIDDLE) + deviation)[MIDDLE]) == pytest.approx(1, rel=0.2)


# The solver


@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.floats(0.02, 0.9))
@settings(max_examples=60, deadline=None)
def test_the_banded_solver_finds_the_dense_least_squares(order: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    length = int(rng.integers(order + 1, 120))
    samples = rng.standard_normal(length)
    # Stretches of missing samples rather than single ones.
    missing = np.repeat(rng.random(length) < share, rng.integers(1, 6))[:length]
    missing[[0, -1]] = rng.permutation([True, False])
    coefficients = np.append(1.0, 0.5 * rng.standard_normal(order))
    variance = np.exp(rng.uniform(-3, 3, length))
    # Takes samples to their innovations, of variance 1.
    rows = [np.pad(coefficients[::-1], (row, length - order - 1 - row)) for row in range(length - order)]
    matrix = np.array(rows) / np.sqrt(variance[order:, None])
    known = np.where(missing, 0.0, samples)
    power = np.mean(samples[~missing] ** 2)
    # The criterion with what it says about missing samples that no innovation depends on.
    normal = matrix[:, missing].T @ matrix[:, missing]
    diagonal = normal.diagonal()
    loose = lpc._LOOSENESS / power + 1e-9 * diagonal + 1e-13 * diagonal.max()
    oracle = np.linalg.lstsq(
        np.vstack([matrix[:, missing], np.diag(np.sqrt(loose))]),
        np.append(-matrix @ known, np.zeros(missing.sum())),
        rcond=None,
    )[0]
    filled = lpc._fill(samples, missing, coefficients, variance)
    np.testing.assert_array_equal(filled[~missing], samples[~missing])

    def criterion(values: Signal) -> float:
        return float(np.sum((matrix @ known + matrix[:, missing] @ values) ** 2) + np.sum(loose * values**2))

    # What is all but undetermined may differ; how good it is may not.
    scale = np.sum((matrix @ known) ** 2) + 1e-9
    assert criterion(filled[missing]) <= criterion(oracle) + 1e-6 * scale
    if np.linalg.cond(normal) < 1e4:
        np.testing.assert_allclose(filled[missing], oracle, atol=1e-6 * (1 + np.abs(oracle).max()))


# Attacks


BURST = np.random.default_rng(3).standard_normal(40) * np.exp(-np.arange(40) / 8)


@pytest.mark.parametrize(("start", "attack"), [(1850, np.ones(1)), (2150, np.ones(1)), (1800, BURST)])
def test_an_attack_beside_a_gap_hardly_changes_the_fill(
    start: int, attack: Signal, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, disturbed = fill(decaying(), MIDDLE), decaying()
    disturbed[start : start + len(attack)] += attack
    agreement = snr(undisturbed, fill(disturbed, MIDDLE), MIDDLE)
    assert agreement > 30
    if len(attack) == 1:
        # With one variance for all innovations a click so close would be spread over the gap.
        monkeypatch.setattr(lpc, "_innovation_variance", lambda filled, *others: np.ones(len(filled)))
        assert agreement > snr(undisturbed, fill(disturbed, MIDDLE), MIDDLE) + 4


# Invariants


@pytest.mark.parametrize("scale", [-1.0, 1e-12, 1e12])
@pytest.mark.parametrize("samples", [decaying(), noisy()])
def test_the_fill_scales_with_the_signal(samples: Signal, scale: float) -> None:
    np.testing.assert_allclose(fill(scale * samples, MIDDLE) / scale, fill(samples, MIDDLE), atol=1e-6)


@pytest.mark.parametrize("interval", [(1900, 2100), (0, 200), (30, 90), (LENGTH - 200, LENGTH)])
def test_time_reversal_reverses_the_fill(interval: tuple[int, int]) -> None:
    missing = missing_at(interval)
    backwards = fill(noisy()[::-1], missing[::-1])[::-1]
    # Innovations forwards and backwards in time are not the same ones.
    assert snr(fill(noisy(), missing), backwards, missing) > 40


# Next to nothing is known


@pytest.mark.parametrize("length", [1, 2, 3, 300])
@pytest.mark.parametrize("order", [0, 1, 1000])
def test_one_known_sample_predicts_nothing(length: int, order: int) -> None:
    for known in {0, length // 2, length - 1}:
        filled = fill(np.ones(length), ~missing_at((known, known + 1), length=length), order)
        assert np.count_nonzero(filled) == 1


@pytest.mark.parametrize("interval", [(1900, 2100), (990, 1200), (0, 200), (LENGTH - 200, LENGTH)])
def test_digital_silence_around_most_of_a_gap_is_no_obstacle(interval: tuple[int, int]) -> None:
    missing = missing_at(interval)
    assert not fill(np.zeros(LENGTH), missing).any()
    filled = fill(np.where(np.arange(LENGTH) < 1000, tone(), 0.0), missing)
    assert interval[0] < 1000 or np.abs(filled[missing]).max() < 0.01
    fill(np.where(np.arange(LENGTH) == 300, 1.0, 0.0), missing)


def test_a_gap_in_silence_does_not_matter_to_one_in_the_sound_before() -> None:
    samples = np.where(np.arange(LENGTH) < 1500, decaying(), 0.0)
    missing = missing_at((500, 600))
    filled = fill(samples, missing | missing_at((2500, 2600)))
    assert snr(samples, filled, missing) > 60
    assert np.abs(filled[2500:2600]).max() < 1e-6


@given(st.integers(0, 400), st.integers(0, 2**32 - 1), st.floats(0, 1), st.integers(0, 60), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_any_mask_of_any_signal_is_filled(length: int, seed: int, share: float, order: int, kind: int) -> None:
    rng = np.random.default_rng(seed)
    samples, rate = [
        (rng.standard_normal(length), 8_000),
        (np.sin(rng.uniform(0, 3) * np.arange(length)), 48_000),
        (np.repeat(rng.integers(-2, 3, length), 20)[:length] / 2, 100),
        (np.where(rng.random(length) < 0.02, 1.0, 0.0), 8_000),
    ][kind]
    missing = np.repeat(rng.random(length) < share, rng.integers(1, 30))[:length]
    filled = predict(np.where(missing, np.nan, samples), missing, order, rate)
    assert np.isfinite(filled).all()
    np.testing.assert_array_equal(filled[~missing], samples[~missing])
    # Silence out of silence, and where nothing is known.
    assert np.abs(filled).max(initial=0) <= 100 * np.abs(samples[~missing]).max(initial=0)
