"""Separation as a whole, on small mixtures: sources sum to the mixture, in any format, and keep their places."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import soundfile
from torch import Tensor

from dapcli import TASKS, Audio, Progress, Result, Settings, separate
from dapcli.audio import encode
from dapcli.errors import InputError, SettingsError
from dapcli.fit import Network, Step
from dapcli.objectives.double_dip import DoubleDIP
from dapcli.pipeline.segments import plan
from dapcli.priors import NO_PRIOR, PRIORS
from dapcli.signal.separation import separate_types
from tests.signals import RATE, Samples, clicks, noise, snr_db, tone

PRESETS = TASKS["separate"].presets
MASKS = replace(PRESETS["quality"], prior="conv", base_channels=4, iterations=2, hop=0.032)
DIP = replace(PRESETS["double-dip"], prior="conv", base_channels=2, iterations=2)
ESTIMATORS = pytest.mark.parametrize("settings", [MASKS, DIP], ids=["ratio-mask", "double-dip"])
TYPES = ("harmonic", "percussive")
STEPS = {"PCM_U8": 2.0**-7, "PCM_16": 2.0**-15, "PCM_24": 2.0**-23, "FLOAT": 2.0**-22}


def sources(seconds: float = 0.5, channels: int = 1) -> Samples:
    """A steady tone and clicks, of another pitch and level in every channel: ``[2, C, N]``."""
    number = np.arange(1, channels + 1)[:, None]
    tones = np.concatenate([tone(440.0 * n, seconds) for n in number[:, 0]])
    return np.stack([tones / number, clicks(seconds) * number])


def mixture(seconds: float = 0.5, channels: int = 1, subtype: str = "FLOAT") -> Audio:
    """As a file of this subtype would hold it."""
    return decoded(Audio(sources(seconds, channels).sum(axis=0), RATE, subtype))


def decoded(audio: Audio) -> Audio:
    samples, _ = soundfile.read(io.BytesIO(encode(audio)), dtype="float64", always_2d=True)
    return audio.with_samples(samples.T)


def separated(recording: Audio, *types: str, settings: Settings = MASKS, **options: Any) -> Result:
    return separate(recording, types or TYPES, settings, device="cpu", **options)


def samples_of(result: Result) -> Samples:
    return result.estimates.read(0, result.estimates.length)


# What comes out


def test_the_default_preset_separates_a_tone_and_clicks() -> None:
    clean = sources(1.0)
    result = separate(Audio(clean.sum(axis=0), RATE), device="cpu")
    assert result.estimates.types == TYPES
    for source, estimate in zip(clean, result.estimates, strict=True):
        assert snr_db(source, estimate.audio.samples) > 10
    (fit,) = result.segments
    assert fit.validation is not None
    assert fit.validation < 1


@ESTIMATORS
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("types", [TYPES, ("voice", "voice", "harmonic", "percussive")])
def test_sources_are_an_axis_and_sum_to_the_mixture(channels: int, types: Any, settings: Settings) -> None:
    recording = mixture(channels=channels)
    result = separated(recording, *types, settings=settings)
    whole = samples_of(result)
    assert whole.shape == (len(types), channels, recording.length)
    assert result.estimates.types == (types if settings is MASKS else ("source",) * len(types))
    np.testing.assert_allclose(whole.sum(axis=0), recording.samples, atol=1e-12)
    assert len(result.estimates) == len(types)
    for source, estimate in zip(whole, result.estimates, strict=True):
        assert (estimate.rate, estimate.channels, estimate.length) == (RATE, channels, recording.length)
        np.testing.assert_array_equal(estimate.audio.samples, source)
    with pytest.raises(IndexError):
        result.estimates[len(types)]
    part = result.estimates.read(700, 1_400)
    assert part.shape == (len(types), channels, 700)
    np.testing.assert_array_equal(part, whole[..., 700:1_400])


@ESTIMATORS
@pytest.mark.parametrize("length", [2, 3, 50, 1_001])
def test_the_shortest_mixtures_are_separated(length: int, settings: Settings) -> None:
    recording = Audio(noise(1, length), RATE)
    found = samples_of(separated(recording, settings=settings))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=0), recording.samples, atol=1e-12)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("subtype", STEPS)
def test_files_sum_to_the_file_of_the_mixture(subtype: str, count: int) -> None:
    recording = mixture(channels=2, subtype=subtype)
    files = [
        decoded(each.audio) for each in separated(recording, *("harmonic", "voice", "percussive")[-count:]).estimates
    ]
    assert {file.subtype for file in files} == {subtype}
    total = np.sum([file.samples for file in files], axis=0)
    np.testing.assert_allclose(total, recording.samples, rtol=0, atol=1.001 * STEPS[subtype])


def test_a_source_past_full_scale_lowers_all_by_one_gain() -> None:
    loud = Audio(4 * mixture().samples, RATE)
    result = separated(loud)
    written = result.estimates.as_file("WAV", "PCM_16")
    peak = np.abs(samples_of(result)).max()
    assert peak > 1
    assert written.gain == pytest.approx(1 / peak)
    files = np.stack([decoded(each.audio).samples for each in written])
    # The lowered mixture is no longer on the steps, and the peak itself is one too high for the format.
    np.testing.assert_allclose(files.sum(axis=0), written.gain * loud.samples, atol=1.501 * STEPS["PCM_16"])
    np.testing.assert_allclose(files, written.gain * samples_of(result), atol=2 * STEPS["PCM_16"])
    assert result.estimates.as_file("WAV", "FLOAT").gain == 1


@ESTIMATORS
def test_the_same_seed_gives_the_same_bits_and_another_does_not(settings: Settings) -> None:
    types = ("voice", "voice", "percussive")
    # Until the network has found more than the classical separation.
    longer = replace(settings, iterations=8) if settings is MASKS else settings
    recording = mixture(1.0)
    results = (separated(recording, *types, settings=replace(longer, seed=seed)) for seed in (0, 0, 1))
    first, again, other = map(samples_of, results)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


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


@pytest.mark.parametrize("prior", PRIORS)
def test_every_prior_separates(prior: str) -> None:
    recording = Audio(noise(1, 2_000), RATE)
    free = separated(recording, settings=replace(DIP, prior=prior), consistent=False)
    assert np.isfinite(samples_of(free)).all()
    assert np.abs(samples_of(free).sum(axis=0) - recording.samples).max() > 0.01


class Scripted(DoubleDIP):
    """An objective whose second source is this much of the mixture, by seed, whatever the networks say."""

    levels: dict[int, float]

    def step(self, network: Network, state: int, generator: Any) -> Step:
        step = super().step(network, state, generator)
        whole: Tensor = self.initial.sum(dim=0)
        levels = self.initial.new_tensor([1.0, self.levels[generator.initial_seed()]])
        return replace(step, estimate=levels.reshape(2, 1, 1, 1, 1) * whole)


AGAIN = "source 2 was silent; fitted again with seed"


@pytest.mark.parametrize(
    ("levels", "seed", "level", "notes"),
    [
        ({0: 0.2}, 0, 0.2, ()),
        ({5: 0.0, 6: 0.05, 7: 0.3}, 5, 0.3, (f"{AGAIN} 6", f"{AGAIN} 7")),
        (
            {0: 0.0, 1: 0.02, 2: 0.05, 3: 0.01},
            0,
            0.05,
            ("1", "2", "3", "source 2 was silent; the fit with seed 2 is kept"),
        ),
    ],
)
def test_a_silent_source_is_fitted_again_and_the_best_fit_is_kept(
    levels: dict[int, float], seed: int, level: float, notes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dapcli.objectives.double_dip.DoubleDIP", Scripted)
    monkeypatch.setattr(Scripted, "levels", levels, raising=False)
    tiny = replace(DIP, seed=seed, iterations=1)
    result = separated(Audio(noise(1, 2_000), RATE), settings=tiny, consistent=False)
    assert len(result.notes) == len(notes)
    assert all(note.endswith(end) for note, end in zip(result.notes, notes, strict=True))
    first, second = np.abs(samples_of(result)).max(axis=(1, 2))
    assert second / first == pytest.approx(level, rel=1e-3)
    if len(notes) == 2:  # in long mixtures they say where
        result = separated(Audio(noise(1, 2 * RATE), RATE), settings=replace(tiny, segment=1.5))
        assert result.notes[0].startswith("from 0.00 to 1.25 s source 2 was silent; fitted again")
        assert result.notes[-1] == f"from 0.75 to 2.00 s {notes[-1]}"


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
    seconds = np.arange(low.shape[1]) / RATE
    # Their order by level changes from segment to segment.
    low, high = low * (1.2 + np.sin(2 * np.pi * seconds / 2)), high * (1.2 - np.sin(2 * np.pi * seconds / 2))
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


def test_mixtures_that_are_silent_or_have_other_references_are_refused() -> None:
    for silence in (np.zeros((1, 4_000)), np.zeros((2, 10))):
        with pytest.raises(InputError, match="silent"):
            separated(Audio(silence, RATE))
    clean = [Audio(source, RATE) for source in sources()]
    with pytest.raises(InputError, match="1 references for 2 sources"):
        separated(mixture(), references=clean[:1])


@pytest.mark.parametrize(
    ("types", "options", "reason"),
    [
        (("harmonic",), {}, "2 to 4"),
        (("harmonic", "noise"), {}, "unknown type 'noise'"),
        (TYPES, {"consistent": False}, "--no-consistent belongs to --estimator double-dip"),
        (TYPES, {"settings": replace(MASKS, post_filter="wiener")}, "--post-filter"),
    ],
)
def test_what_does_not_suit_is_refused(types: tuple[str, ...], options: Any, reason: str, no_fit: None) -> None:
    with pytest.raises(SettingsError, match=reason):
        separated(mixture(), *types, **options)
