"""Reading, writing and resampling: every bit is kept, and what cannot be used is refused with a reason."""

from __future__ import annotations

import errno
import io
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from dapcli.audio import (
    Audio,
    Recording,
    encode,
    full_scale_gain,
    open_audio,
    open_matching,
    output_format,
    read_audio,
    resample,
    write_audio,
)
from dapcli.errors import InputError, OutputError, SettingsError
from tests.signals import Samples, snr_db

RATE = 16_000
BITS = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
EXACT_FORMATS = [
    *((container, subtype) for container in ("WAV", "AIFF") for subtype in (*BITS, "FLOAT", "DOUBLE")),
    *(("FLAC", subtype) for subtype in ("PCM_16", "PCM_24")),
]
LOSSY_FORMATS = [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]
# What libsndfile cannot write, or not tell the length of; its encoders of the finer ALAC corrupt memory (1.2.2).
_NOT_BOTH = ("GSM610", "G721", "G723", "NMS", "DPCM", "DWVW", "MPEG_LAYER_I", "ALAC_2", "ALAC_3")
ALL_FORMATS = [
    *LOSSY_FORMATS,
    *(
        (container, subtype)
        for container in soundfile.available_formats()
        for subtype in soundfile.available_subtypes(container)
        if container not in ("RAW", "SD2", "OGG") and not subtype.startswith(_NOT_BOTH)
    ),
]
BLOCK = 65_536


def sound(seconds: float, rate: int = RATE, channels: int = 1, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (channels, round(seconds * rate)))


def sine(frequency: float, rate: int, length: int) -> Samples:
    return np.sin(2 * np.pi * frequency * np.arange(length) / rate)[None]


def write(path: Path, audio: Audio, change: Callable[[bytes], bytes] = bytes) -> Path:
    """A file whose bytes are changed before they are written."""
    path.write_bytes(change(encode(audio)))
    return path


# Round trips


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 2), (44_100, 1), (192_000, 6)])
@pytest.mark.parametrize(("container", "subtype"), EXACT_FORMATS)
def test_samples_come_back_bit_for_bit(container: str, subtype: str, channels: int, rate: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    if subtype in BITS:
        scale = 2 ** (BITS[subtype] - 1)
        numbers = rng.integers(-scale, scale, (channels, 200))
        numbers[:, :6] = [0, 1, -1, scale - 1, -scale, scale // 2]
        raw, samples = (numbers * (2**31 // scale)).astype(np.int32), numbers / scale
    else:
        raw = (3 * rng.standard_normal((channels, 200))).astype({"FLOAT": "f4", "DOUBLE": "f8"}[subtype])
        samples = raw
    path = tmp_path / "a"
    soundfile.write(path, raw.T, rate, subtype=subtype, format=container)
    audio = read_audio(path)
    assert (audio.rate, audio.format, audio.subtype) == (rate, container, subtype)
    np.testing.assert_array_equal(audio.samples, samples)

    back, back_rate = soundfile.read(write(tmp_path / "b", audio), dtype=raw.dtype.name, always_2d=True)
    assert back_rate == rate
    np.testing.assert_array_equal(back.T, raw)


# Minutes all at once overflow the stack of libsndfile's Vorbis encoder: the process dies.
@pytest.mark.parametrize(
    ("container", "subtype", "length"), [*((*each, 16_001) for each in LOSSY_FORMATS), ("OGG", "VORBIS", 1_200_000)]
)
def test_lossy_formats_keep_rate_channels_and_length(container: str, subtype: str, length: int, tmp_path: Path) -> None:
    samples = 0.5 * np.concatenate([sine(440, RATE, length), sine(660, RATE, length)])
    audio = read_audio(write(tmp_path / "a", Audio(samples, RATE, subtype, container)))
    assert (audio.rate, audio.samples.shape) == (RATE, (2, length))
    assert (audio.format, audio.subtype) == (container, subtype)
    assert snr_db(samples, audio.samples) > 10


def test_a_combination_that_a_format_lacks_is_refused_on_writing() -> None:
    with pytest.raises(OutputError, match="6 channels at 48000 Hz as MP3"):
        encode(Audio(sound(0.1, 48_000, 6), 48_000, "MPEG_LAYER_III", "MP3"))


# Blocks


@pytest.mark.parametrize(("container", "subtype"), ALL_FORMATS)
def test_parts_are_those_of_a_whole_read(container: str, subtype: str, tmp_path: Path) -> None:
    samples = sine(440, RATE, 400_000) / 2 + sound(25) / 4
    path = write(tmp_path / "a", Audio(samples, RATE, subtype, container))
    with soundfile.SoundFile(path) as read_at_once:
        whole = read_at_once.read(always_2d=True).T
    with open_audio(path) as file:
        assert (file.rate, file.channels, file.length) == (read_at_once.samplerate, *whole.shape)
        places = st.integers(0, file.length) | st.sampled_from([0, BLOCK, 3 * BLOCK, file.length])

        @given(st.lists(st.tuples(places, places), min_size=1, max_size=3))
        @settings(deadline=None, max_examples=6)
        def compare(ranges: list[tuple[int, int]]) -> None:
            for start, stop in map(sorted, ranges):
                np.testing.assert_array_equal(file.read(start, stop), whole[:, start:stop])

        compare()


def test_samples_that_are_not_there_cannot_be_read(tmp_path: Path) -> None:
    audio = Audio(sound(0.1), RATE)
    with open_audio(write(tmp_path / "a", audio)) as file:
        recordings: list[Recording] = [audio, file]
        for recording in recordings:
            for start, stop in ((-1, 5), (0, 1601), (1601, 1601), (5, 4)):
                with pytest.raises(ValueError, match="in a recording of 1600"):
                    recording.read(start, stop)
            assert recording.read(1600, 1600).shape == (1, 0)
    file.close()  # once more does no harm
    with pytest.raises(ValueError, match="is closed"):
        file.read(0, 10)


@pytest.mark.parametrize(("container", "subtype"), [("WAV", "FLOAT"), ("FLAC", "PCM_24"), ("OGG", "VORBIS")])
@pytest.mark.parametrize("size", [0, 60_000])
def test_a_file_that_shrinks_while_it_is_open_is_noticed(
    container: str, subtype: str, size: int, tmp_path: Path
) -> None:
    path = write(tmp_path / "a", Audio(sound(20), RATE, subtype, container))
    with open_audio(path) as file:
        os.truncate(path, size)
        with pytest.raises(InputError, match="changed while it was in use"):
            file.read(0, file.length)


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    rate, seconds = 44_100, 300

    def write_to(name: str, recording: Recording) -> None:
        with (tmp_path / name).open("w+b") as stream:
            write_audio(stream, recording)

    with soundfile.SoundFile(tmp_path / "in", "w", rate, 2, "PCM_16", format="WAV") as file:
        for _ in range(seconds):
            file.write(np.tile([0.5, -0.25], (rate, 1)))
    tracemalloc.start()
    try:
        with open_audio(tmp_path / "in") as file:
            assert file.length == seconds * rate
            write_to("out", file)
        assert tracemalloc.get_traced_memory()[1] < 12e6  # the samples are 212 MB
    finally:
        tracemalloc.stop()


class FailingStream(io.BytesIO):
    """A stream that fails once, at the given call of ``write`` (counted from 1), and counts the calls."""

    def __init__(self, call: int = 0, error: BaseException | None = None) -> None:
        super().__init__()
        self.calls, self._call, self._error = 0, call, error

    def write(self, data: object) -> int:
        self.calls += 1
        if self.calls == self._call and self._error:
            raise self._error
        return super().write(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("share", [0, 0.5, 0.9, 1], ids=["header", "middle", "late", "last"])
@pytest.mark.parametrize(
    ("container", "subtype"),
    [*LOSSY_FORMATS, ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_24"), ("AIFF", "PCM_16"), ("CAF", "ALAC_16")],
)
def test_a_stream_that_fails_is_not_ignored(
    container: str, subtype: str, share: float, error: BaseException, capfd: pytest.CaptureFixture[str]
) -> None:
    def write_to(stream: FailingStream) -> int:
        write_audio(stream, Audio(sound(5), RATE, subtype, container))
        return stream.calls

    calls = write_to(FailingStream())
    with pytest.raises(type(error)) as caught:
        write_to(FailingStream(max(1, round(share * calls)), error))
    assert caught.value is error
    assert capfd.readouterr() == ("", "")  # callbacks from C would print it


def test_errors_of_reading_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Audio, "read", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        encode(Audio(sound(1), RATE, "PCM_16"))


# The format of the output


@pytest.mark.parametrize(
    ("source", "name", "expected"),
    [
        *((("WAV", same), "out.wav", ("WAV", same)) for same in ("PCM_16", "FLOAT", "PCM_U8", "ULAW")),
        *((same, "out.WAV", same) for same in (("WAVEX", "PCM_24"), ("RF64", "PCM_16"))),
        *((lossy, "out.wav", ("WAV", "PCM_16")) for lossy in (*LOSSY_FORMATS, ("CAF", "ALAC_16"))),
        *((finer, "out.wav", ("WAV", "PCM_24")) for finer in (("FLAC", "PCM_24"), ("CAF", "ALAC_24"))),
        *((("WAV", finer), "out.flac", ("FLAC", "PCM_24")) for finer in ("PCM_32", "FLOAT", "DOUBLE")),
        *((coarse, "out.flac", ("FLAC", "PCM_16")) for coarse in (("WAV", "PCM_U8"), ("OGG", "OPUS"))),
        (("WAV", "DOUBLE"), "out.aiff", ("AIFF", "DOUBLE")),
        (("WAV", "PCM_16"), "out.aif", ("AIFF", "PCM_16")),
        (("WAV", "PCM_16"), "out.bwf", ("WAV", "PCM_16")),
        (("NIST", "ULAW"), "out.sph", ("NIST", "ULAW")),
        (("OGG", "OPUS"), "out.ogg", ("OGG", "OPUS")),
        (("WAV", "PCM_24"), "out.ogg", ("OGG", "VORBIS")),
        *((other, "out.opus", ("OGG", "OPUS")) for other in (("WAV", "PCM_16"), ("OGG", "VORBIS"))),
        # Whole blocks would make the recording longer.
        *((("WAV", padded), "out.wav", ("WAV", "PCM_16")) for padded in ("IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32")),
        *((("CAF", alac), "out.caf", ("CAF", pcm)) for alac, pcm in (("ALAC_24", "PCM_24"), ("ALAC_32", "PCM_32"))),
    ],
)
def test_extension_decides_the_format_and_the_source_the_subtype(
    source: tuple[str, str], name: str, expected: tuple[str, str]
) -> None:
    assert output_format(Path(name), Audio(sound(0.1), RATE, *source[::-1])) == expected


@pytest.mark.parametrize(
    ("name", "rate", "channels", "advice"),
    [
        *((name, RATE, 1, r"use \.wav") for name in ("out", "out.json", "out.wav.bak", ".wav", "out.raw", "out.sd2")),
        ("out.mp3", 48_000, 6, "6 channels at 48000 Hz as MP3; choose another extension"),
        ("out.mp3", 96_000, 1, "another extension"),
        ("out.opus", 44_100, 1, "another extension"),
        ("out.ogg", 384_000, 1, "another extension"),  # where libsndfile crashes
        ("out.flac", 48_000, 9, "another extension"),
        ("out.flac", 65_537, 1, "another extension"),
        ("out.wve", RATE, 1, "another extension"),  # always 8 kHz
        ("out.htk", 44_100, 1, "another extension"),  # holds the rate as a whole number of 100 ns
        ("out.xi", RATE, 1, "another extension"),
    ],
)
def test_formats_that_are_unknown_or_would_lose_rate_or_channels_are_refused(
    name: str, rate: int, channels: int, advice: str
) -> None:
    with pytest.raises(SettingsError, match=advice):
        output_format(Path(name), Audio(sound(0.1, rate, channels), rate, "PCM_16", "WAV"))


# Level


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "ULAW", "MPEG_LAYER_III"])
@pytest.mark.parametrize("peak", [0, 1, 1 + 2**-52, 1.7, 1e300])
def test_peaks_past_full_scale_come_down_to_it_in_an_integer_format(peak: float, subtype: str) -> None:
    assert peak * full_scale_gain(peak, subtype) == pytest.approx(min(1, peak))
    assert peak * full_scale_gain(peak, subtype) <= 1
    assert (
        full_scale_gain(min(1, peak), subtype) == full_scale_gain(peak, "FLOAT") == full_scale_gain(peak, "VORBIS") == 1
    )


# What cannot be used


@pytest.mark.parametrize(
    ("samples", "rate", "subtype", "container", "reason"),
    [
        *((np.zeros((1, 0)), RATE, "PCM_16", container, "no samples") for container in ("WAV", "AIFF")),
        *((np.append(sound(10), [[x]], axis=1), RATE, "FLOAT", "WAV", "NaN or inf") for x in (np.nan, np.inf, -np.inf)),
        *((sound(1), rate, "PCM_16", "WAV", "outside 2000 to 1000000") for rate in (1, 1_999, 1_000_001)),
    ],
)
def test_samples_that_cannot_be_restored_are_refused(
    samples: Samples, rate: int, subtype: str, container: str, reason: str, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a", samples.T, rate, subtype, format=container)
    with pytest.raises(InputError, match=reason):
        read_audio(tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.wav", "no such file"),
        ("", "is a folder"),
        ("n" * 300, "cannot be read"),
        ("pipe.wav", "not a regular file"),  # and not waited for
    ],
)
def test_what_is_no_file_is_refused_on_one_line(name: str, reason: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(InputError, match=reason) as caught:
        read_audio(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)


def test_a_recording_to_compare_with_must_match_in_rate_length_and_channels(tmp_path: Path) -> None:
    other = Audio(sound(0.1), RATE, "PCM_16", "WAV")
    with open_matching(write(tmp_path / "same", other), other) as same:
        np.testing.assert_allclose(same.read(0, same.length), other.samples, atol=2**-15)
    for audio in (
        Audio(other.samples, 22_050, "PCM_16"),
        Audio(other.samples[:, 1:], RATE, "PCM_16"),
        Audio(sound(0.1, channels=2), RATE, "PCM_16"),
    ):
        with pytest.raises(InputError, match="they must match"):
            open_matching(write(tmp_path / "other", audio), other)


# Resampling


@given(
    st.integers(1, 3_000),
    st.sampled_from([(8_000, 8_000), (16_000, 8_000), (22_050, 16_000), (16_000, 22_050), (44_100, 48_000)]),
    st.integers(1, 3),
)
@settings(deadline=None, max_examples=30)
def test_length_after_resampling_is_rounded_up(length: int, rates: tuple[int, int], channels: int) -> None:
    rate, new_rate = rates
    resampled = resample(np.ones((channels, length)), rate, new_rate)
    assert resampled.shape == (channels, -(-length * new_rate // rate))
    assert resampled.dtype == np.float64


@pytest.mark.parametrize("frequency", [100.0, 1_000.0, 6_750.0, 10_000.0])
@pytest.mark.parametrize(("rate", "new_rate"), [(22_050, 16_000), (44_100, 48_000), (48_000, 16_000)])
def test_a_sine_keeps_frequency_phase_and_level(rate: int, new_rate: int, frequency: float) -> None:
    gains = np.array([[1.0], [-0.5]])
    resampled = resample(gains * sine(frequency, rate, rate // 2), rate, new_rate)
    # Beyond its ends the recording counts as silence; what the lower rate cannot hold is removed and not mirrored.
    held = frequency < min(rate, new_rate) / 2
    expected = held * gains * sine(frequency, new_rate, resampled.shape[1])
    assert np.abs(resampled - expected)[:, 200:-200].max() < 1e-4


def test_rates_without_a_common_divisor_are_refused_before_memory_runs_out() -> None:
    with pytest.raises(SettingsError, match="larger common divisor"):
        resample(sound(0.01), 44_101, 48_000)
