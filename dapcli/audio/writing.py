"""Audio files, encoded in blocks: which format holds a recording, and how it is written."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from dapcli.audio.recording import PORTABLE_SUBTYPES, Audio, Recording, blocks, count_channels
from dapcli.errors import OutputError, SettingsError

# Formats whose name is not their extension.
_FORMATS = {"AIF": "AIFF", "AIFC": "AIFF", "OGA": "OGG", "OPUS": "OGG", "WAVE": "WAV"}
# Formats that need more than one file, or do not say what is in theirs.
_INCOMPLETE_FORMATS = ("RAW", "SD2")
_WAV_FAMILY = ("WAV", "WAVEX", "RF64")
_FINER_THAN_16_BITS = ("PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAC_20", "ALAC_24", "ALAC_32")
_FLOATING_POINT = ("FLOAT", "DOUBLE")
# Subtypes that hold samples past full scale.
_FLOAT_SUBTYPES = (*_FLOATING_POINT, "VORBIS", "OPUS")
# Bits of the subtypes that hold integers on a linear scale.
_INTEGER_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
# The chunk of peaks, where there is one, begins within so many bytes.
_HEADER = 128


def output_format(path: Path, source: Recording) -> tuple[str, str]:
    """Format and subtype to write ``path`` in: the format by its extension, the source's subtype where that holds it.

    Raises:
        SettingsError: libsndfile cannot write files with this extension, or not at this rate or channel count.
    """
    extension = path.suffix.removeprefix(".").upper()
    name = _FORMATS.get(extension, extension)
    if name not in soundfile.available_formats() or name in _INCOMPLETE_FORMATS:
        raise SettingsError(f"{path}: unknown audio extension {path.suffix!r}; use .wav, .flac, .ogg, .aiff or .mp3")
    if name == "WAV" and source.format in _WAV_FAMILY:
        name = source.format
    candidates = [source.subtype] if name == source.format or source.subtype.startswith(PORTABLE_SUBTYPES) else []
    if source.subtype in _FINER_THAN_16_BITS:
        candidates.append("PCM_24")  # for the others this would only be larger
    candidates.append(soundfile.default_subtype(name))
    if extension == "OPUS":
        candidates = ["OPUS"]
    for subtype in candidates:
        if subtype and soundfile.check_format(name, subtype) and _holds(name, subtype, source):
            return name, subtype
    raise SettingsError(
        f"{path}: libsndfile cannot write {count_channels(source.channels)} at {source.rate} Hz as {name}; "
        "choose another extension"
    )


def _holds(container: str, subtype: str, source: Recording) -> bool:
    """Whether a format keeps the source's rate and channels, which libsndfile only tells on writing."""
    silence = Audio(np.zeros((source.channels, 64)), source.rate, subtype, container)
    try:
        data = encode(silence)
        if container == "MP3":
            return True  # refused above, or kept; its decoder cannot read anything so short
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            return (file.samplerate, file.channels) == (source.rate, source.channels)
    except (OutputError, soundfile.LibsndfileError, TypeError):
        return False


def full_scale_gain(peak: float, subtype: str) -> float:
    """The gain, 1 at the most, with which an integer subtype holds samples of this peak (full scale is 1)."""
    return 1.0 if subtype in _FLOAT_SUBTYPES else 1.0 / max(peak, 1.0)


def step_of(subtype: str) -> float | None:
    """The quantization step of a linear integer subtype, full scale at 1; None for the others."""
    bits = _INTEGER_BITS.get(subtype)
    return None if bits is None else 2.0 ** (1 - bits)


def keeps_samples(subtype: str) -> bool:
    """Whether a subtype holds samples to its precision, none off by more; lossy and companded ones do not."""
    return subtype in _FLOATING_POINT or subtype in _INTEGER_BITS


def encode(recording: Recording) -> bytes:
    """The bytes of an audio file, as :func:`write_audio` writes it.

    Raises:
        OutputError: libsndfile refuses the combination of format, rate and channels.
    """
    buffer = io.BytesIO()
    write_audio(buffer, recording)
    return buffer.getvalue()


def write_audio(stream: BinaryIO, recording: Recording) -> None:
    """Write an audio file of a recording, in its own format and subtype, into an empty stream.

    ``stream`` can seek and, for containers with a chunk of peaks, read.

    Raises:
        OutputError: libsndfile refuses the combination of format, rate and channels.
        OSError: The stream refuses, because the disk is full for one.
    """
    sink = _Sink(stream)

    # Around calls of libsndfile alone: what reading raises is none of its business.
    @contextlib.contextmanager
    def errors() -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError) as error:  # libsndfile's are RuntimeErrors
            if not sink.error:
                raise OutputError(
                    f"libsndfile cannot write {count_channels(recording.channels)} at {recording.rate} Hz as "
                    f"{recording.format}/{recording.subtype}; choose another extension"
                ) from error
        if sink.error:
            raise sink.error

    with errors():
        file = soundfile.SoundFile(
            sink, "w", recording.rate, recording.channels, subtype=recording.subtype, format=recording.format
        )
    with file:
        for block in blocks(recording):
            with errors():
                file.write(block.T)
        with errors():
            file.close()

    if recording.subtype not in _FLOATING_POINT:
        return
    # The chunk of peaks holds the time of writing, and the same samples would make another file every second.
    stream.seek(0)
    peak = stream.read(_HEADER).find(b"PEAK")
    if peak >= 0:
        stream.seek(peak + 12)
        stream.write(bytes(4))


class _Sink:
    """Where libsndfile writes: a stream until it first fails, nowhere after that.

    Its callbacks from C cannot raise: they print the exception, of Ctrl-C too, and go on. Here it is kept, in
    ``error``, and libsndfile told that all is well, for what it would make of a failure differs between containers.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.error: BaseException | None = None
        self._stream = stream

    def write(self, data: bytes) -> int:
        self._call(self._stream.write, data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> None:
        self._call(self._stream.seek, offset, whence)

    def tell(self) -> int:
        return self._call(self._stream.tell)

    def _call(self, method: Callable[..., int], *arguments: object) -> int:
        """What a method of the stream returns; 0 once one has failed."""
        if not self.error:
            try:
                return method(*arguments)
            except BaseException as error:
                self.error = error
        return 0
