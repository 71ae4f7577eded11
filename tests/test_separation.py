"""Separation on arrays: the sources sum to the mixture, in any format, and keep their places in long recordings."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from dapcli import SEPARATION_PRESETS, Audio, Progress, Separation, Settings, separate
from dapcli.audio import encode
from dapcli.errors import InputError, SettingsError
from dapcli.metrics import score_sources
from dapcli.metrics.waveform import snr_db
from dapcli.objectives.ratio_mask import RatioMask
from dapcli.pipeline.run import plan
from dapcli.priors import build_prior
from dapcli.signal.separation import separate_types
from dapcli.signal.stft import STFT
from tests.test_source_types import clicks, tone

Samples = NDArray[np.float64]

pytestmark = pytest.mark.usefixtures("one_thread")

RATE = 8_000
TINY = replace(SEPARATION_PRESETS["share"]["quality"], prior="conv", width=4, iterations=2, hop=0.032)
STEPS = {"PCM_U8": 2.0**-7, "PCM_16": 2.0**-15, "PCM_24": 2.0**-23, "FLOAT": 2.0**-22}


def sources(seconds: float = 0.5, channels: int = 1) -> Samples:
    """A steady tone and clicks, of another pitch and level in every channel: ``[2, C, N]``."""
    number = np.arange(1, channels + 1)[:, None]
    tones = np.concatenate([tone(440.0 * n, seconds) for n in number[:, 0]])
    return np.stack([tones / number, clicks(seconds) / 16 * number])


def mixture(seconds: float = 0.5, channels: int = 1, subtype: str = "FLOAT") -> Audio:
    """As a file of this subtype would hold it."""
    return decoded(Audio(sources(seconds, channels).sum(axis=0), RATE, subtype))


def decoded(audio: Audio) -> Audio:
    samples, _ = soundfile.read(io.BytesIO(encode(audio)), dtype="float64", always_2d=True)
    return audio.with_samples(samples.T)


def tiny(recording: Audio, *kinds: str, settings: Settings = TINY, **options: object) -> Separation:
    return separate(recording, kinds or ("harmonic", "percussive"), settings, device="cpu", **options)  # type: ignore[arg-type]


@cache
def plain() -> Separation:
    return tiny(mixture())


def samples_of(separation: Separation) -> Samples:
    return np.stack([audio.samples for audio in separation.audio])


# What comes out


def test_the_default_preset_separates_a_tone_and_clicks() -> None:
    clean = sources(1.0)
    result = separate(Audio(clean.sum(axis=0), RATE), device="cpu")
    assert result.kinds == ("harmonic", "percussive")
    for source, audio in zip(clean, result.audio, strict=True):
        assert snr_db(source, audio.samples, RATE) > 10


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kinds", [("harmonic", "percussive"), ("voice", "voice", "harmonic", "percussive")])
def test_every_source_has_the_shape_of_the_mixture(channels: int, kinds: tuple[str, ...]) -> None:
    recording = mixture(channels=channels)
    result = tiny(recording, *kinds)
    assert len(result.sources) == len(kinds) == len(result.audio)
    for audio in result.audio:
        assert (audio.rate, audio.samples.shape) == (RATE, recording.samples.shape)
    np.testing.assert_allclose(samples_of(result).sum(axis=0), recording.samples, atol=1e-12)


@pytest.mark.parametrize("length", [2, 3, 50, 1_001])
def test_the_shortest_mixtures_are_separated(length: int) -> None:
    recording = Audio(np.random.default_rng(0).standard_normal((1, length)), RATE)
    result = samples_of(tiny(recording))
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result.sum(axis=0), recording.samples, atol=1e-12)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("subtype", STEPS)
def test_files_sum_to_the_file_of_the_mixture(subtype: str, count: int) -> None:
    recording = mixture(channels=2, subtype=subtype)
    result = tiny(recording, *("harmonic", "voice", "percussive")[-count:])
    files = [decoded(audio) for audio in result.audio]
    assert {file.subtype for file in files} == {subtype}
    np.testing.assert_allclose(
        sum(file.samples for file in files), recording.samples, rtol=0, atol=1.001 * STEPS[subtype]
    )


def test_a_source_past_full_scale_lowers_all_by_one_gain() -> None:
    recording = mixture()
    loud = recording.with_samples(4 * recording.samples)
    result = tiny(loud)
    written = result.sources.as_file("WAV", "PCM_16")
    peak = np.abs(samples_of(result)).max()
    assert peak > 1
    assert written.gain == pytest.approx(1 / peak)
    files = np.stack([decoded(Audio(source.read(0, source.length), RATE, "PCM_16")).samples for source in written])
    # The lowered mixture is no longer on the steps, and the peak itself is one too high for the format.
    np.testing.assert_allclose(files.sum(axis=0), written.gain * loud.samples, atol=1.501 * STEPS["PCM_16"])
    np.testing.assert_allclose(files, written.gain * samples_of(result), atol=2 * STEPS["PCM_16"])
    assert result.sources.as_file("WAV", "FLOAT").gain == 1


def test_blocks_of_the_sources_are_parts_of_the_whole() -> None:
    source = plain().sources[1]
    whole = source.read(0, source.length)
    parts = [source.read(start, min(start + 700, source.length)) for start in range(0, source.length, 700)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    with pytest.raises(IndexError):
        plain().sources[2]


def test_the_same_seed_gives_the_same_bits_and_another_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RatioMask, "has_learned", lambda _: True)
    runs = [samples_of(tiny(mixture(), settings=replace(TINY, seed=seed))) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_level_does_not_matter() -> None:
    recording = mixture()
    loud = samples_of(tiny(recording.with_samples(64 * recording.samples)))
    np.testing.assert_allclose(loud / 64, samples_of(plain()), atol=1e-4)


def test_the_order_of_the_kinds_is_that_of_the_sources() -> None:
    settings = replace(TINY, iterations=1)
    straight = samples_of(tiny(mixture(), "harmonic", "percussive", settings=settings))
    turned = samples_of(tiny(mixture(), "percussive", "harmonic", settings=settings))
    assert np.square(straight - turned[::-1]).sum() < 0.05 * np.square(straight).sum()


@pytest.mark.parametrize("rate", [16_000, 12_000])
def test_another_working_rate_keeps_rate_length_and_sum(rate: int) -> None:
    recording = mixture(0.3)
    result = tiny(recording, settings=replace(TINY, rate=rate))
    assert result.result.rate == rate
    assert result.sources.rate == RATE
    np.testing.assert_allclose(samples_of(result).sum(axis=0), recording.samples, atol=1e-12)


def test_sources_that_need_not_sum_to_the_mixture_are_as_fitted() -> None:
    result = tiny(mixture(0.3), settings=replace(TINY, estimator="paper"), consistent=False)
    fitted = result.result.restored
    np.testing.assert_array_equal(samples_of(result), fitted.read(0, fitted.length).reshape(2, 1, -1))


def test_where_there_is_nothing_to_learn_the_classical_separation_is_kept() -> None:
    noise = Audio(np.random.default_rng(0).standard_normal((1, RATE)), RATE)
    result = tiny(noise, settings=replace(TINY, iterations=8))
    assert any("the classical separation was kept" in note for note in result.result.notes)
    for source, classical in zip(samples_of(result), separate_types(noise.samples, RATE, result.kinds, 0), strict=True):
        assert snr_db(classical, source, RATE) > 6  # its shares, in another STFT


def test_what_a_network_has_learned_of_one_part_it_knows_of_another() -> None:
    observation = observe_song()
    network = build_prior("conv", 1, 2, width=8)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    known = []
    for _ in range(30):
        loss, estimate = observation.evaluate(network, torch.Generator().manual_seed(0))
        known.append(observation.has_learned())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert not known[0]
    assert known[-1]
    mixture = observation.spectrogram.reshape(2, -1).sum(dim=0)
    torch.testing.assert_close(estimate.reshape(2, -1).sum(dim=0), mixture)


def observe_song() -> RatioMask:
    """Notes that go on, each for a while, and drums that do not."""
    rng = np.random.default_rng(0)
    notes = np.concatenate([np.sin(np.arange(RATE // 2) * pitch) for pitch in (0.2, 0.9, 0.4, 1.5)])
    drums = rng.standard_normal(notes.size) * np.exp(-(np.arange(notes.size) % 3000) / 150)
    return RatioMask(
        (notes + drums)[None],
        STFT(512, 128),
        ("harmonic", "percussive"),
        RATE,
        iterations=30,
        perturbation=0.1,
        generator=torch.Generator().manual_seed(0),
    )


# Long mixtures

LONG = replace(TINY, segment=1.5)


def test_sources_of_one_kind_stay_in_their_files_through_all_segments() -> None:
    low, high = tone(250, 3.5), tone(1900, 3.5)
    seconds = np.arange(low.shape[1]) / RATE
    # Their order by level changes from segment to segment.
    low, high = low * (1.2 + np.sin(2 * np.pi * seconds / 2)), high * (1.2 - np.sin(2 * np.pi * seconds / 2))
    result = tiny(Audio(low + high, RATE), "harmonic", "harmonic", settings=LONG)
    assert len(result.result.segments) > 2
    scores = score_sources(np.stack([low, high]), samples_of(result), RATE).sources
    assert min(values["si_sdr_db"] or -99.0 for values, _ in scores) > 10


def test_two_segments_at_a_time_give_the_same_bits() -> None:
    recording = mixture(3.5)
    one, two = (samples_of(tiny(recording, settings=LONG, parallel=workers)) for workers in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_progress_covers_every_iteration_and_a_silent_segment_stays_silent() -> None:
    recording = mixture(4.0)
    start, stop = plan(recording, LONG)[1]
    recording.samples[:, start:stop] = 0
    seen: list[Progress] = []
    result = tiny(recording, settings=LONG, on_step=seen.append)
    assert seen[-1].completed == seen[-1].total == TINY.iterations * len(plan(recording, LONG))
    assert not samples_of(result)[:, :, start + RATE // 2 : stop - RATE // 2].any()
    assert "silence" in result.result.notes[0]


# What is refused


def test_the_oracle_stops_where_the_references_say() -> None:
    clean = sources(0.5)
    settings = replace(TINY, iterations=6)
    references = [Audio(source, RATE) for source in clean]
    errors = {}
    for stop in ("fixed", "oracle"):
        result = tiny(mixture(), settings=replace(settings, stop=stop), references=references)
        errors[stop] = float(np.square(samples_of(result) - clean).sum())
    assert errors["oracle"] <= errors["fixed"] * (1 + 1e-6)


@pytest.mark.parametrize("silence", [np.zeros((1, 4_000)), np.zeros((2, 10))])
def test_a_silent_mixture_is_refused(silence: Samples) -> None:
    with pytest.raises(InputError, match="silent"):
        tiny(Audio(silence, RATE))


def test_references_that_do_not_match_are_refused() -> None:
    clean = [Audio(source, RATE) for source in sources()]
    with pytest.raises(InputError, match="1 references for 2 sources"):
        tiny(mixture(), references=clean[:1])
    with pytest.raises(InputError, match="reference has shape"):
        tiny(mixture(), references=[audio.with_samples(audio.samples[:, 1:]) for audio in clean])
    with pytest.raises(SettingsError, match="--reference"):
        tiny(mixture(), settings=replace(TINY, stop="oracle"))


@pytest.mark.parametrize(
    ("kinds", "changes", "reason"),
    [
        (("harmonic",), {}, "2 to 4"),
        (("harmonic", "noise"), {}, "unknown kind 'noise'"),
        ((), {"estimator": "mask"}, "unknown estimator 'mask'.*share"),
        ((), {"post_filter": "wiener"}, "--post-filter"),
        ((), {"prior": "nothing"}, "unknown prior"),
        ((), {"stop": "held-out"}, "--stop held-out.*noise"),
        ((), {"stop": "discrepancy"}, "--stop discrepancy.*noise"),
        ((), {"stop": "validation"}, "--stop validation.*training_pairs"),
    ],
)
def test_settings_that_do_not_suit_are_refused(kinds: tuple[str, ...], changes: dict[str, str], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        tiny(mixture(), *kinds, settings=replace(TINY, **changes))  # type: ignore[arg-type]


def test_one_sample_is_refused() -> None:
    with pytest.raises(InputError, match="one sample"):
        tiny(Audio(np.ones((1, 1)), RATE))
