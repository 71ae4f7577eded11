"""Writing: samples to the nearest step, as many as there are, in files that can be read back whatever their size."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dapcli.audio import Audio, encode, output_format, read_audio
from dapcli.audio.writing import format_notes, keeps_samples, step_of
from dapcli.errors import SettingsError

RATE = 8_000


def written() -> list[tuple[str, str]]:
    """All formats and subtypes that files are written in."""
    pairs = []
    for container in soundfile.available_formats():
        for subtype in soundfile.available_subtypes(container):
            try:
                chosen = output_format(Path(f"a.{container}"), Audio(np.zeros((1, 1)), RATE, subtype, container))
            except SettingsError:
                continue
            if chosen == (container, subtype):
                pairs.append(chosen)
    return pairs


WRITTEN = written()
STEPPED = [pair for pair in WRITTEN if step_of(pair[1])]


def decode(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Samples ``[C, N]`` of a file, as soundfile reads it."""
    samples: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = soundfile.read(io.BytesIO(data), always_2d=True)[0].T
    return samples


@pytest.mark.parametrize(("container", "subtype"), WRITTEN)
def test_every_length_is_kept(container: str, subtype: str, tmp_path: Path) -> None:
    for length in (1, 2, 255, 8_001):
        data = encode(Audio(np.full((1, length), 0.25), RATE, subtype, container))
        (tmp_path / "a").write_bytes(data)
        assert decode(data).shape == read_audio(tmp_path / "a").samples.shape == (1, length)
        assert not keeps_samples(subtype) or (decode(data) == 0.25).all()


@pytest.mark.parametrize(("container", "subtype"), STEPPED)
def test_steps_are_neither_shifted_nor_wrapped(container: str, subtype: str) -> None:
    step = step_of(subtype)
    assert step
    samples = np.r_[0, 1, -1, 2, -2, -step, step, np.linspace(-0.9, 0.9, 20_001)][None]
    error = decode(encode(Audio(samples, RATE, subtype, container))) - np.clip(samples, -1, 1 - step)
    np.testing.assert_array_equal(error[0, :7], 0)
    assert np.abs(error).max() <= step / 2
    assert abs(error.mean()) < 0.02 * step


@pytest.mark.parametrize(("container", "subtype"), [pair for pair in WRITTEN if pair[1] in ("ULAW", "ALAW")])
def test_companded_codes_come_back(container: str, subtype: str) -> None:
    rate = 8_000
    samples = decode(encode(Audio(np.linspace(-1, 1, 9_999)[None], rate, subtype, container)))
    np.testing.assert_array_equal(decode(encode(Audio(samples, rate, subtype, container))), samples)


def test_same_samples_make_the_same_bytes_at_any_time() -> None:
    recordings = [Audio(np.full((1, 100), 0.25), RATE, subtype, container) for container, subtype in WRITTEN]
    before = [encode(audio) for audio in recordings]
    time.sleep(1.1)  # clocks in files count seconds
    assert [encode(audio) for audio in recordings] == before


class Long:
    """A recording that is too long to be there."""

    rate, channels, subtype, format = 48_000, 2, "PCM_16", "WAV"

    def __init__(self, size: int) -> None:
        self.length = size // 4

    def read(self, start: int, stop: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.zeros((2, stop - start))


@pytest.mark.parametrize("extension", ["wav", "aiff", "au", "voc", "w64", "caf", "flac", "ogg"])
def test_what_is_too_long_for_a_format_is_rf64_or_refused(extension: str) -> None:
    path, long, longest = Path(f"out.{extension}"), Long(5 << 30), Long((1 << 32) - (1 << 27))
    if extension in ("aiff", "au", "voc"):
        with pytest.raises(SettingsError, match=r"too long .* choose \.w64"):
            output_format(path, long)
    else:
        container, subtype = output_format(path, long)
        assert container == ("RF64" if extension == "wav" else extension.upper())
        assert ("RF64" in " ".join(format_notes(path, long, container, subtype))) == (extension == "wav")
    if extension in ("wav", "aiff"):
        assert output_format(path, longest)[0] == extension.upper()


@pytest.mark.parametrize(
    ("source", "name", "kept"),
    [
        (("WAV", "IMA_ADPCM"), "a.wav", False),
        (("WAV", "FLOAT"), "a.flac", False),
        (("WAV", "PCM_32"), "a.flac", False),
        (("WAV", "FLOAT"), "a.wav", True),
        (("WAV", "PCM_U8"), "a.flac", True),
        (("WAV", "ULAW"), "a.flac", True),
        (("MP3", "MPEG_LAYER_III"), "a.wav", True),
        (("OGG", "VORBIS"), "a.opus", True),
    ],
)
def test_a_subtype_that_is_not_kept_is_noted(source: tuple[str, str], name: str, kept: bool) -> None:
    audio, path = Audio(np.zeros((1, 1)), RATE, *source[::-1]), Path(name)
    assert (format_notes(path, audio, *output_format(path, audio)) == []) == kept
