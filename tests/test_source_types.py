"""Kinds of sources: the classical separation takes a mixture apart, loses nothing, and keeps sources in their order."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from dapcli.audio import Audio
from dapcli.errors import SettingsError
from dapcli.metrics.waveform import snr_db
from dapcli.pipeline.segments import align, plan_segments
from dapcli.signal.separation import separate_types
from dapcli.signal.source_types import DEFAULT_TYPES, SOURCE_TYPES, check_types, default_names

Samples = NDArray[np.float64]

RATE = 8_000
KIND_LISTS = st.lists(st.sampled_from(list(SOURCE_TYPES)), min_size=2, max_size=4).map(tuple)


def tone(pitch: float, seconds: float = 1.0) -> Samples:
    return 0.3 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * RATE)) / RATE)[None]


def clicks(seconds: float = 1.0) -> Samples:
    """Two a second, of 5 ms each, about as loud as the tone."""
    samples = np.zeros((1, round(seconds * RATE)))
    samples[:, RATE // 10 :: RATE // 2] = 8.0
    decay = np.exp(-np.arange(RATE // 200) / 10) * np.cos(2 * np.pi * 0.3 * np.arange(RATE // 200))
    return np.convolve(samples[0], decay)[None, : samples.shape[1]]


@pytest.mark.parametrize("turned", [False, True])
def test_a_sine_and_clicks_come_apart(turned: bool) -> None:
    sources = [tone(440), clicks()]
    kinds = ["harmonic", "percussive"]
    if turned:
        sources, kinds = sources[::-1], kinds[::-1]
    parts = separate_types(np.sum(sources, axis=0), RATE, kinds, seed=0)
    for source, part in zip(sources, parts, strict=True):
        assert snr_db(source, part, RATE) > 15


def test_a_glide_is_a_voice_beside_a_steady_tone_and_clicks() -> None:
    seconds = np.arange(2 * RATE) / RATE
    glide = 0.3 * np.sin(2 * np.pi * (1000 * seconds + 5 * np.sin(2 * np.pi * 3 * seconds)))[None]
    sources = [tone(300, 2.0), glide, clicks(2.0)]
    parts = separate_types(np.sum(sources, axis=0), RATE, DEFAULT_TYPES[3], seed=0)
    for index, part in enumerate(parts):
        assert int(np.argmax([snr_db(source, part, RATE) for source in sources])) == index


def test_two_sources_of_one_kind_share_out_its_notes() -> None:
    low, high = tone(250) * (np.arange(RATE) < RATE // 2), tone(2500) * (np.arange(RATE) >= RATE // 2)
    parts = separate_types(low + high, RATE, ("harmonic", "harmonic"), seed=0)
    for source, part in zip((low, high), parts, strict=True):
        assert snr_db(source, part, RATE) > 15


@settings(max_examples=40, deadline=None)
@given(KIND_LISTS, st.integers(1, 3_000), st.integers(1, 2), st.integers(0, 2**32 - 1))
def test_the_parts_sum_to_the_mixture(kinds: tuple[str, ...], length: int, channels: int, seed: int) -> None:
    mixture = np.random.default_rng(seed).standard_normal((channels, length))
    parts = separate_types(mixture, RATE, kinds, seed=0)
    assert parts.shape == (len(kinds), channels, length)
    assert np.isfinite(parts).all()
    np.testing.assert_allclose(parts.sum(axis=0), mixture, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(KIND_LISTS, st.integers(-20, 10))
def test_level_does_not_matter(kinds: tuple[str, ...], exponent: int) -> None:
    mixture, scale = tone(330, 0.2) + clicks(0.2), 2.0**exponent
    plain, scaled = (separate_types(level * mixture, RATE, kinds, seed=0) for level in (1.0, scale))
    np.testing.assert_allclose(scaled, scale * plain, atol=1e-6 * scale)


@given(KIND_LISTS, st.integers(1, 2_000))
@settings(max_examples=15, deadline=None)
def test_silence_has_silent_parts(kinds: tuple[str, ...], length: int) -> None:
    parts = separate_types(np.zeros((2, length)), RATE, kinds, seed=0)
    np.testing.assert_array_equal(parts, np.zeros((len(kinds), 2, length)))


def test_the_seed_decides_how_one_kind_is_divided() -> None:
    mixture = np.random.default_rng(1).standard_normal((1, 2_000))
    first, same, other = (separate_types(mixture, RATE, ("voice", "voice"), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("kinds", "reason"),
    [
        (("harmonic", "piano"), "unknown type 'piano'.*harmonic, voice, percussive"),
        (("harmonic",), "2 to 4 sources, and 1 "),
        ((), "2 to 4 sources"),
        (("voice",) * 5, "2 to 4 sources, and 5 "),
    ],
)
def test_kinds_that_cannot_be_are_refused(kinds: tuple[str, ...], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        check_types(kinds)


@given(KIND_LISTS)
def test_every_source_has_a_name_of_its_own_that_begins_with_its_kind(kinds: tuple[str, ...]) -> None:
    names = default_names(kinds)
    assert len(set(names)) == len(kinds)
    assert all(name.startswith(kind) for name, kind in zip(names, kinds, strict=True))
    for kind in set(kinds):
        assert (kind in names) == (kinds.count(kind) == 1)


def test_default_kinds_are_kinds() -> None:
    for count, kinds in DEFAULT_TYPES.items():
        assert len(kinds) == count
        check_types(kinds)


# From segment to segment


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b"]), min_size=2, max_size=4),
    st.integers(1, 2),
    st.randoms(use_true_random=False),
)
def test_sources_of_one_kind_go_on_from_segment_to_segment(kinds: list[str], channels: int, random: object) -> None:
    segments = plan_segments(1_000, 300, 60)
    sources = np.random.default_rng(3).standard_normal((len(kinds), channels, 1_000))
    allowed = [order for order in permutations(range(len(kinds))) if [kinds[i] for i in order] == kinds]
    orders = [allowed[0], *(random.choice(allowed) for _ in segments[1:])]  # type: ignore[attr-defined]

    def load(index: int) -> Samples:
        start, stop = segments[index]
        return np.concatenate(sources[list(orders[index]), :, start:stop])

    in_order = align(segments, kinds, load)
    for index, (start, stop) in enumerate(segments):
        np.testing.assert_array_equal(in_order(index), np.concatenate(sources[:, :, start:stop]))


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float64, (2, 3, 200), elements=st.floats(-1, 1)))
def test_sources_never_change_places_with_those_of_another_kind(noise: Samples) -> None:
    segments = plan_segments(300, 200, 60)
    assume(len(segments) == 2)
    kinds = ["a", "b", "b"]
    parts = [noise[index, :, : stop - start] for index, (start, stop) in enumerate(segments)]
    aligned = align(segments, kinds, parts.__getitem__)(1)
    np.testing.assert_array_equal(aligned[0], parts[1][0])
    assert sorted(map(tuple, aligned[1:])) == sorted(map(tuple, parts[1][1:]))


def test_recordings_of_one_segment_are_as_they_are() -> None:
    part = Audio(tone(440), RATE).samples
    assert align([(0, RATE)], ["a", "a"], lambda _: part)(0) is part
