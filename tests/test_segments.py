"""Segments: they cover a recording, fit into memory, and join without a seam."""

from __future__ import annotations

import weakref
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dapcli.pipeline.segments import Joined, fade_weights, plan_segments


@st.composite
def plans(draw: st.DrawFn) -> tuple[int, int, int]:
    """A length, a longest segment and an overlap that are allowed."""
    overlap = draw(st.integers(1, 60))
    longest = draw(st.integers(3 * overlap, 5 * overlap + 200))
    return draw(st.integers(1, 3_000)), longest, overlap


def coverage(length: int, segments: list[tuple[int, int]]) -> list[int]:
    """How many segments hold each sample."""
    counts = np.zeros(length, dtype=int)
    for start, stop in segments:
        counts[start:stop] += 1
    return [int(count) for count in counts]


@given(plans())
def test_segments_cover_every_sample_and_nothing_else(plan: tuple[int, int, int]) -> None:
    length, longest, overlap = plan
    segments = plan_segments(length, longest, overlap)
    assert segments[0][0] == 0
    assert segments[-1][1] == length
    assert all(0 <= start < stop <= length for start, stop in segments)
    assert min(coverage(length, segments)) >= 1


@given(plans())
def test_no_segment_is_longer_than_asked(plan: tuple[int, int, int]) -> None:
    _, longest, _ = plan
    assert all(stop - start <= longest for start, stop in plan_segments(*plan))


@given(plans())
def test_segments_have_one_size_so_that_none_is_a_short_rest(plan: tuple[int, int, int]) -> None:
    assert len({stop - start for start, stop in plan_segments(*plan)}) == 1


@given(plans())
def test_neighbours_share_the_overlap_or_one_sample_more(plan: tuple[int, int, int]) -> None:
    segments = plan_segments(*plan)
    shared = {before[1] - after[0] for before, after in pairwise(segments)}
    assert shared <= {plan[2], plan[2] + 1}


@given(plans())
def test_at_most_two_segments_meet_anywhere(plan: tuple[int, int, int]) -> None:
    assert max(coverage(plan[0], plan_segments(*plan))) <= 2


@given(plans())
def test_weights_are_a_partition_of_one(plan: tuple[int, int, int]) -> None:
    segments = plan_segments(*plan)
    total = np.zeros(plan[0])
    for index, (start, stop) in enumerate(segments):
        weights = fade_weights(segments, index)
        assert weights.shape == (stop - start,)
        assert ((weights >= 0) & (weights <= 1)).all()
        total[start:stop] += weights
    np.testing.assert_allclose(total, 1.0, rtol=0, atol=1e-12)


@given(plans(), st.integers(0, 2**32 - 1))
def test_pieces_that_agree_join_to_the_recording(plan: tuple[int, int, int], seed: int) -> None:
    samples = np.random.default_rng(seed).standard_normal(plan[0])
    segments = plan_segments(*plan)
    joined = np.zeros(plan[0])
    for index, (start, stop) in enumerate(segments):
        joined[start:stop] += samples[start:stop] * fade_weights(segments, index)
    np.testing.assert_allclose(joined, samples, rtol=0, atol=1e-12)


def test_a_recording_that_fits_is_one_segment_with_full_weight() -> None:
    segments = plan_segments(100, 100, 10)
    assert segments == [(0, 100)]
    assert (fade_weights(segments, 0) == 1).all()


def test_one_sample_too_many_makes_two_segments() -> None:
    assert len(plan_segments(101, 100, 10)) == 2


def test_cross_fade_falls_from_one_segment_to_the_next_without_a_step() -> None:
    segments = plan_segments(1_000, 600, 200)
    falling = fade_weights(segments, 0)
    assert falling[0] == 1
    assert (np.diff(falling) <= 0).all()
    assert np.abs(np.diff(falling)).max() < 0.01
    assert falling[-1] < 1e-4
    np.testing.assert_allclose(fade_weights(segments, 1)[::-1], falling, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("longest", "overlap"), [(29, 10), (10, 0), (10, -1)])
def test_segments_too_short_for_their_overlaps_are_refused(longest: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="three overlaps"):
        plan_segments(1_000, longest, overlap)


def estimates(segments: list[tuple[int, int]], channels: int = 1) -> list[np.ndarray]:
    """Samples ``[C, n]`` of segments that do not agree where they overlap, as fits do not."""
    rng = np.random.default_rng(len(segments))
    return [rng.standard_normal((channels, stop - start)).astype(np.float32) for start, stop in segments]


@given(plans(), st.integers(1, 3), st.lists(st.floats(0, 1), max_size=20))
def test_blocks_of_joined_segments_are_parts_of_the_whole(
    plan: tuple[int, int, int], channels: int, cuts: list[float]
) -> None:
    length = plan[0]
    segments = plan_segments(*plan)
    parts = estimates(segments, channels)
    whole = np.zeros((channels, length))
    for index, (start, stop) in enumerate(segments):
        whole[:, start:stop] += parts[index] * fade_weights(segments, index)
    joined = Joined(segments, channels, parts.__getitem__)
    assert (joined.channels, joined.length) == (channels, length)
    bounds = sorted({0, *(round(cut * length) for cut in cuts), length})
    blocks = [joined.read(start, stop) for start, stop in pairwise(bounds)]
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), joined.read(0, length))
    np.testing.assert_allclose(joined.read(0, length), whole, rtol=0, atol=1e-12)


@given(plans())
def test_segments_of_ones_join_to_ones(plan: tuple[int, int, int]) -> None:
    segments = plan_segments(*plan)
    joined = Joined(segments, 1, lambda index: np.ones((1, segments[index][1] - segments[index][0]), np.float32))
    np.testing.assert_allclose(joined.read(0, plan[0]), 1.0, rtol=0, atol=1e-12)


def test_reading_in_order_loads_every_segment_once_and_keeps_two() -> None:
    segments = plan_segments(1_000, 120, 30)
    loaded: list[int] = []
    living: dict[int, weakref.ref[np.ndarray]] = {}

    def count() -> int:
        return sum(segment() is not None for segment in living.values())

    def load(index: int) -> np.ndarray:
        assert count() <= 2
        start, stop = segments[index]
        segment = np.zeros((1, stop - start))
        loaded.append(index)
        living[index] = weakref.ref(segment)
        return segment

    joined = Joined(segments, 1, load)
    for start in range(0, 1_000, 20):
        joined.read(start, start + 20)
        assert count() <= 2
    assert loaded == list(range(len(segments)))
    assert len(segments) > 10


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (0, 101), (100, 101), (7, 6)])
def test_reading_outside_of_joined_segments_is_refused(start: int, stop: int) -> None:
    segments = plan_segments(100, 60, 20)
    joined = Joined(segments, 1, estimates(segments).__getitem__)
    with pytest.raises(ValueError, match="is not within 0 to 100"):
        joined.read(start, stop)
    assert joined.read(100, 100).shape == (1, 0)
