"""Sources of a mixture: the classical separation by their types, their names, matching, ratio masks and levels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dapcli.errors import SettingsError
from dapcli.metrics.waveform import snr_db
from dapcli.signal.separation import separate_types
from dapcli.signal.source_types import DEFAULT_TYPES, SOURCE_TYPES, check_types, default_names
from dapcli.signal.sources import levels, match, ratio_masked
from tests import signals
from tests.signals import RATE, Samples, clicks, tone

TYPES = st.lists(st.sampled_from(list(SOURCE_TYPES)), min_size=2, max_size=4).map(tuple)


def of_types(mixture: Samples, *types: str, seed: int = 0) -> Samples:
    return separate_types(mixture, RATE, types, seed)


@pytest.mark.parametrize("types", [("harmonic", "percussive"), ("percussive", "harmonic")])
def test_a_sine_and_clicks_come_apart(types: tuple[str, ...]) -> None:
    sources = {"harmonic": tone(440), "percussive": 16 * clicks()}
    for name, part in zip(types, of_types(sources["harmonic"] + sources["percussive"], *types), strict=True):
        assert snr_db(sources[name], part, RATE) > 15


@pytest.mark.parametrize(("struck", "least"), [("low", 18), ("high", 14.5), ("hiss", 9.5)])
def test_what_is_struck_and_rings_is_percussive(struck: str, least: float) -> None:
    seconds = np.arange(2 * RATE) / RATE
    decay = np.exp(-(seconds % 1) / (0.4 if struck == "hiss" else 0.05))
    rings = {
        "low": 0.5 * np.sin(2 * np.pi * 100 * seconds),
        "high": 0.5 * np.sin(2 * np.pi * 600 * seconds),
        "hiss": signals.noise(1, 2 * RATE, std=0.1),
    }
    sources = tone(440, 2.0), np.atleast_2d(decay * rings[struck])
    for source, part in zip(sources, of_types(sources[0] + sources[1], "harmonic", "percussive"), strict=True):
        assert snr_db(source, part, RATE) > least


def test_a_glide_is_a_voice_beside_a_steady_tone_and_clicks() -> None:
    seconds = np.arange(2 * RATE) / RATE
    glide = 0.3 * np.sin(2 * np.pi * (1000 * seconds + 5 * np.sin(2 * np.pi * 3 * seconds)))[None]
    sources = [tone(300, 2.0), glide, 16 * clicks(2.0)]
    parts = of_types(np.sum(sources, axis=0), *DEFAULT_TYPES[3])
    for index, part in enumerate(parts):
        assert int(np.argmax([snr_db(source, part, RATE) for source in sources])) == index


def test_two_sources_of_one_type_divide_its_notes() -> None:
    low, high = tone(250) * (np.arange(RATE) < RATE // 2), tone(2500) * (np.arange(RATE) >= RATE // 2)
    for source, part in zip((low, high), of_types(low + high, "harmonic", "harmonic"), strict=True):
        assert snr_db(source, part, RATE) > 15


@settings(max_examples=40, deadline=None)
@given(TYPES, st.integers(1, 3_000), st.integers(1, 2), st.integers(0, 2**32 - 1))
def test_the_parts_sum_to_the_mixture(types: tuple[str, ...], length: int, channels: int, seed: int) -> None:
    mixture = np.random.default_rng(seed).standard_normal((channels, length))
    parts = of_types(mixture, *types)
    assert parts.shape == (len(types), channels, length)
    np.testing.assert_allclose(parts.sum(axis=0), mixture, atol=1e-9)
    assert not of_types(0 * mixture, *types).any()


@settings(max_examples=15, deadline=None)
@given(TYPES, st.integers(-20, 10))
def test_level_does_not_matter(types: tuple[str, ...], exponent: int) -> None:
    mixture, scale = tone(330, 0.2) + clicks(0.2), 2.0**exponent
    np.testing.assert_allclose(of_types(scale * mixture, *types), scale * of_types(mixture, *types), atol=1e-6 * scale)


def test_the_seed_decides_how_one_type_is_divided() -> None:
    mixture = signals.noise(1, 2_000, std=1.0)
    first, same, other = (of_types(mixture, "voice", "voice", seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, same) > np.array_equal(first, other)


# Types and names


def test_default_types_are_types_and_others_are_refused() -> None:
    for count, types in DEFAULT_TYPES.items():
        assert len(types) == count
        check_types(types)
    with pytest.raises(SettingsError, match="unknown type 'piano'"):
        check_types(("harmonic", "piano"))
    for count in (0, 1, 5):
        with pytest.raises(SettingsError, match=f"2 to 4 sources, and {count} "):
            check_types(("voice",) * count)


@given(TYPES)
def test_every_source_has_a_name_of_its_own_that_begins_with_its_type(types: tuple[str, ...]) -> None:
    names = default_names(types)
    assert len(set(names)) == len(types)
    for name, each in zip(names, types, strict=True):
        assert name.startswith(each)
        assert (name == each) == (types.count(each) == 1)


# Matching, ratio masks and levels


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(signals.noise(*shape, seed=seed))


def test_sources_of_one_type_are_matched_in_any_order_and_others_not() -> None:
    errors = np.array([[5.0, 1.0, 0.0], [1.0, 5.0, 0.0], [0.0, 0.0, 9.0]])
    assert match(errors, ["a", "a", "a"]).tolist() in ([1, 2, 0], [2, 0, 1])
    assert match(errors, ["a", "a", "b"]).tolist() == [1, 0, 2]
    assert match(errors, ["a", "b", "c"]).tolist() == [0, 1, 2]


def test_ratio_masks_are_powers_relative_to_their_sum_and_equal_without_any() -> None:
    mixture, sources = noise(2, 2, 9, 5), noise(3, 2, 2, 9, 5, seed=1)
    masked = ratio_masked(mixture, sources)
    torch.testing.assert_close(masked.sum(dim=0), mixture)
    powers = sources.square().sum(dim=2)
    torch.testing.assert_close(masked[0, :, 1], mixture[:, 1] * powers[0] / powers.sum(dim=0))
    torch.testing.assert_close(ratio_masked(mixture, 0 * sources), (mixture / 3).expand_as(sources))


def test_levels_are_energies_relative_to_that_of_all_sources() -> None:
    source = noise(2, 2, 8, 5)
    torch.testing.assert_close(levels(torch.stack([3 * source, source])), torch.tensor([0.9, 0.1]).double())
    assert not levels(torch.zeros(2, 2, 2, 8, 5)).any()
