"""Mains hum: it is found where it lasts through a recording, and only there, and taken out of it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from dapcli import Audio, Settings, denoise
from dapcli.signal.hum import Hum, find_hum
from tests.signals import RATE, Samples, melody, noise, snr_db, tone

SECONDS = 4.0
TIME = np.arange(round(SECONDS * RATE)) / RATE
TINY = Settings(prior="conv", base_channels=2, iterations=2, finetune_iterations=1, hop=0.016)


def hum(mains: float = 50.0, drift: float = 0.1, lines: int = 6) -> Samples:
    """Harmonics of a frequency that drifts by so much, Hz, with amplitudes that change by a fifth, ``[1, N]``."""
    phase = 2 * np.pi * (mains * TIME - drift * SECONDS / np.pi * np.cos(np.pi * TIME / SECONDS))
    strength = 0.02 * (1 + 0.2 * np.sin(2 * np.pi * TIME / SECONDS))
    return np.asarray(strength * sum(np.sin(k * phase + k) / k for k in range(1, lines + 1)))[None]


def voice() -> Samples:
    """Syllables that glide, with little noise, ``[1, N]``."""
    phase = 2 * np.pi * np.cumsum(150 + 40 * np.sin(2 * np.pi * 0.9 * TIME)) / RATE
    loudness = np.clip(np.sin(2 * np.pi * 1.5 * TIME), 0, None)
    return np.asarray(0.1 * loudness * sum(np.sin(k * phase) / k for k in range(1, 12)))[None] + noise(
        1, len(TIME), std=0.002
    )


def lowered_db(before: Samples, after: Samples, frequency: float) -> float:
    """How much lower a line is, dB."""
    wave = np.hanning(len(TIME)) * np.exp(2j * np.pi * frequency * TIME)
    return float(20 * np.log10(np.abs(before[0] @ wave) / np.abs(after[0] @ wave)))


@pytest.mark.parametrize(("mains", "drift"), [(50.0, 0.0), (50.0, 0.1), (49.6, 0.1), (60.3, 0.1)])
@pytest.mark.parametrize("sound", [voice(), melody(SECONDS)], ids=["voice", "melody"])
def test_hum_is_taken_out_and_the_sound_is_kept(sound: Samples, mains: float, drift: float) -> None:
    samples = sound + hum(mains, drift)
    found = find_hum(Audio(samples, RATE))
    assert found[0] is not None
    assert found[0].frequency == pytest.approx(mains, abs=0.15)
    without = Hum(Audio(samples, RATE), found, 1.0, 0.0).read(0, len(TIME))
    assert snr_db(sound, without) > snr_db(sound, samples) + 7


@pytest.mark.parametrize(
    "samples",
    [
        voice(),
        melody(SECONDS),
        melody(SECONDS) + tone(50, SECONDS),  # one line
        melody(SECONDS) + sum(tone(55.0 * k, SECONDS) for k in range(1, 6)),  # a low A
        melody(SECONDS) + sum(tone(100.0 * k, SECONDS) for k in range(1, 6)),  # rather a tone than hum
        voice() + hum() * (TIME < SECONDS / 2),  # does not last
        (voice() + hum())[:, : round(1.2 * RATE)],  # cannot be told so soon
        np.zeros((1, RATE)),
    ],
)
def test_what_is_no_hum_is_left_alone(samples: Samples) -> None:
    assert find_hum(Audio(samples, RATE)) == (None,)


def test_each_channel_has_its_own_hum_and_parts_are_those_of_the_whole() -> None:
    recording = Audio(np.concatenate([voice() + hum(), voice(), -voice() - hum()]), RATE)
    without = Hum(recording, find_hum(recording), 1.0, 0.0)
    whole = without.read(0, recording.length)
    np.testing.assert_array_equal(whole[1], recording.samples[1])
    np.testing.assert_array_equal(whole[2], -whole[0])
    parts = [without.read(*part) for part in pairwise([0, 1, 999, 1000, 20_001, recording.length])]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_denoise_lowers_hum_and_says_so_by_no_more_than_the_limit() -> None:
    samples = voice() + hum(drift=0.0)
    result = denoise(Audio(samples, RATE), TINY, device="cpu")
    assert "hum" in result.notes[0]
    limited = denoise(Audio(samples, RATE), Settings(**{**vars(TINY), "attenuation_limit": 6.0}), device="cpu")
    for line in (50, 100, 150):
        assert lowered_db(samples, result.audio.samples, line) > 10
        assert 3 < lowered_db(samples, limited.audio.samples, line) < 6.5
    assert not any("hum" in note for note in denoise(Audio(voice(), RATE), TINY, device="cpu").notes)
