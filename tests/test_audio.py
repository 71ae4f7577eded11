"""Reading, writing and resampling: every bit is kept, and what cannot be used is refused with a reason."""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import struct
import time
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

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
from dapcli.errors import DapError, InputError, OutputError, SettingsError

Samples = NDArray[np.float64]

RATE = 16_000
BITS = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
INTEGER_FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "PCM_32"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("AIFF", "PCM_16"),
    ("AIFF", "PCM_24"),
    ("AIFF", "PCM_32"),
]
FLOAT_FORMATS = [("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("AIFF", "FLOAT"), ("AIFF", "DOUBLE")]
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


def write(path: Path, audio: Audio) -> Path:
    path.write_bytes(encode(audio))
    return path


def whole_numbers(bits: int, channels: int) -> NDArray[np.int64]:
    """Samples of all sizes that this many bits hold, the two extremes among them."""
    top = 2 ** (bits - 1)
    extremes = np.array([[0, 1, -1, top - 1, -top, top // 2]])
    return np.concatenate(
        [
            np.repeat(extremes, channels, axis=0),
            np.random.default_rng(bits).integers(-top, top, (channels, 200)),
        ],
        axis=1,
    )


# Round trips


@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(("container", "subtype"), INTEGER_FORMATS)
def test_integer_samples_come_back_bit_for_bit(
    container: str, subtype: str, channels: int, rate: int, tmp_path: Path
) -> None:
    bits = BITS[subtype]
    numbers = whole_numbers(bits, channels)
    path = tmp_path / "a"
    soundfile.write(path, (numbers << (32 - bits)).T.astype(np.int32), rate, subtype=subtype, format=container)

    audio = read_audio(path)
    assert (audio.rate, audio.channels, audio.length) == (rate, channels, numbers.shape[1])
    assert (audio.format, audio.subtype) == (container, subtype)
    np.testing.assert_array_equal(audio.samples, numbers / 2 ** (bits - 1))

    back, back_rate = soundfile.read(write(tmp_path / "b", audio), dtype="int32", always_2d=True)
    assert back_rate == rate
    np.testing.assert_array_equal(back.T.astype(np.int64) >> (32 - bits), numbers)


@pytest.mark.parametrize("channels", [1, 6])
@pytest.mark.parametrize(("container", "subtype"), FLOAT_FORMATS)
def test_floating_point_samples_come_back_bit_for_bit(
    container: str, subtype: str, channels: int, tmp_path: Path
) -> None:
    samples = 3 * np.random.default_rng(0).standard_normal((channels, 500))  # past full scale too
    if subtype == "FLOAT":
        samples = samples.astype(np.float32).astype(np.float64)
    path = tmp_path / "a"
    soundfile.write(path, samples.T, 48_000, subtype=subtype, format=container)
    audio = read_audio(path)
    assert (audio.format, audio.subtype, audio.rate) == (container, subtype, 48_000)
    np.testing.assert_array_equal(audio.samples, samples)
    np.testing.assert_array_equal(read_audio(write(tmp_path / "b", audio)).samples, samples)


@given(
    arrays(np.int16, st.tuples(st.integers(1, 3), st.integers(1, 50))),
    st.sampled_from(["WAV", "FLAC", "AIFF"]),
    st.integers(8_000, 65_535) | st.sampled_from([88_200, 96_000, 176_400, 192_000]),  # FLAC lacks some others
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_16_bit_recording_survives_reading_and_writing(
    tmp_path: Path, numbers: NDArray[np.int16], container: str, rate: int
) -> None:
    path = tmp_path / "a"
    soundfile.write(path, numbers.T, rate, subtype="PCM_16", format=container)
    audio = read_audio(path)
    assert audio.rate == rate
    back, _ = soundfile.read(write(tmp_path / "b", audio), dtype="int16", always_2d=True)
    np.testing.assert_array_equal(back.T, numbers)


@pytest.mark.parametrize(("container", "subtype"), LOSSY_FORMATS)
@pytest.mark.parametrize("length", [4_000, 16_001, 48_000])
def test_lossy_formats_keep_rate_channels_and_length(container: str, subtype: str, length: int, tmp_path: Path) -> None:
    samples = 0.5 * np.concatenate([sine(440, RATE, length), sine(660, RATE, length)])
    audio = read_audio(write(tmp_path / "a", Audio(samples, RATE, subtype, container)))
    assert (audio.rate, audio.samples.shape) == (RATE, (2, length))
    assert (audio.format, audio.subtype) == (container, subtype)
    error = audio.samples - samples
    assert 10 * math.log10((samples**2).sum() / (error**2).sum()) > 10


@pytest.mark.parametrize(("container", "subtype"), LOSSY_FORMATS)
def test_minutes_can_be_written_in_lossy_formats(container: str, subtype: str, tmp_path: Path) -> None:
    # All at once, they overflow the stack of libsndfile's Vorbis encoder: the process dies.
    samples = 0.5 * sine(440, 8_000, 1_200_000)
    path = write(tmp_path / "a", Audio(np.concatenate([samples, samples]), 8_000, subtype, container))
    assert soundfile.info(path).frames == samples.shape[1]


@pytest.mark.parametrize(("container", "subtype"), [*INTEGER_FORMATS, *FLOAT_FORMATS])
def test_blocks_join_without_a_seam(container: str, subtype: str, tmp_path: Path) -> None:
    samples = np.round(sound(20, channels=2) * 2**15) / 2**15
    audio = read_audio(write(tmp_path / "a", Audio(samples, RATE, subtype, container)))
    np.testing.assert_array_equal(audio.samples, samples)


def test_same_samples_make_the_same_bytes_at_any_time() -> None:
    recordings = [Audio(sound(0.1), RATE, subtype, container) for container, subtype in INTEGER_FORMATS + FLOAT_FORMATS]
    before = [encode(audio) for audio in recordings]
    time.sleep(1.1)  # clocks in files count seconds
    assert [encode(audio) for audio in recordings] == before


def test_a_combination_that_a_format_lacks_is_refused_on_writing() -> None:
    with pytest.raises(OutputError, match="6 channels at 48000 Hz as MP3"):
        encode(Audio(sound(0.1, 48_000, 6), 48_000, "MPEG_LAYER_III", "MP3"))


def test_new_samples_leave_everything_else_as_it_was() -> None:
    audio = Audio(sound(0.1), 44_100, "PCM_24", "FLAC")
    other = audio.with_samples(sound(0.2, seed=1))
    assert (other.rate, other.subtype, other.format) == (44_100, "PCM_24", "FLAC")
    np.testing.assert_array_equal(other.samples, sound(0.2, seed=1))


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


def test_a_flac_file_out_of_a_pipe_tells_no_length_and_is_read(tmp_path: Path) -> None:
    samples = np.round(sound(10) * 2**15) / 2**15
    data = bytearray(encode(Audio(samples, RATE, "PCM_16", "FLAC")))
    data[21] &= 0xF0  # the 36 bits after the number of bits per sample
    data[22:26] = bytes(4)
    path = tmp_path / "pipe.flac"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_audio(path).samples, samples)
    with open_audio(path) as file:
        for start in (100_000, 0, 50_000):
            np.testing.assert_array_equal(file.read(start, start + 5000), samples[:, start : start + 5000])


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (0, 1601), (1601, 1601), (5, 4)])
def test_samples_that_are_not_there_cannot_be_read(start: int, stop: int, tmp_path: Path) -> None:
    audio = Audio(sound(0.1), RATE)
    with open_audio(write(tmp_path / "a", audio)) as file:
        recordings: list[Recording] = [audio, file]
        for recording in recordings:
            with pytest.raises(ValueError, match="in a recording of 1600"):
                recording.read(start, stop)
            assert recording.read(1600, 1600).shape == (1, 0)


def test_a_closed_file_cannot_be_read(tmp_path: Path) -> None:
    with open_audio(write(tmp_path / "a", Audio(sound(0.1), RATE, "VORBIS", "OGG"))) as file:
        pass
    file.close()
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


@given(st.lists(st.integers(0, 3 * BLOCK), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=5)
@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("AIFF", "DOUBLE"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS")],
)
def test_blocks_of_any_size_make_the_file_of_the_whole(
    container: str, subtype: str, sizes: list[int], seed: int
) -> None:
    samples = sound(sum(sizes) / RATE, channels=2, seed=seed)
    stream, buffer = io.BytesIO(), np.empty((2, max(sizes)))

    def blocks() -> Iterator[Samples]:
        for start, stop in pairwise(np.cumsum([0, *sizes])):
            buffer[:, : stop - start] = samples[:, start:stop]
            yield buffer[:, : stop - start]

    write_audio(stream, blocks(), rate=RATE, channels=2, subtype=subtype, container=container)
    whole, parts = encode(Audio(samples, RATE, subtype, container)), stream.getvalue()
    if container != "OGG":
        assert parts == whole
    elif samples.size:  # its pages hold a number drawn at random, and checksums of that
        assert len(parts) == len(whole)
        np.testing.assert_array_equal(*(soundfile.read(io.BytesIO(data))[0] for data in (parts, whole)))


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    rate, seconds = 44_100, 300
    second = sound(1, rate, 2)

    def copy(source: str, target: str, container: str, subtype: str) -> None:
        with open_audio(tmp_path / source) as file, (tmp_path / target).open("w+b") as stream:
            assert file.length == seconds * rate
            blocks = (file.read(start, start + rate) for start in range(0, file.length, rate))
            write_audio(stream, blocks, rate=rate, channels=2, subtype=subtype, container=container)

    tracemalloc.start()
    try:
        with (tmp_path / "in").open("w+b") as stream:
            write_audio(
                stream, (second for _ in range(seconds)), rate=rate, channels=2, subtype="PCM_16", container="WAV"
            )
        copy("in", "a", "WAV", "PCM_16")
        copy("a", "b", "FLAC", "PCM_16")
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
        write_audio(stream, [sound(10)], rate=RATE, channels=1, subtype=subtype, container=container)
        return stream.calls

    calls = write_to(FailingStream())
    with pytest.raises(type(error)) as caught:
        write_to(FailingStream(max(1, round(share * calls)), error))
    assert caught.value is error
    assert capfd.readouterr() == ("", "")  # callbacks from C would print it


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_a_disk_that_is_full_is_not_ignored(subtype: str, capfd: pytest.CaptureFixture[str]) -> None:
    def write_to_full_disk() -> None:
        with Path("/dev/full").open("w+b") as stream:
            write_audio(stream, [sound(10)], rate=RATE, channels=1, subtype=subtype, container="WAV")

    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        write_to_full_disk()
    assert capfd.readouterr() == ("", "")


def test_errors_of_those_who_make_the_blocks_are_left_as_they_are() -> None:
    def blocks() -> Iterator[Samples]:
        yield sound(1)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        write_audio(io.BytesIO(), blocks(), rate=RATE, channels=1, subtype="PCM_16", container="WAV")


# The format of the output


@pytest.mark.parametrize(
    ("source", "name", "expected"),
    [
        (("WAV", "PCM_16"), "out.wav", ("WAV", "PCM_16")),
        (("WAV", "PCM_24"), "out.WAV", ("WAV", "PCM_24")),
        (("WAV", "FLOAT"), "out.wav", ("WAV", "FLOAT")),
        (("WAV", "PCM_U8"), "out.wav", ("WAV", "PCM_U8")),
        (("WAV", "ULAW"), "out.wav", ("WAV", "ULAW")),
        (("WAV", "IMA_ADPCM"), "out.wav", ("WAV", "IMA_ADPCM")),
        (("WAVEX", "PCM_24"), "out.wav", ("WAVEX", "PCM_24")),
        (("RF64", "PCM_16"), "out.wav", ("RF64", "PCM_16")),
        (("FLAC", "PCM_24"), "out.wav", ("WAV", "PCM_24")),
        (("WAV", "PCM_16"), "out.flac", ("FLAC", "PCM_16")),
        (("WAV", "PCM_U8"), "out.flac", ("FLAC", "PCM_16")),
        (("WAV", "PCM_32"), "out.flac", ("FLAC", "PCM_24")),
        (("WAV", "FLOAT"), "out.flac", ("FLAC", "PCM_24")),
        (("WAV", "DOUBLE"), "out.flac", ("FLAC", "PCM_24")),
        (("WAV", "DOUBLE"), "out.aiff", ("AIFF", "DOUBLE")),
        (("WAV", "PCM_16"), "out.aif", ("AIFF", "PCM_16")),
        (("CAF", "ALAC_24"), "out.wav", ("WAV", "PCM_24")),
        (("CAF", "ALAC_16"), "out.wav", ("WAV", "PCM_16")),
        (("MP3", "MPEG_LAYER_III"), "out.wav", ("WAV", "PCM_16")),
        (("MP3", "MPEG_LAYER_III"), "out.mp3", ("MP3", "MPEG_LAYER_III")),
        (("MP3", "MPEG_LAYER_III"), "out.flac", ("FLAC", "PCM_16")),
        (("OGG", "VORBIS"), "out.wav", ("WAV", "PCM_16")),
        (("OGG", "OPUS"), "out.ogg", ("OGG", "OPUS")),
        (("OGG", "VORBIS"), "out.ogg", ("OGG", "VORBIS")),
        (("WAV", "PCM_24"), "out.ogg", ("OGG", "VORBIS")),
        (("WAV", "PCM_16"), "out.opus", ("OGG", "OPUS")),
        (("OGG", "VORBIS"), "out.opus", ("OGG", "OPUS")),
        (("WAV", "IMA_ADPCM"), "out.aiff", ("AIFF", "PCM_16")),  # its blocks would pad the recording
    ],
)
def test_extension_decides_the_format_and_the_source_the_subtype(
    source: tuple[str, str], name: str, expected: tuple[str, str]
) -> None:
    container, subtype = source
    assert output_format(Path(name), Audio(sound(0.1), RATE, subtype, container)) == expected


@pytest.mark.parametrize("name", ["out", "out.txt", "out.json", "out.wav.bak", ".wav", "out.raw", "out.sd2"])
def test_unknown_extensions_are_refused_with_a_suggestion(name: str) -> None:
    with pytest.raises(SettingsError, match=r"use \.wav, \.flac"):
        output_format(Path(name), Audio(sound(0.1), RATE, "PCM_16", "WAV"))


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [
        ("out.mp3", 96_000, 1),
        ("out.mp3", 48_000, 6),
        ("out.opus", 44_100, 1),
        ("out.flac", 48_000, 9),
        ("out.flac", 65_537, 1),
        ("out.wve", RATE, 1),  # always 8 kHz
        ("out.htk", 44_100, 1),  # holds the rate as a whole number of 100 ns
        ("out.xi", RATE, 1),
    ],
)
def test_formats_that_would_lose_the_rate_or_channels_are_refused(name: str, rate: int, channels: int) -> None:
    with pytest.raises(SettingsError, match="another extension"):
        output_format(Path(name), Audio(sound(0.1, rate, channels), rate, "PCM_16", "WAV"))


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "opus", "mp3", "aiff", "w64", "caf", "au", "rf64"])
def test_what_is_chosen_can_be_written_and_read(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"out.{extension}"
    source = Audio(sound(0.25, 48_000, 2), 48_000, "PCM_24", "FLAC")
    container, subtype = output_format(path, source)
    audio = read_audio(write(path, source.as_file(container, subtype)))
    assert (audio.rate, audio.samples.shape) == (48_000, source.samples.shape)


# Level


@given(st.floats(1, 1e300), st.sampled_from(["PCM_16", "PCM_24", "ULAW"]))
def test_peaks_past_full_scale_come_down_to_it_in_an_integer_format(peak: float, subtype: str) -> None:
    assert peak * full_scale_gain(peak, subtype) == pytest.approx(1)
    assert peak * full_scale_gain(peak, subtype) <= 1


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE", "VORBIS", "OPUS"])
def test_floating_point_formats_keep_peaks_past_full_scale(subtype: str) -> None:
    assert full_scale_gain(2.0, subtype) == 1


@pytest.mark.parametrize("peak", [0.0, 0.3, 1.0])
def test_level_is_left_alone_where_it_fits(peak: float) -> None:
    assert full_scale_gain(peak, "PCM_16") == 1


# What cannot be used


def cut(folder: Path, container: str, subtype: str, share: float) -> Path:
    """A file of noise of which only the first share of bytes is left."""
    path = write(folder / "cut", Audio(sound(4), RATE, subtype, container))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path


@pytest.mark.parametrize("share", [0.5, 0.95])
@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("WAV", "ULAW"),
        ("WAVEX", "PCM_24"),
        ("RF64", "PCM_16"),
        ("W64", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("AU", "PCM_16"),
        ("CAF", "PCM_16"),
        ("SVX", "PCM_16"),
        ("VOC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
def test_truncated_data_is_refused(container: str, subtype: str, share: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"truncated|malformed"):
        read_audio(cut(tmp_path, container, subtype, share))


@pytest.mark.parametrize("container", ["OGG", "FLAC", "WAV"])
def test_one_missing_byte_is_missed(container: str, tmp_path: Path) -> None:
    path = write(tmp_path / "cut", Audio(sound(1), RATE, {"OGG": "VORBIS"}.get(container, "PCM_16"), container))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError):
        read_audio(path)


def test_a_whole_ogg_file_with_a_tag_behind_it_is_read(tmp_path: Path) -> None:
    audio = Audio(sound(1), RATE, "VORBIS", "OGG")
    path = tmp_path / "tagged.ogg"
    path.write_bytes(encode(audio) + b"TAG" + bytes(125))
    assert read_audio(path).length == audio.length


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_truncated_flac_is_refused(share: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as audio"):
        read_audio(cut(tmp_path, "FLAC", "PCM_16", share))


@pytest.mark.parametrize("size", [1, 12, 20, 30])
@pytest.mark.parametrize(("container", "subtype"), [*INTEGER_FORMATS, *LOSSY_FORMATS, ("CAF", "PCM_16")])
def test_truncated_header_is_refused(container: str, subtype: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / "cut"
    path.write_bytes(encode(Audio(sound(0.5), RATE, subtype, container))[:size])
    with pytest.raises(InputError, match="cannot be read as audio"):
        read_audio(path)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000], ids=hex)
def test_a_wav_out_of_a_pipe_announces_no_length_and_is_read(size: int, tmp_path: Path) -> None:
    audio = Audio(np.round(sound(0.5) * 2**15) / 2**15, RATE, "PCM_16", "WAV")
    data = bytearray(encode(audio))
    data[4:8] = struct.pack("<I", min(size + 36, 0xFFFFFFFF))
    assert data[36:40] == b"data"
    data[40:44] = struct.pack("<I", size)
    path = tmp_path / "pipe.wav"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_audio(path).samples, audio.samples)


def test_a_wav_with_other_chunks_behind_its_data_is_read(tmp_path: Path) -> None:
    audio = Audio(np.round(sound(0.5) * 2**15) / 2**15, RATE, "PCM_16", "WAV")
    data = bytearray(encode(audio)) + b"LIST" + struct.pack("<I", 4) + b"INFO"
    data[4:8] = struct.pack("<I", len(data) - 8)
    path = tmp_path / "tagged.wav"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_audio(path).samples, audio.samples)


@pytest.mark.parametrize("container", ["WAV", "AIFF"])
def test_a_file_without_samples_is_refused(container: str, tmp_path: Path) -> None:
    path = tmp_path / "empty"
    soundfile.write(path, np.zeros((0, 1)), RATE, subtype="PCM_16", format=container)
    with pytest.raises(InputError, match="no samples"):
        read_audio(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_samples_that_are_no_numbers_are_refused(subtype: str, value: float, tmp_path: Path) -> None:
    samples = sound(0.1, channels=2)
    samples[1, -1] = value
    with pytest.raises(InputError, match="NaN or infinite"):
        read_audio(write(tmp_path / "a", Audio(samples, RATE, subtype, "WAV")))


@pytest.mark.parametrize("content", [b"", b"x", b"This is not a recording.\n" * 100, bytes(5000)])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.raw", "a"])
def test_what_is_not_audio_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as audio"):
        read_audio(path)


@given(st.binary(max_size=300), st.sampled_from([b"", b"RIFF\x24\x00\x00\x00WAVEfmt ", b"fLaC", b"OggS", b"FORM"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_read_or_refused_on_purpose(tmp_path: Path, content: bytes, magic: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(magic + content)
    with contextlib.suppress(InputError):
        audio = read_audio(path)
        assert audio.length > 0
        assert np.isfinite(audio.samples).all()


def test_a_format_that_cannot_be_measured_beforehand_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as audio"):
        read_audio(write(tmp_path / "a", Audio(sound(0.1, 44_100), 44_100, "DPCM_16", "XI")))


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_audio(tmp_path / "missing.wav")
    with pytest.raises(InputError, match="is a folder"):
        read_audio(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_audio(tmp_path / ("n" * 300 + ".wav"))


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(InputError, match="not a regular file"):
        read_audio(tmp_path / "pipe.wav")


@pytest.mark.parametrize("rate", [1, 7_999, 192_001, 384_000])
def test_rates_out_of_range_are_refused(rate: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="outside 8000 to 192000 Hz"):
        read_audio(write(tmp_path / "a", Audio(sound(0.1), rate, "PCM_16", "WAV")))


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


@pytest.mark.parametrize("make", [lambda p: p / "missing.wav", lambda p: p])
def test_refusals_name_the_file_on_one_line(make: object, tmp_path: Path) -> None:
    path = make(tmp_path)  # type: ignore[operator]
    with pytest.raises(DapError) as caught:
        read_audio(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


# Resampling


@given(
    st.integers(1, 3_000),
    st.sampled_from([(8_000, 16_000), (16_000, 8_000), (22_050, 16_000), (16_000, 22_050), (44_100, 48_000)]),
    st.integers(1, 3),
)
@settings(deadline=None, max_examples=30)
def test_length_after_resampling_is_rounded_up(length: int, rates: tuple[int, int], channels: int) -> None:
    rate, new_rate = rates
    resampled = resample(np.ones((channels, length)), rate, new_rate)
    assert resampled.shape == (channels, -(-length * new_rate // rate))
    assert resampled.dtype == np.float64


def test_same_rate_leaves_the_samples_alone() -> None:
    samples = sound(0.1)
    np.testing.assert_array_equal(resample(samples, RATE, RATE), samples)


@pytest.mark.parametrize("frequency", [100.0, 1_000.0, 5_000.0])
@pytest.mark.parametrize(("rate", "new_rate"), [(22_050, 16_000), (16_000, 22_050), (44_100, 48_000), (48_000, 16_000)])
def test_a_sine_keeps_frequency_phase_and_level(rate: int, new_rate: int, frequency: float) -> None:
    resampled = resample(sine(frequency, rate, rate // 2), rate, new_rate)
    expected = sine(frequency, new_rate, resampled.shape[1])
    inner = slice(200, -200)  # beyond its ends the recording counts as silence
    assert np.abs(resampled - expected)[:, inner].max() < 1e-4


def test_what_the_lower_rate_cannot_hold_is_removed_instead_of_mirrored() -> None:
    resampled = resample(sine(10_000, 48_000, 24_000), 48_000, 16_000)
    assert np.abs(resampled[:, 200:-200]).max() < 1e-4


@pytest.mark.parametrize(("rate", "working_rate"), [(22_050, 16_000), (44_100, 16_000), (8_000, 16_000)])
def test_there_and_back_keeps_sound_in_the_band_of_both_rates(rate: int, working_rate: int) -> None:
    highest = 0.85 * min(rate, working_rate) / 2
    frequencies = np.random.default_rng(0).uniform(50, highest, 30)
    samples = np.sum([sine(frequency, rate, rate // 2) for frequency in frequencies], axis=0) / 30
    back = resample(resample(samples, rate, working_rate), working_rate, rate)[:, : samples.shape[1]]
    inner = slice(400, -400)
    error, power = (back - samples)[:, inner], samples[:, inner]
    assert 10 * np.log10((power**2).sum() / (error**2).sum()) > 80


def test_channels_are_resampled_each_by_itself() -> None:
    left, right = sound(0.1, seed=1), sound(0.1, seed=2)
    both = resample(np.concatenate([left, right]), RATE, 22_050)
    np.testing.assert_allclose(both[:1], resample(left, RATE, 22_050), atol=1e-12)
    np.testing.assert_allclose(both[1:], resample(right, RATE, 22_050), atol=1e-12)


def test_rates_without_a_common_divisor_are_refused_before_memory_runs_out() -> None:
    with pytest.raises(SettingsError, match="larger common divisor"):
        resample(sound(0.01), 44_101, 48_000)
