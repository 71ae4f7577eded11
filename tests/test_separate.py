"""Separation as a whole, on small mixtures: sources sum to the mixture, in any format, and keep their places."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dapcli import TASKS, Audio, Progress, Result, Settings, separate
from dapcli.errors import InputError, SettingsError
from dapcli.pipeline.segments import plan
from dapcli.priors import NO_PRIOR
from dapcli.signal.separation import separate_types
from tests.signals import RATE, Samples, clicks, noise, snr_db, tone

PRESETS = TASKS["separate"].presets
MASKS = replace(PRESETS["quality"], prior="conv", base_channels=4, iterations=2, hop=0.032)
DIP = replace(PRESETS["double-dip"], prior="conv", base_channels=2, iterations=2)
ESTIMATORS = pytest.mark.parametrize("settings", [MASKS, DIP], ids=["ratio-mask", "double-dip"])
TYPES = ("harmonic", "percussive")


def sources(seconds: float = 0.5, channels: int = 1) -> Samples:
    """A steady tone and clicks, of another pitch and level in every channel: ``[2, C, N]``."""
    number = np.arange(1, channels + 1)[:, None]
    tones = np.concatenate([tone(440.0 * n, seconds) for n in number[:, 0]])
    return np.stack([tones / number, clicks(seconds) * number])


def mixture(seconds: float = 0.5, channels: int = 1) -> Audio:
    return Audio(sources(seconds, channels).sum(axis=0), RATE)


def separated(recording: Audio, *types: str, settings: Settings = MASKS, **options: Any) -> Result:
    return separate(recording, types or TYPES, settings, device="cpu", **options)


def samples_of(result: Result) -> Samples:
    return result.estimates.read(0, result.estimates.length)


# What comes out


FOLDED = replace(PRESETS["quality"], iterations=20, fold=2)


def test_a_tone_and_clicks_are_separated() -> None:
    clean = sources(1.0)
    result = separated(Audio(clean.sum(axis=0), RATE), settings=FOLDED)
    assert result.estimates.types == TYPES
    for source, estimate in zip(clean, result.estimates, strict=True):
        assert snr_db(source, estimate.audio.samples) > 10


def test_the_network_learns_what_changes_over_time() -> None:
    notes = np.concatenate([tone(440, 0.5), tone(1000, 0.5)], axis=1)
    (fit,) = separated(Audio(notes + clicks(1.0), RATE), settings=FOLDED).segments
    assert fit.validation is not None
    assert fit.validation < 1


@ESTIMATORS
@pytest.mark.parametrize(("types", "channels"), [(TYPES, 1), (("voice", "voice", "harmonic", "percussive"), 2)])
def test_sources_are_an_axis_and_sum_to_the_mixture(types: Any, channels: int, settings: Settings) -> None:
    recording = mixture(channels=channels)
    result = separated(recording, *types, settings=settings)
    whole = samples_of(result)
    assert whole.shape == (len(types), channels, recording.length)
    assert result.estimates.types == (types if settings is MASKS else ("source",) * len(types))
    np.testing.assert_allclose(whole.sum(axis=0), recording.samples, atol=1e-12)
    for source, estimate in zip(whole, result.estimates, strict=True):
        assert (estimate.rate, estimate.channels, estimate.length) == (RATE, channels, recording.length)
        np.testing.assert_array_equal(estimate.audio.samples, source)
    with pytest.raises(IndexError):
        result.estimates[len(types)]
    np.testing.assert_array_equal(result.estimates.read(700, 1_400), whole[..., 700:1_400])


@ESTIMATORS
@pytest.mark.parametrize("length", [2, 3, 50, 1_001])
def test_the_shortest_mixtures_are_separated(length: int, settings: Settings) -> None:
    recording = Audio(noise(1, length), RATE)
    found = samples_of(separated(recording, settings=settings))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=0), recording.samples, atol=1e-12)


@ESTIMATORS
def test_neither_the_level_nor_a_working_rate_changes_what_sources_sum_to(settings: Settings) -> None:
    recording = mixture(0.3)
    quiet, loud = (samples_of(separated(Audio(k * recording.samples, RATE), settings=settings)) for k in (1, 64))
    np.testing.assert_allclose(loud / 64, quiet, atol=1e-4)
    for rate in (16_000, 12_000):
        result = separated(recording, settings=replace(settings, rate=rate))
        assert (result.rate, result.estimates.rate) == (rate, RATE)
        np.testing.assert_allclose(samples_of(result).sum(axis=0), recording.samples, atol=1e-12)


@pytest.mark.parametrize("settings", [replace(MASKS, iterations=8), replace(MASKS, prior=NO_PRIOR)])
def test_where_there_is_no_network_or_nothing_to_learn_the_classical_separation_is_kept(settings: Settings) -> None:
    recording = Audio(noise(1, RATE), RATE)
    result = separated(recording, settings=settings)
    (fit,) = result.segments
    if settings.prior == NO_PRIOR:
        assert (fit.iterations, fit.parameters, fit.notes) == ((), 0, ())
    else:
        assert any("the classical separation was kept" in note for note in result.notes)
    classical = separate_types(recording.samples, RATE, TYPES, 0)
    for source, expected in zip(samples_of(result), classical, strict=True):
        assert snr_db(expected, source) > 6  # its masks, in another STFT


# Double-DIP


def test_the_oracle_takes_references_in_any_order() -> None:
    references = [Audio(noise(1, 2_000, seed=seed), RATE) for seed in (0, 1)]
    recording = Audio(references[0].samples + references[1].samples, RATE)
    oracle = replace(DIP, stop="oracle", iterations=6)
    one, other = (separated(recording, settings=oracle, references=each) for each in (references, references[::-1]))
    np.testing.assert_array_equal(samples_of(one), samples_of(other))
    criteria = [[step.criterion for step in result.segments[0].iterations] for result in (one, other)]
    assert criteria[0] == pytest.approx(criteria[1])


# Long mixtures

LONG = replace(MASKS, segment=1.5)


def test_sources_of_one_type_stay_in_their_files_through_all_segments() -> None:
    low, high = tone(250, 3.5), tone(1900, 3.5)
    swell = np.sin(np.pi * np.arange(low.shape[1]) / RATE)
    low, high = low * (1.2 + swell), high * (1.2 - swell)  # their order by level changes from segment to segment
    result = separated(Audio(low + high, RATE), "harmonic", "harmonic", settings=LONG)
    assert len(result.segments) > 2
    one, other = samples_of(result)
    assert max(min(snr_db(low, one), snr_db(high, other)), min(snr_db(low, other), snr_db(high, one))) > 9


def test_progress_covers_every_iteration_and_a_silent_segment_stays_silent() -> None:
    recording = mixture(4.0)
    start, stop = plan(recording, LONG)[1]
    recording.samples[:, start:stop] = 0
    seen: list[Progress] = []
    result = separated(recording, settings=LONG, on_step=seen.append)
    assert seen[-1].completed == seen[-1].total == MASKS.iterations * len(plan(recording, LONG))
    assert not samples_of(result)[:, :, start + RATE // 2 : stop - RATE // 2].any()
    assert "silence" in result.notes[0]


# What is refused


def test_mixtures_that_are_silent_or_have_other_references_are_refused(no_fit: None) -> None:
    for silence in (np.zeros((1, 4_000)), np.zeros((2, 10))):
        with pytest.raises(InputError, match="silent"):
            separated(Audio(silence, RATE))
    one = [Audio(source, RATE) for source in sources()][:1]
    with pytest.raises(InputError, match="1 references for 2 sources"):
        separated(mixture(), references=one)
    with pytest.raises(InputError, match="a reference has 1 channel of 4000 samples"):
        separated(mixture(1.0), references=one * 2)
    with pytest.raises(SettingsError, match="--no-consistent"):
        separated(mixture(), consistent=False)
