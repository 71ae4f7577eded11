"""Missing samples: fills that keep what is known, training pairs whose truth is known, and consistency."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dapcli.signal.degradation import TrainingPair
from dapcli.signal.gaps import Gaps, Interval, merge
from dapcli.signal.missing import ORDERS_S, Missing
from tests.signals import Samples, harmonics, noise

RATE = 2_000
LENGTH = 2_000
MISSING = Missing(Gaps((((250, 300), (500, 530)), ((1500, 1525),))))
LEFT_ONLY = Missing(Gaps((((500, 550),), ())))
HERE = MISSING.gaps.mask(0, LENGTH)

channels = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), max_size=5).map(
    lambda some: merge((start, start + length) for start, length in some)
)
stereo_gaps = st.builds(lambda *both: Gaps(both), channels, channels)


def music(count: int = 2, length: int = LENGTH) -> Samples:
    """Decaying harmonics and a little noise, which differ between channels."""
    return harmonics(length, count, RATE) + noise(count, length, std=1e-3)


def intervals_of(flags: NDArray[np.bool_]) -> list[Interval]:
    bounds = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [(int(start), int(stop)) for start, stop in bounds.reshape(-1, 2)]


@pytest.fixture(scope="module")
def candidates() -> Samples:
    return MISSING.candidates(music(), RATE)


@pytest.fixture(scope="module")
def pairs(candidates: Samples) -> list[TrainingPair]:
    return MISSING.training_pairs(music(), candidates, RATE, 0)


# Candidates


@pytest.mark.parametrize("rubbish", [0.0, 7.0, np.nan])
def test_candidates_keep_what_is_known_and_fill_gaps_whatever_is_written_there(
    rubbish: float, candidates: Samples
) -> None:
    samples = music()
    assert candidates.shape == (len(ORDERS_S), 2, LENGTH)
    for candidate in candidates:
        np.testing.assert_array_equal(candidate[~HERE], samples[~HERE])
    assert min(((candidates - samples)[:, HERE] ** 2).sum(axis=1)) < 1e-2 * (samples[HERE] ** 2).sum()
    np.testing.assert_array_equal(MISSING.candidates(np.where(HERE, rubbish, samples), RATE), candidates)


def test_a_channel_without_gaps_comes_back_as_it_is_and_does_not_matter_to_the_other() -> None:
    filled = LEFT_ONLY.candidates(music(), RATE)
    for candidate in filled:
        np.testing.assert_array_equal(candidate[1], music()[1])
    alone = Missing(Gaps(LEFT_ONLY.gaps.channels[:1])).candidates(music(1), RATE)
    np.testing.assert_array_equal(filled[:, :1], alone)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_recordings_of_few_samples_are_filled(length: int) -> None:
    samples = music(1, length)
    for gap in {(0, 1), (length // 2, length // 2 + 1), (length // 2, length), (0, length)}:
        degradation = Missing(Gaps(((gap,),)))
        filled = degradation.candidates(samples, RATE)
        pairs = degradation.training_pairs(samples, filled, RATE, 0)
        assert all(np.isfinite(each).all() for each in (filled, *(pair.candidates for pair in pairs)))


# Training pairs


def test_training_pairs_have_gaps_of_the_same_lengths_elsewhere(pairs: list[TrainingPair]) -> None:
    assert len(pairs) == 3
    for pair in pairs:
        assert pair.candidates.shape == (len(ORDERS_S), 2, LENGTH)
        np.testing.assert_array_equal(pair.truth[pair.scored], music()[pair.scored])
        for channel, gaps in enumerate(MISSING.gaps.channels):
            opened = intervals_of(pair.scored[channel])
            assert opened
            assert {stop - start for start, stop in opened} <= {stop - start for start, stop in gaps}
            # Sound on both sides of each, between it and any other gap.
            everything = intervals_of(HERE[channel] | pair.scored[channel])
            assert len(everything) == len(opened) + len(gaps)
            assert all(after[0] - before[1] >= 0.1 * RATE for before, after in pairwise(everything) if after in opened)


def test_training_pairs_know_no_truth_where_it_counts(pairs: list[TrainingPair]) -> None:
    for pair in pairs:
        more = Missing(Gaps(tuple(merge(intervals_of(row)) for row in HERE | pair.scored)))
        altered = np.where(pair.scored, 9.0, music())
        filled = more.candidates(altered, RATE)
        np.testing.assert_array_equal(filled[:, pair.scored], pair.candidates[:, pair.scored])


def test_training_pairs_are_the_same_for_the_same_seed_alone(pairs: list[TrainingPair], candidates: Samples) -> None:
    for seed in (0, 1):
        again = MISSING.training_pairs(music(), candidates, RATE, seed)
        same = [np.array_equal(one.scored, other.scored) for one, other in zip(again, pairs, strict=True)]
        assert all(same) if seed == 0 else not any(same)
    assert not np.array_equal(pairs[0].scored, pairs[1].scored)


def test_a_channel_without_gaps_is_given_those_of_the_other_to_learn_from() -> None:
    for pair in LEFT_ONLY.training_pairs(music(), LEFT_ONLY.candidates(music(), RATE), RATE, 0):
        assert {stop - start for start, stop in intervals_of(pair.scored[1])} == {50}


@pytest.mark.parametrize("gap", [(10, LENGTH), (0, LENGTH - 10), (300, LENGTH - 300), (0, LENGTH)])
def test_where_hardly_anything_is_known_no_fill_is_better_than_another(gap: Interval) -> None:
    degradation = Missing(Gaps(((gap,),)))
    filled = degradation.candidates(music(1), RATE)
    (pair,) = degradation.training_pairs(music(1), filled, RATE, 0)
    np.testing.assert_array_equal(pair.candidates, filled)
    np.testing.assert_array_equal(pair.truth, filled.mean(axis=0))
    np.testing.assert_array_equal(pair.scored, degradation.gaps.mask(0, LENGTH))


# Consistency


@given(stereo_gaps, st.integers(0, 2**32 - 1))
@example(Gaps((((0, 40),),) * 2), 0)  # where nothing is known anything fits
def test_projection_keeps_known_samples_and_data_fidelity_is_their_mean_squared_error(gaps: Gaps, seed: int) -> None:
    degradation, missing = Missing(gaps), gaps.mask(0, 40)
    samples, estimate = noise(2, 2, 40, seed=seed)
    projected = degradation.project(estimate, samples)
    np.testing.assert_array_equal(projected, np.where(missing, estimate, samples))
    assert degradation.affected(samples).any() == missing.any()

    leaf = torch.tensor(estimate, requires_grad=True)
    data_fidelity = degradation.data_fidelity(leaf, torch.tensor(samples))
    data_fidelity.backward()  # type: ignore[no-untyped-call]
    assert data_fidelity.item() == pytest.approx(np.sum((estimate - projected) ** 2) / max(1, (~missing).sum()))
    assert leaf.grad is not None
    np.testing.assert_array_equal(leaf.grad.numpy() == 0, missing)
    assert degradation.data_fidelity(torch.tensor(projected), torch.tensor(samples)) == 0


@given(stereo_gaps, st.integers(0, 30), st.integers(1, 20))
def test_a_part_has_the_gaps_that_are_in_it(gaps: Gaps, start: int, length: int) -> None:
    part = Missing(gaps).part(start, start + length)
    expected = gaps.mask(start, start + length)
    np.testing.assert_array_equal(part.gaps.mask(0, length), expected)
    assert part.affected(np.zeros((2, length))).any() == expected.any()
    assert part.part(length // 2, length).gaps == gaps.part(start + length // 2, start + length)


def test_texture_fills_long_gaps_in_noise_and_leaves_the_rest() -> None:
    hiss = noise(1, LENGTH)
    degradation = Missing(Gaps((((500, 550), (1000, 1400)),)))
    estimate = degradation.project(np.zeros_like(hiss), hiss)
    textured = degradation.add_texture(estimate, hiss, RATE, 0)
    assert np.std(textured[0, 1000:1400]) == pytest.approx(0.1, rel=0.3)
    np.testing.assert_array_equal(np.delete(textured, np.s_[1000:1400]), np.delete(estimate, np.s_[1000:1400]))
    np.testing.assert_array_equal(degradation.add_texture(estimate, hiss, RATE, 0), textured)
    # What is predicted for the larger part is left as it is.
    np.testing.assert_array_equal(degradation.add_texture(3 * hiss, hiss, RATE, 0), 3 * hiss)
