"""Missing samples: fills that keep what is known, training_pairs whose truth is known, and consistency."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dapcli.signal.degradation import Degradation, TrainingPair
from dapcli.signal.gaps import Gaps, Interval, merge
from dapcli.signal.missing import ORDERS_S, Missing

Samples = NDArray[np.float64]

RATE = 2_000
LENGTH = 2_000
GAPS = Gaps((((250, 300), (500, 530)), ((1500, 1525),)))
LEFT_ONLY = Gaps((((500, 550),), ()))
DAMAGE = Missing(GAPS)

channels = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), max_size=5).map(
    lambda some: merge((start, start + length) for start, length in some)
)


def music(count: int = 2, length: int = LENGTH) -> Samples:
    """Decaying harmonics and a little noise, which differ between channels."""
    t = np.arange(length) / RATE
    rows = [sum(0.3 / k * np.sin(2 * np.pi * pitch * k * t + k) for k in range(1, 4)) for pitch in (220, 330)[:count]]
    return np.asarray(np.stack(rows) * np.exp(-t) + 1e-3 * np.random.default_rng(0).standard_normal((count, length)))


def intervals_of(flags: NDArray[np.bool_]) -> list[Interval]:
    bounds = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [(int(start), int(stop)) for start, stop in bounds.reshape(-1, 2)]


@pytest.fixture(scope="module")
def candidates() -> Samples:
    return DAMAGE.candidates(music(), RATE)


@pytest.fixture(scope="module")
def training_pairs(candidates: Samples) -> list[TrainingPair]:
    return DAMAGE.training_pairs(music(), candidates, RATE, 0)


# Candidates


def test_candidates_keep_what_is_known_and_fill_what_is_not(candidates: Samples) -> None:
    samples, missing = music(), GAPS.mask(0, LENGTH)
    assert candidates.shape == (len(ORDERS_S), 2, LENGTH)
    for candidate in candidates:
        np.testing.assert_array_equal(candidate[~missing], samples[~missing])
    errors = [((candidate - samples)[missing] ** 2).sum() for candidate in candidates]
    assert min(errors) < 1e-2 * (samples[missing] ** 2).sum()


def test_candidates_do_not_depend_on_what_is_written_in_the_gaps(candidates: Samples) -> None:
    for rubbish in (0.0, 7.0, np.nan):
        samples = np.where(GAPS.mask(0, LENGTH), rubbish, music())
        np.testing.assert_array_equal(DAMAGE.candidates(samples, RATE), candidates)


def test_a_channel_without_gaps_comes_back_as_it_is_and_does_not_matter_to_the_other() -> None:
    filled = Missing(LEFT_ONLY).candidates(music(), RATE)
    for candidate in filled:
        np.testing.assert_array_equal(candidate[1], music()[1])
    alone = Missing(Gaps(LEFT_ONLY.channels[:1])).candidates(music(1), RATE)
    np.testing.assert_array_equal(filled[:, :1], alone)


@pytest.mark.parametrize("length", [1, 2, 3, 100])
def test_recordings_of_few_samples_are_filled(length: int) -> None:
    samples = music(1, length)
    for gap in {(0, 1), (length // 2, length // 2 + 1), (length // 2, length), (0, length)}:
        degradation = Missing(Gaps(((gap,),)))
        filled = degradation.candidates(samples, RATE)
        assert np.isfinite(filled).all()
        for training_pair in degradation.training_pairs(samples, filled, RATE, 0):
            assert np.isfinite(training_pair.candidates).all()


# Exercises


def test_exercises_are_gaps_of_the_same_lengths_elsewhere(training_pairs: list[TrainingPair]) -> None:
    samples, missing = music(), GAPS.mask(0, LENGTH)
    assert len(training_pairs) == 3
    for training_pair in training_pairs:
        assert training_pair.candidates.shape == (len(ORDERS_S), 2, LENGTH)
        np.testing.assert_array_equal(training_pair.truth[training_pair.scored], samples[training_pair.scored])
        for channel in range(2):
            lengths = {stop - start for start, stop in GAPS.channels[channel]}
            opened = intervals_of(training_pair.scored[channel])
            assert opened
            assert {stop - start for start, stop in opened} <= lengths
            # Sound on both sides of each, between it and any other gap.
            everything = intervals_of(missing[channel] | training_pair.scored[channel])
            assert len(everything) == len(opened) + len(GAPS.channels[channel])
            assert all(after[0] - before[1] >= 0.1 * RATE for before, after in pairwise(everything) if after in opened)


def test_exercises_know_no_truth_where_it_counts(training_pairs: list[TrainingPair], candidates: Samples) -> None:
    missing = GAPS.mask(0, LENGTH)
    for training_pair in training_pairs:
        altered = np.where(training_pair.scored, 9.0, music())
        known = ~(missing | training_pair.scored)
        for candidate in training_pair.candidates:
            np.testing.assert_array_equal(candidate[known], music()[known])
            assert not np.array_equal(candidate[training_pair.scored], music()[training_pair.scored])
        more = Missing(Gaps(tuple(merge(intervals_of(row)) for row in ~known)))
        np.testing.assert_array_equal(more.candidates(altered, RATE), training_pair.candidates)


def test_exercises_are_the_same_for_the_same_seed_alone(
    training_pairs: list[TrainingPair], candidates: Samples
) -> None:
    def scored(seed: int) -> list[NDArray[np.bool_]]:
        return [each.scored for each in DAMAGE.training_pairs(music(), candidates, RATE, seed)]

    np.testing.assert_array_equal(scored(0), [each.scored for each in training_pairs])
    assert not np.array_equal(scored(1), scored(0))
    assert not np.array_equal(training_pairs[0].scored, training_pairs[1].scored)


def test_a_channel_without_gaps_is_exercised_with_those_of_the_other() -> None:
    degradation = Missing(LEFT_ONLY)
    for training_pair in degradation.training_pairs(music(), degradation.candidates(music(), RATE), RATE, 0):
        assert {stop - start for start, stop in intervals_of(training_pair.scored[1])} == {50}


@pytest.mark.parametrize("gap", [(10, LENGTH), (0, LENGTH - 10), (300, LENGTH - 300), (0, LENGTH)])
def test_where_hardly_anything_is_known_no_fill_is_better_than_another(gap: Interval) -> None:
    degradation = Missing(Gaps(((gap,),)))
    filled = degradation.candidates(music(1), RATE)
    (training_pair,) = degradation.training_pairs(music(1), filled, RATE, 0)
    np.testing.assert_array_equal(training_pair.candidates, filled)
    np.testing.assert_array_equal(training_pair.truth, filled.mean(axis=0))
    np.testing.assert_array_equal(training_pair.scored, degradation.gaps.mask(0, LENGTH))


# Consistency


@given(channels, channels, st.integers(0, 2**32 - 1))
def test_projection_keeps_known_samples_and_takes_the_others(
    left: tuple[Interval, ...], right: tuple[Interval, ...], seed: int
) -> None:
    degradation: Degradation = Missing(Gaps((left, right)))
    missing = Gaps((left, right)).mask(0, 40)
    samples, estimate = np.random.default_rng(seed).standard_normal((2, 2, 40))
    projected = degradation.project(estimate, samples)
    np.testing.assert_array_equal(projected[~missing], samples[~missing])
    np.testing.assert_array_equal(projected[missing], estimate[missing])
    np.testing.assert_array_equal(degradation.project(projected, samples), projected)
    assert degradation.affects(samples) == missing.any()


@given(channels, channels, st.integers(0, 2**32 - 1))
def test_the_misfit_is_the_mean_squared_error_at_known_samples(
    left: tuple[Interval, ...], right: tuple[Interval, ...], seed: int
) -> None:
    degradation = Missing(Gaps((left, right)))
    known = ~degradation.gaps.mask(0, 40)
    samples, estimate = np.random.default_rng(seed).standard_normal((2, 2, 40))
    leaf = torch.tensor(estimate, requires_grad=True)
    data_fidelity = degradation.data_fidelity(leaf, torch.tensor(samples))
    data_fidelity.backward()  # type: ignore[no-untyped-call]
    expected = np.mean((estimate - samples)[known] ** 2)
    assert data_fidelity.item() == pytest.approx(expected)
    assert leaf.grad is not None
    assert (leaf.grad.numpy() != 0).tolist() == known.tolist()
    assert degradation.data_fidelity(torch.tensor(degradation.project(estimate, samples)), torch.tensor(samples)) == 0
    worse = samples.copy()
    worse[known] += 1e-3
    assert degradation.data_fidelity(torch.tensor(worse), torch.tensor(samples)) > 0


def test_where_nothing_is_known_anything_fits() -> None:
    degradation = Missing(Gaps((((0, 5),),)))
    estimate = torch.ones(1, 5, requires_grad=True)
    data_fidelity = degradation.data_fidelity(estimate, torch.zeros(1, 5))
    data_fidelity.backward()  # type: ignore[no-untyped-call]
    assert data_fidelity == 0
    assert estimate.grad is not None
    assert not estimate.grad.any()


@given(channels, channels, st.integers(0, 30), st.integers(1, 20))
def test_a_part_has_the_gaps_that_are_in_it(
    left: tuple[Interval, ...], right: tuple[Interval, ...], start: int, length: int
) -> None:
    whole = Gaps((left, right))
    expected = whole.mask(start, start + length)
    np.testing.assert_array_equal(whole.part(start, start + length).mask(0, length), expected)
    part = Missing(whole).part(start, start + length)
    samples, estimate = np.zeros((2, length)), np.ones((2, length))
    np.testing.assert_array_equal(part.project(estimate, samples), expected)
    assert part.affects(samples) == expected.any()
    # A part of a part is that part of the whole.
    again = whole.part(start, start + length).part(length // 2, length)
    assert again == whole.part(start + length // 2, start + length)
