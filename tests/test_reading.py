"""Files of other programs: wrong headers, missing ends, tags around them, odd layouts, and formats that are foreign."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dapcli.audio import Audio, encode, open_audio
from dapcli.audio.contents import Pieces
from dapcli.audio.headers import inspect
from dapcli.audio.reading import AudioFile
from dapcli.errors import InputError
from tests.signals import Samples, noise

RATE = 16_000
SOUND = np.round(noise(1, 20_000, std=0.1) * 2**15) / 2**15
LOSSY = (("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"))


def encoded(container: str, subtype: str = "PCM_16", samples: Samples = SOUND) -> bytes:
    return encode(Audio(samples, RATE, subtype, container))


def opened(path: Path, data: bytes, *, accept_truncated: bool = False) -> AudioFile:
    path.write_bytes(data)
    return open_audio(path, accept_truncated=accept_truncated)


def put(data: bytes, at: int, kind: str, number: int) -> bytes:
    return data[:at] + struct.pack(kind, number) + data[at + struct.calcsize(kind) :]


def sizes(data: bytes) -> tuple[int, int, str]:
    """Where a file announces the bytes of its samples, what it counts besides them, and how."""
    return {
        b"RIFF": (data.find(b"data") + 4, 0, "<I"),
        b"RIFX": (data.find(b"data") + 4, 0, ">I"),
        b"RF64": (data.find(b"ds64") + 16, 0, "<Q"),
        b"riff": (data.find(b"data") + 16, 24, "<Q"),
        b"FORM": (data.find(b"SSND") + 4, 8, ">I"),
        b"caff": (data.find(b"data") + 4, 4, ">Q"),
        b".snd": (8, 0, ">I"),
    }[data[:4]]


def with_size(data: bytes, number: int) -> bytes:
    at, besides, kind = sizes(data)
    return put(data, at, kind, number + besides)


def with_count(data: bytes, number: int) -> bytes:
    return put(data, data.index(b"ds64") + 24, "<Q", number)


def big_endian(data: bytes) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, SOUND.T, RATE, "PCM_16", "BIG", "WAV")
    return buffer.getvalue()


CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    **dict.fromkeys(("WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF", "AU"), bytes),
    "RIFX": big_endian,
}


# Sizes


@pytest.mark.parametrize("announced", [0, 4_000])
@pytest.mark.parametrize("container", CONTAINERS)
def test_samples_past_the_announced_ones_are_read_with_a_note(container: str, announced: int, tmp_path: Path) -> None:
    data = CONTAINERS[container](encoded(container if container != "RIFX" else "WAV"))
    data = data[: data.find(b"PEAK") if b"PEAK" in data else None]
    with opened(tmp_path / "a", with_size(data, announced)) as file:
        np.testing.assert_array_equal(file.read(0, file.length), SOUND)
        assert str(announced) in file.notes[0]
        assert "40000" in file.notes[0]


def behind(*parts: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data + b"".join(parts)


@pytest.mark.parametrize(
    ("container", "change"),
    [
        ("WAV", behind(b"LIST", struct.pack("<I", 12), b"INFOINAM", bytes(4))),
        ("WAV", behind(b"LIST", struct.pack("<I", 400), b"INFO")),  # cut off
        ("WAV", behind(b"abcd", struct.pack("<I", 5), bytes(6), b"efgh", bytes(4))),
        ("WAV", behind(b"TAG", bytes(125))),
        ("WAV", behind(b"APETAGEX", struct.pack("<IIII", 2000, 32, 0, 0), bytes(8))),
        ("FLAC", lambda data: data + data),  # the second is no part of it
        # Out of a pipe; FLAC then has 0 in the 36 bits after the number of bits per sample.
        *(("WAV", partial(with_size, number=number)) for number in (0xFFFF_FFFF, 0x7FFF_FFFF, 0x7FFF_F000)),
        ("RF64", partial(with_size, number=2**64 - 1)),
        ("CAF", partial(with_size, number=2**64 - 5)),  # -1: to the end
        ("FLAC", lambda data: data[:21] + bytes([data[21] & 0xF0, 0, 0, 0, 0]) + data[26:]),
        # Only the size of the samples counts, not their number.
        *(("RF64", partial(with_count, number=number)) for number in (0, 19_999, 20_004, 2**40)),
    ],
)
def test_odd_but_whole_files_are_read(container: str, change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    with opened(tmp_path / "a", change(encoded(container))) as file:
        np.testing.assert_array_equal(file.read(0, file.length), SOUND)
        np.testing.assert_array_equal(file.read(100, 200), SOUND[:, 100:200])
        assert file.notes == ()


@pytest.mark.parametrize("behind", [b"LIST\4\0\0\0INFO", b"bext\3\0\0\0abc\0cue \4\0\0\0" + bytes(4)])
def test_chunks_behind_samples_that_are_not_announced_are_none(behind: bytes, tmp_path: Path) -> None:
    with opened(tmp_path / "a", with_size(encoded("WAV"), 4_000) + behind) as file:
        np.testing.assert_array_equal(file.read(0, file.length), SOUND)


def test_wav_past_4_gb_whose_size_has_wrapped_is_whole(tmp_path: Path) -> None:
    size = 2**32 + 400_000_000
    path = tmp_path / "a"
    with path.open("wb") as file:  # with a hole in it, which takes no space on the disk
        file.write(with_size(encoded("WAV"), size % 2**32)[:44])
        file.seek(44 + size % 2**32)
        file.write(b"sound")
        file.truncate(44 + size)
    contents = inspect(path)
    with Pieces(path, contents.pieces) as view, soundfile.SoundFile(view) as sound:
        assert sound.frames == size // 2
        sound.seek(size % 2**32 // 2)
        assert sound.read(2, dtype="int16").tobytes() == b"soun"
    assert str(size) in contents.notes[0]


def test_zeros_behind_the_samples_are_left_out_with_a_note(tmp_path: Path) -> None:
    with opened(tmp_path / "a", encoded("WAV") + bytes(2_000)) as file:
        assert file.length == SOUND.shape[1]
        assert "2000 bytes of zeros" in file.notes[0]


# Missing ends


@pytest.mark.parametrize("lost", [1, 2, 1000])
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_little_less_than_announced_is_read_with_a_note(container: str, lost: int, tmp_path: Path) -> None:
    data = CONTAINERS[container](encoded(container if container != "RIFX" else "WAV"))
    at, besides, kind = sizes(data)
    # Without what follows the samples.
    end = len(data) - (40_000 - struct.unpack_from(kind, data, at)[0] + besides if container != "CAF" else 0)
    with opened(tmp_path / "a", data[: end - lost]) as file:
        missing = -(-lost // 2)
        np.testing.assert_array_equal(file.read(0, file.length), SOUND[:, : 20_000 - missing])
        assert f"last {missing} of 20000 samples" in file.notes[0]


@pytest.mark.parametrize(
    ("container", "subtype", "least"),
    [
        *(("FLAC", "PCM_16", 294_912), ("FLAC", "PCM_24", 294_912), ("CAF", "ALAC_16", 294_912)),
        *(("WAV", "IMA_ADPCM", 298_000), ("WAV", "GSM610", 299_000)),
        *((*each, 280_000) for each in LOSSY),
    ],
)
def test_a_file_without_its_last_block_is_read_with_a_note(
    container: str, subtype: str, least: int, tmp_path: Path
) -> None:
    data = encoded(container, subtype, noise(1, 300_000, std=0.1))
    with opened(tmp_path / "whole", data) as file:
        whole = file.read(0, file.length)
    with opened(tmp_path / "a", data[:-30]) as file:
        assert least <= file.length < whole.shape[1]
        np.testing.assert_array_equal(file.read(0, file.length), whole[:, : file.length])
        assert "missing" in file.notes[0]
        for start in (file.length - 500, 70_000, 0, 200_000):
            np.testing.assert_array_equal(file.read(start, start + 500), whole[:, start : start + 500])


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        *((container, "PCM_16") for container in ("WAV", "RF64", "W64", "AIFF", "AU", "CAF", "SVX", "VOC", "FLAC")),
        *(("WAV", "FLOAT"), ("WAV", "ULAW"), ("WAVEX", "PCM_24"), ("FLAC", "PCM_24"), *LOSSY),
    ],
)
def test_files_truncated_anywhere_are_refused_unless_that_is_accepted(
    container: str, subtype: str, tmp_path: Path
) -> None:
    data = encoded(container, subtype, noise(1, 64_000, std=0.1))
    path = tmp_path / "a"

    @given(st.integers(0, 30) | st.integers(31, int(0.6 * len(data))))
    @example(len(data) // 2)
    @settings(deadline=None, max_examples=10)
    def cut(size: int) -> None:
        with pytest.raises(InputError) as refused:
            opened(path, data[:size])
        if "--accept-truncated" in str(refused.value):
            with open_audio(path, accept_truncated=True) as file:
                assert 0 < file.length < 0.7 * 64_000
                assert str(file.length) in str(refused.value)
                assert "missing" in file.notes[0]

    cut()


def test_an_ogg_file_without_its_last_page_is_read_with_a_note(tmp_path: Path) -> None:
    data = encoded("OGG", "VORBIS", noise(1, 100_000, std=0.1))
    with opened(tmp_path / "a", data[: data.rindex(b"OggS")]) as file:
        assert file.length > 50_000
        assert "last page is missing" in file.notes[0]


@pytest.mark.parametrize(("container", "subtype"), LOSSY[:2])
def test_joined_ogg_is_refused_as_only_its_first_stream_could_be_read(
    container: str, subtype: str, tmp_path: Path
) -> None:
    data = encoded(container, subtype)
    with pytest.raises(InputError, match=r"several recordings.*ffmpeg"):
        opened(tmp_path / "a", data + data)


# MP3


def without_xing(data: bytes) -> bytes:
    """MP3 without its first frame, in which LAME keeps the number of the others."""
    return data[data.index(data[:2], 4) :]


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("tags", [b"", b"TAG" + bytes(125)])
def test_mp3_that_does_not_tell_its_length_is_read_to_its_end(mode: str, tags: bytes, tmp_path: Path) -> None:
    # Loud, then quiet: libsndfile takes the first frame's size for that of all.
    samples = noise(2, 60_000, std=0.1) * np.where(np.arange(60_000) < 6_000, 1, 1e-3)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.T, RATE, "MPEG_LAYER_III", format="MP3", bitrate_mode=mode, compression_level=0.5)
    with opened(tmp_path / "a", without_xing(buffer.getvalue()) + tags) as file:
        assert 60_000 <= file.length <= 60_000 + 3 * 576
        assert file.length % 576 == 0
        assert file.notes == ()
        end = file.read(file.length - 2_000, file.length)
        np.testing.assert_array_equal(end, file.read(0, file.length)[:, -2_000:])


def test_joined_mp3_is_read_to_its_end_with_a_note(tmp_path: Path) -> None:
    data = encoded("MP3", "MPEG_LAYER_III")
    with opened(tmp_path / "a", data + data) as file:
        assert file.length > 2 * 20_000
        assert "frames" in file.notes[0]


# Tags in front


@pytest.mark.parametrize(
    ("container", "subtype"), [("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("WAV", "PCM_16"), ("AIFF", "PCM_24"), *LOSSY]
)
def test_tags_around_a_file_change_no_bit(container: str, subtype: str, tmp_path: Path) -> None:
    data = encoded(container, subtype, noise(1, 100_000, std=0.1))
    tag = b"ID3\3\0\0\0\0\x02\x00" + bytes(256)
    whole = opened(tmp_path / "whole", data)
    with opened(tmp_path / "a", tag + tag + data + b"TAG" + bytes(125)) as file:
        assert (file.length, file.format, file.notes) == (whole.length, container, ())
        for start in (80_000, 0):
            np.testing.assert_array_equal(file.read(start, file.length), whole.read(start, file.length))


# Integers in more bytes than they need


def layout(values: np.ndarray, bits: int, width: int, container: str) -> bytes:
    """A file of integers ``[N, C]`` of ``bits`` in ``width`` bytes each."""
    body = b"".join(int(value).to_bytes(width, "little", signed=value < 0) for value in values.ravel())
    if container == "CAF":
        body = np.frombuffer(body, "u1").reshape(-1, width)[:, ::-1].tobytes()
    channels = values.shape[1]
    unit = channels * width
    form = struct.pack("<HHIIHH", 1, channels, RATE, RATE * unit, unit, bits)
    if container == "WAVEX":
        form = struct.pack("<HHIIHH", 0xFFFE, channels, RATE, RATE * unit, unit, 8 * width)
        form += struct.pack("<HHI", 22, bits, 3) + bytes.fromhex("0100000000001000800000aa00389b71")
    if container == "CAF":
        form = struct.pack(">d4sIIIII", RATE, b"lpcm", 0, unit, 1, channels, bits)
        chunks = b"desc" + struct.pack(">Q", len(form)) + form + b"data" + struct.pack(">QI", len(body) + 4, 0) + body
        return b"caff\0\1\0\0" + chunks
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


@pytest.mark.parametrize("where", ["upper", "lower", "lower, no sign"])
@pytest.mark.parametrize("container", ["WAV", "WAVEX", "CAF"])
@pytest.mark.parametrize(("bits", "width"), [(24, 4), (20, 4), (16, 4), (20, 3), (16, 3), (12, 2)])
def test_integers_in_more_bytes_are_read_wherever_they_lie(
    bits: int, width: int, container: str, where: str, tmp_path: Path
) -> None:
    values = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (500, 2)) // 3
    stored = values << (8 * width - bits) if where == "upper" else values
    stored = stored % 2**bits if "no sign" in where else stored
    with opened(tmp_path / "a", layout(stored, bits, width, container)) as file:
        np.testing.assert_array_equal(file.read(0, file.length), values.T / 2 ** (bits - 1))
        assert int(file.subtype.removeprefix("PCM_")) >= bits
        assert f"{bits} bits in {width} bytes" in file.notes[0]


@pytest.mark.parametrize(("unit", "bits"), [(5, 16), (7, 24), (2, 16), (10, 32)])
def test_frames_that_do_not_hold_their_samples_are_refused(unit: int, bits: int, tmp_path: Path) -> None:
    data = put(encoded("WAV", "PCM_16", noise(2, 1_000, std=0.1)), 32, "<HH"[:2], unit)
    with pytest.raises(InputError, match=f"{bits} bits in frames of {unit} bytes"):
        opened(tmp_path / "a", put(data, 34, "<H", bits))


# What is no audio to libsndfile


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x1cftypM4A \0\0\2\0", "MPEG-4 audio"),
        (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "Windows Media"),
        (bytes.fromhex("1a45dfa39f4286810142f7810142f2810442f381084282847765626d"), "WebM"),
        (b"OggS\0\2" + bytes(21) + b"\x33\x7fFLAC\1\0", "FLAC in Ogg"),
        (b"#!AMR\n", "AMR"),
        (b"MAC \x96\x0f", "Monkey's Audio"),
        ((b"\xd2" + bytes(32)) * 10, "GSM"),
        (b"\xff\xf1\x60\x40", "AAC"),
    ],
)
def test_foreign_formats_are_named_with_the_line_that_converts_them(head: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / "my file.xyz"
    with pytest.raises(InputError, match=name) as refused:
        opened(path, head + bytes(range(256)) * 8)
    assert f"ffmpeg -i '{path}' '{tmp_path / 'my file.wav'}'" in str(refused.value)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"", "empty"),
        (bytes(5_000), "zeros"),
        (b"This is not a recording.\n" * 100, "text"),
        ("Grüße\n".encode() * 100, "text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "PNG"),
        (b"PK\3\4" + bytes(99), "ZIP"),
    ],
)
@pytest.mark.parametrize("suffix", ["wav", "mp3", "raw"])
def test_what_is_not_audio_is_named(content: bytes, name: str, suffix: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=name):
        opened(tmp_path / f"a.{suffix}", content)
