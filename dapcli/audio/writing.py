"""Audio files, encoded in blocks: which format holds a recording, and how it is written."""

from __future__ import annotations

import contextlib
import io
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
from mutagen import MutagenError
from mutagen.ogg import OggPage
from numpy.typing import NDArray

from dapcli.audio.chunks import chunks
from dapcli.audio.metadata import Metadata, read_metadata
from dapcli.audio.recording import PORTABLE_SUBTYPES, Audio, Recording, Samples, blocks, count_channels
from dapcli.errors import OutputError, SettingsError

# Formats whose name is not their extension.
_FORMATS = {"AIF": "AIFF", "AIFC": "AIFF", "OGA": "OGG", "OPUS": "OGG", "WAVE": "WAV", "BWF": "WAV", "SPH": "NIST"}
# Formats that need more than one file, do not say what is in theirs, or lose the end at some lengths.
_INCOMPLETE_FORMATS = ("RAW", "SD2", "SDS")
# libsndfile's encoders (1.2.2) that corrupt memory: of these, and of Vorbis above this rate.
_BROKEN_SUBTYPES, _MAX_VORBIS_RATE = ("ALAC_20", "ALAC_24", "ALAC_32"), 200_000
_WAV_FAMILY = ("WAV", "WAVEX", "RF64")
# Subtypes that hold samples past full scale.
_FLOAT_SUBTYPES = ("FLOAT", "DOUBLE", "VORBIS", "OPUS")
# Bits of a sample of the subtypes that hold samples on a linear scale.
_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64}
_BITS |= {"ALAC_16": 16, "ALAC_20": 20, "ALAC_24": 24, "ALAC_32": 32}
# Bytes of a file that may be metadata, and that it may have: sizes in it have 32 bits, in others than these 31.
_ROOM = 1 << 26
_LARGEST = dict.fromkeys(("RF64", "W64", "CAF", "FLAC", "OGG", "MP3"), 1 << 63)
_LARGEST |= {"WAV": 1 << 32, "WAVEX": 1 << 32, "AIFF": 1 << 32, "VOC": (1 << 24) + _ROOM - 1000}
# Samples that a subtype with blocks would make longer.
_PROBE = 63


def output_format(path: Path, source: Recording) -> tuple[str, str]:
    """Format and subtype to write ``path`` in: the format by its extension, the source's subtype where that holds it.

    Raises ``SettingsError`` where libsndfile cannot write such files, or not at this rate, channel count or length.
    """
    extension = path.suffix.removeprefix(".").upper()
    name = _FORMATS.get(extension, extension)
    if name not in soundfile.available_formats() or name in _INCOMPLETE_FORMATS:
        raise SettingsError(f"{path}: unknown audio extension {path.suffix!r}; use .wav, .flac, .ogg, .aiff or .mp3")
    if name == "WAV" and source.format in _WAV_FAMILY:
        name = source.format
    if name == "WAV" and source.format == "FLAC" and source.channels > 2:
        name = "WAVEX"  # which tells the speakers
    candidates = [source.subtype] if name == source.format or source.subtype.startswith(PORTABLE_SUBTYPES) else []
    if _BITS.get(source.subtype, 0) > 16:  # for the others more would only be larger
        candidates += ["PCM_32", "PCM_24"] if source.subtype == "ALAC_32" else ["PCM_24"]
    candidates.append(soundfile.default_subtype(name))
    if extension == "OPUS":
        candidates = ["OPUS"]
    for subtype in candidates:
        if not subtype or not soundfile.check_format(name, subtype):
            continue
        small = _size(source, subtype) < _LARGEST.get(name, 1 << 31) - _ROOM
        container = "RF64" if name in _WAV_FAMILY and not small else name
        if _holds(container, subtype, source):
            if container == name and not small:
                raise SettingsError(f"{path}: is too long for {name}; choose .w64, .caf or .flac")
            return container, subtype
    raise SettingsError(f"{path}: {_refusal(source, name)}")


def _refusal(recording: Recording, what: str) -> str:
    shape = f"{count_channels(recording.channels)} at {recording.rate} Hz"
    return f"libsndfile cannot write {shape} as {what}; choose another extension"


def format_notes(path: Path, source: Recording, container: str, subtype: str) -> list[str]:
    """What is not as people expect where a recording is written in this format: its subtype, or its kind of WAV."""
    notes = []
    same = container == source.format or {container, source.format} <= {*_WAV_FAMILY}
    if subtype != source.subtype and subtype in _BITS and (same or _BITS.get(source.subtype, 0) > _BITS[subtype]):
        notes.append(f"{path}: {source.subtype} is not kept; the samples are written as {subtype}")
    if container == "RF64" != source.format and path.suffix.upper() != ".RF64":
        notes.append(f"{path}: is RF64, for plain WAV ends at 4 GB")
    return notes


def metadata_to_write(path: Path, source: Recording, container: str, subtype: str) -> Metadata:
    """The metadata of a recording's file, for one in this format; none if they are so damaged that it fails."""
    metadata = read_metadata(path, source)
    try:
        encode(_silence(container, subtype, source), metadata)
    except Exception:  # mutagen raises all kinds, and that would be after the fit
        return Metadata(metadata.family, lost=["tags and all else but the samples, for they are damaged"])
    return metadata


def _size(recording: Recording, subtype: str) -> int:
    """The bytes that samples take, as far as the subtype tells."""
    return recording.length * recording.channels * _BITS.get(subtype, 8) // 8


def _silence(container: str, subtype: str, source: Recording) -> Audio:
    return Audio(np.zeros((source.channels, _PROBE)), source.rate, subtype, container)


def _holds(container: str, subtype: str, source: Recording) -> bool:
    """Whether a format keeps the source's rate, channels and length, which libsndfile only tells on writing."""
    try:
        with soundfile.SoundFile(io.BytesIO(encode(_silence(container, subtype, source)))) as file:
            shape = file.read(2 * _PROBE, always_2d=True).shape
            # What cannot seek does not tell its length.
            return file.seekable() and (file.samplerate, *shape) == (source.rate, _PROBE, source.channels)
    except (OutputError, soundfile.LibsndfileError, TypeError):
        return False


def full_scale_gain(peak: float, subtype: str) -> float:
    """The gain, 1 at the most, with which an integer subtype holds samples of this peak (full scale is 1)."""
    return 1.0 if subtype in _FLOAT_SUBTYPES else 1.0 / max(peak, 1.0)


def step_of(subtype: str) -> float | None:
    """The quantization step of a linear integer subtype, full scale at 1; None for the others."""
    return None if subtype in _FLOAT_SUBTYPES or subtype not in _BITS else 2.0 ** (1 - _BITS[subtype])


def expected_size(recording: Recording, container: str, subtype: str) -> int:
    """About how many bytes the file of a recording will have in a format."""
    bits = _BITS.get(subtype, 2)
    return recording.length * recording.channels * (bits // 2 if container == "FLAC" else bits) // 8


def keeps_samples(subtype: str) -> bool:
    """Whether a subtype holds samples to its precision, none off by more; lossy and companded ones do not."""
    return subtype in _BITS


def encode(recording: Recording, metadata: Metadata | None = None, *, compression: float | None = None) -> bytes:
    """The bytes of an audio file, as :func:`write_audio` writes it."""
    buffer = io.BytesIO()
    write_audio(buffer, recording, metadata, compression=compression)
    return buffer.getvalue()


def write_audio(
    stream: BinaryIO, recording: Recording, metadata: Metadata | None = None, *, compression: float | None = None
) -> None:
    """Write an audio file of a recording, in its own format and subtype, with metadata, into an empty stream.

    ``stream`` can seek and read. ``compression`` is libsndfile's, 0 to 1, or its default. The same samples make the
    same bytes. Raises ``OutputError`` where libsndfile refuses the combination of format, rate and channels,
    ``OSError`` where the stream does, because the disk is full for one.
    """
    sink, step = _Sink(stream), step_of(recording.subtype)

    # Around calls of libsndfile alone: what reading raises is none of its business.
    @contextlib.contextmanager
    def errors() -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError) as error:  # libsndfile's are RuntimeErrors
            if not sink.error:
                raise OutputError(_refusal(recording, f"{recording.format}/{recording.subtype}")) from error
        if sink.error:
            raise sink.error

    with errors():
        if recording.subtype in _BROKEN_SUBTYPES or (
            recording.subtype == "VORBIS" and recording.rate > _MAX_VORBIS_RATE
        ):
            raise ValueError
        shape = recording.rate, recording.channels
        file = soundfile.SoundFile(
            sink, "w", *shape, recording.subtype, format=recording.format, compression_level=compression
        )
    with file:
        for block in blocks(recording):
            with errors():
                file.write((block if step is None else _integers(block, step)).T)
        with errors():
            file.close()
    _correct(stream, recording)
    if metadata:
        try:
            metadata.write(stream, recording.format, recording.subtype)
        except MutagenError as error:  # an OSError of the stream is its only argument
            raise next((each for each in error.args if isinstance(each, OSError)), error) from None


def _integers(samples: Samples, step: float) -> NDArray[np.int32]:
    """Samples rounded to the nearest multiple of a step, as libsndfile takes integers; by itself it rounds down."""
    largest = round(1 / step)
    return (np.rint(samples / step).clip(-largest, largest - 1) * (step * 2**31)).astype(np.int32)


def _correct(stream: BinaryIO, recording: Recording) -> None:
    """Correct what libsndfile wrote: times and random numbers, and lengths that count the byte of padding."""
    if recording.format == "OGG":
        stream.seek(0)
        with contextlib.suppress(EOFError):
            while True:
                start = stream.tell()
                page = OggPage(stream)
                page.serial = 1
                stream.seek(start)
                stream.write(page.write())
    elif recording.format == "MAT5":
        stream.seek(0)
        stream.write(b"MATLAB 5.0 MAT-file".ljust(116, b"\0"))
    size = _size(recording, recording.subtype)
    padded = recording.subtype.startswith(PORTABLE_SUBTYPES) and size % 2
    for chunk in list(chunks(stream)):
        if chunk.name == b"PEAK":  # its time of writing
            stream.seek(chunk.start + 4)
            stream.write(bytes(4))
        elif chunk.name == b"COMM" and padded:
            stream.seek(chunk.start + 2)
            stream.write(struct.pack(">I", recording.length))
        elif chunk.name == b"SSND" and padded:
            stream.seek(chunk.start - 4)
            stream.write(struct.pack(">I", 8 + size))


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

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._call(self._stream.seek, offset, whence)

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
