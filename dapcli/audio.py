"""Recordings: what is read, what is written, and what is kept in between.

Samples are float64 so that a 32-bit integer file comes back bit for bit when nothing changes it. Files are read and
written in blocks, so that long ones take no more memory than short ones.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from dapcli.errors import InputError, OutputError, SettingsError
from dapcli.settings import MAX_RATE, MIN_RATE

Samples = NDArray[np.float64]


# Formats whose name is not their extension.
_FORMATS = {"AIF": "AIFF", "AIFC": "AIFF", "OGA": "OGG", "OPUS": "OGG", "WAVE": "WAV"}
# Formats that need more than one file, or do not say what is in theirs.
_INCOMPLETE_FORMATS = ("RAW", "SD2")
_WAV_FAMILY = ("WAV", "WAVEX", "RF64")
# Subtypes that mean the same samples in every container; the others pad, or differ in quality.
_PORTABLE_SUBTYPES = ("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW")
_FINER_THAN_16_BITS = ("PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAC_20", "ALAC_24", "ALAC_32")
# Subtypes that hold samples past full scale.
_FLOAT_SUBTYPES = ("FLOAT", "DOUBLE", "VORBIS", "OPUS")
# How libsndfile logs the size of a data chunk that does not match its file: WAV, AIFF, AU, W64 and SVX; RF64.
_DATA_SIZE = re.compile(r"^\s*(?:data|SSND|Data Size|riff|BODY)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
_DS64_FRAMES = re.compile(r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
# How it logs that a VOC or MAT4 file ends too early.
_ENDS_EARLY = re.compile(r"[Ss]eems to be (?:a )?truncated")
_UNKNOWN_LENGTH = 0x7FFF_0000
# The number of frames that libsndfile gives for a FLAC file out of a pipe, which does not tell its own.
_UNKNOWN_FRAMES = 0x7FFF_FFFF_FFFF_FFFF
# A polyphase resampler keeps one filter per output phase: this many coefficients are 200 MB.
_MAX_RESAMPLER_COEFFICIENTS = 50_000_000
_RESAMPLER_WIDTH = 64
# Samples handed to or by libsndfile at once: its Vorbis encoder overflows the stack when given minutes.
_BLOCK = 65_536
# Blocks that a file keeps after reading them: the next reading begins a little before the end of the last.
_RECENT_BLOCKS = 4
# The last page of an Ogg file lies within so many bytes: a page has 65,307 at the most, and tags may follow.
_OGG_TAIL = 100_000
# The chunk of peaks, where there is one, begins within so many bytes.
_HEADER = 128


class Recording(Protocol):
    """What can be restored and written: samples ``[C, N]``, full scale at 1, that are read in parts.

    ``rate`` is in Hz; ``subtype`` and ``format`` are libsndfile's names for the sample encoding and the container.
    """

    @property
    def rate(self) -> int:
        """Samples per second and channel."""

    @property
    def subtype(self) -> str:
        """Sample encoding."""

    @property
    def format(self) -> str:
        """Container."""

    @property
    def channels(self) -> int:
        """Number of channels C."""

    @property
    def length(self) -> int:
        """Number of samples N per channel."""

    def read(self, start: int, stop: int) -> Samples:
        """Samples ``[C, stop - start]``, not to be written into.

        Raises:
            ValueError: The recording has no such samples.
        """


@dataclass(frozen=True)
class Audio:
    """A recording in memory.

    ``samples`` is ``[C, N]`` with full scale at 1, ``rate`` is in Hz; ``subtype`` and ``format`` are
    libsndfile's names for the sample encoding and the container.
    """

    samples: Samples
    rate: int
    subtype: str = "FLOAT"
    format: str = "WAV"

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return int(self.samples.shape[0])

    @property
    def length(self) -> int:
        """Number of samples N per channel."""
        return int(self.samples.shape[1])

    def read(self, start: int, stop: int) -> Samples:
        """Samples ``[C, stop - start]``, a view.

        Raises:
            ValueError: The recording has no such samples.
        """
        _check_range(self, start, stop)
        return self.samples[:, start:stop]

    def with_samples(self, samples: Samples) -> Audio:
        """The same recording with other samples ``[C, N]``."""
        return replace(self, samples=samples)

    def as_file(self, container: str, subtype: str) -> Audio:
        """The same recording in another format and subtype."""
        return replace(self, format=container, subtype=subtype)


class AudioFile:
    """An open audio file, of which a few blocks are in memory. Close it, or use it in a ``with`` statement.

    It is a :class:`Recording`, not for use by several threads at once. ``decoder`` has counted ``length`` samples per
    channel and stands at their end.
    """

    def __init__(self, path: Path, decoder: _Decoder, length: int) -> None:
        self.rate = int(decoder.samplerate)
        self.subtype = str(decoder.subtype)
        self.format = str(decoder.format)
        self.channels = int(decoder.channels)
        self.length = length
        self._path = path
        self._decoder = decoder
        # Where the decoder stands, in blocks, and the blocks right before.
        self._position = -(-length // _BLOCK)
        self._recent: deque[Samples] = deque(maxlen=_RECENT_BLOCKS)
        # The first thousand samples after a seek in Vorbis, Opus, MP3 or ALAC are not always those of a whole read
        # (libsndfile 1.2.2). After one in FLAC, whose subtypes are portable too, and in plain samples they are.
        self._seeks = self.subtype.startswith(_PORTABLE_SUBTYPES) and decoder.frames == length

    def __enter__(self) -> AudioFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; more than once does no harm."""
        self._decoder.close()

    def read(self, start: int, stop: int) -> Samples:
        """Samples ``[C, stop - start]``, the same as in a reading of the whole file.

        Lossy files are decoded from their beginning for each reading that begins seconds before the end of the last.

        Raises:
            ValueError: The recording has no such samples, or the file is closed.
            InputError: The file can no longer be read.
        """
        _check_range(self, start, stop)
        if self._decoder.closed:
            raise ValueError(f"{self._path}: is closed")
        samples = np.empty((self.channels, stop - start))
        try:
            for index in range(start // _BLOCK, -(-stop // _BLOCK)):
                offset = index * _BLOCK
                first, last = max(start, offset), min(stop, offset + _BLOCK)
                samples[:, first - start : last - start] = self._block(index)[:, first - offset : last - offset]
        except (soundfile.LibsndfileError, EOFError) as error:
            raise InputError(f"{self._path}: changed while it was in use; leave it alone until all is done") from error
        return samples

    def _block(self, index: int) -> Samples:
        """Samples ``[C, _BLOCK]`` from ``index * _BLOCK`` on; fewer at the end."""
        if not self._position - len(self._recent) <= index <= self._position:
            self._recent.clear()
            if self._seeks:
                self._decoder.seek(index * _BLOCK)
                self._position = index
            elif index < self._position:
                self._decoder.close()
                self._decoder = _open(self._path)
                self._position = 0
        while self._position <= index:
            block = self._decoder.read(_BLOCK, dtype="float64", always_2d=True).T
            if block.shape[1] < min(_BLOCK, self.length - self._position * _BLOCK):
                raise EOFError
            self._recent.append(block)
            self._position += 1
        return self._recent[index - self._position]


class _Decoder(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read forwards: SoundFile itself seeks to the end of each reading, which is not always exact."""

    def seekable(self) -> bool:
        return False


def _open(path: Path) -> _Decoder:
    # As bytes, for names of files need not be UTF-8; Windows has no such names.
    return _Decoder(path if os.name == "nt" else os.fsencode(path))


def open_audio(path: Path) -> AudioFile:
    """Open any file that libsndfile reads, and check all of it.

    Raises:
        InputError: The file is missing, not audio, truncated or empty, has samples that are not finite, or a
            rate outside 8 to 192 kHz.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a folder; name one audio file")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is not a regular file; write what it delivers to a file first")
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(_open(path))
            truncated = _is_cut_off(file.extra_info) or (file.format == "OGG" and not _has_last_page(path))
            length, finite = _scan(file)
        except (soundfile.LibsndfileError, RuntimeError, TypeError, ValueError) as error:  # the latter two: RAW, XI
            reason = str(error).split(":")[-1].strip().rstrip(".")
            raise InputError(f"{path}: cannot be read as audio ({reason})") from error
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        if truncated or length < file.frames != _UNKNOWN_FRAMES:
            raise InputError(f"{path}: is truncated: part of its samples is missing; copy it again")
        if length == 0:
            raise InputError(f"{path}: holds no samples")
        if not finite:
            raise InputError(f"{path}: holds samples that are NaN or infinite; repair it first")
        if not MIN_RATE <= file.samplerate <= MAX_RATE:
            raise InputError(f"{path}: {file.samplerate} Hz is outside {MIN_RATE} to {MAX_RATE} Hz; resample it first")
        stack.pop_all()
    return AudioFile(path, file, length)


def _scan(file: _Decoder) -> tuple[int, bool]:
    """Number of samples per channel that a file holds, and whether all are finite.

    Raises:
        ValueError: The encoding is one that can only be read from the beginning, without a length known before.
        LibsndfileError: A part of the file cannot be decoded.
    """
    if not soundfile.SoundFile.seekable(file):
        raise ValueError("this encoding does not tell its length")
    length, finite = 0, True
    while len(block := file.read(_BLOCK, dtype="float64", always_2d=True)):
        length += len(block)
        finite = finite and bool(np.isfinite(block).all())
    return length, finite


def read_audio(path: Path) -> Audio:
    """Read the whole of any file that libsndfile reads.

    Raises:
        InputError: As in :func:`open_audio`.
    """
    with open_audio(path) as file:
        return Audio(file.read(0, file.length), file.rate, file.subtype, file.format)


def open_matching(path: Path, other: Recording) -> AudioFile:
    """Open a recording that is to be compared with another, sample by sample.

    Raises:
        InputError: It cannot be read, or has another rate, length or number of channels.
    """
    file = open_audio(path)
    if (file.rate, file.channels, file.length) != (other.rate, other.channels, other.length):
        file.close()
        raise InputError(
            f"{path}: has {_shape(file)}, the recording to compare it with {_shape(other)}; they must match"
        )
    return file


def _check_range(recording: Recording, start: int, stop: int) -> None:
    if not 0 <= start <= stop <= recording.length:
        raise ValueError(f"no samples {start} to {stop} in a recording of {recording.length}")


def _shape(recording: Recording) -> str:
    return f"{_channels(recording.channels)} of {recording.length} samples at {recording.rate} Hz"


def _channels(number: int) -> str:
    return "1 channel" if number == 1 else f"{number} channels"


def _is_cut_off(log: str) -> bool:
    """Whether libsndfile logged that a file ends before the data that it announces (it then reads what is there).

    Programs that write to a pipe cannot know the length and announce the largest one; that is no damage.
    """
    sizes = [(int(there), int(announced)) for announced, there in _DATA_SIZE.findall(log)]
    frames = [(int(there), int(announced)) for there, announced in _DS64_FRAMES.findall(log)]
    return (
        any(there < announced < _UNKNOWN_LENGTH for there, announced in sizes)
        or any(there < announced for there, announced in frames)
        or _ENDS_EARLY.search(log) is not None
    )


def _has_last_page(path: Path) -> bool:
    """Whether an Ogg file ends with the whole page that is marked as its last (RFC 3533, section 6)."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _OGG_TAIL))
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or not page[5] & 4:
        return False
    sizes = page[27 : 27 + page[26]]
    return len(sizes) == page[26] and len(page) >= 27 + len(sizes) + sum(sizes)


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
    candidates = [source.subtype] if name == source.format or source.subtype.startswith(_PORTABLE_SUBTYPES) else []
    if source.subtype in _FINER_THAN_16_BITS:
        candidates.append("PCM_24")  # for the others this would only be larger
    candidates.append(soundfile.default_subtype(name))
    if extension == "OPUS":
        candidates = ["OPUS"]
    for subtype in candidates:
        if subtype and soundfile.check_format(name, subtype) and _holds(name, subtype, source):
            return name, subtype
    raise SettingsError(
        f"{path}: libsndfile cannot write {_channels(source.channels)} at {source.rate} Hz as {name}; "
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


def encode(audio: Audio) -> bytes:
    """The bytes of an audio file, in the recording's own format and subtype.

    Raises:
        OutputError: libsndfile refuses the combination of format, rate and channels.
    """
    buffer = io.BytesIO()
    write_audio(
        buffer,
        [audio.samples],
        rate=audio.rate,
        channels=audio.channels,
        subtype=audio.subtype,
        container=audio.format,
    )
    return buffer.getvalue()


def write_audio(
    stream: BinaryIO, blocks: Iterable[Samples], *, rate: int, channels: int, subtype: str, container: str
) -> None:
    """Write an audio file of the blocks ``[C, n]``, which may differ in length, into an empty stream.

    ``stream`` can seek and, for containers with a chunk of peaks, read.

    Raises:
        OutputError: libsndfile refuses the combination of format, rate and channels.
        OSError: The stream refuses, because the disk is full for one.
    """
    sink = _Sink(stream)

    # Around calls of libsndfile alone: what the blocks raise where they are made is none of its business.
    @contextlib.contextmanager
    def errors() -> Iterator[None]:
        try:
            yield
        except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
            if not sink.error:
                raise OutputError(
                    f"libsndfile cannot write {_channels(channels)} at {rate} Hz as {container}/{subtype}; "
                    "choose another extension"
                ) from error
        if sink.error:
            raise sink.error

    with errors():
        file = soundfile.SoundFile(sink, "w", rate, channels, subtype=subtype, format=container)
    with file:
        for block in _regroup(blocks):
            with errors():
                file.write(block.T)
        with errors():
            file.close()

    if subtype not in ("FLOAT", "DOUBLE"):
        return
    # The chunk of peaks holds the time of writing, and the same samples would make another file every second.
    stream.seek(0)
    peak = stream.read(_HEADER).find(b"PEAK")
    if peak >= 0:
        stream.seek(peak + 12)
        stream.write(bytes(4))


def _regroup(blocks: Iterable[Samples]) -> Iterator[Samples]:
    """The same samples in blocks ``[C, _BLOCK]`` and a rest: the Vorbis encoder's choices depend on the division."""
    held: list[Samples] = []
    missing = _BLOCK
    for block in blocks:
        start = 0
        while block.shape[1] - start >= missing:
            yield np.concatenate([*held, block[:, start : start + missing]], axis=1)
            start, held, missing = start + missing, [], _BLOCK
        held.append(block[:, start:].copy())  # for a generator may reuse its block
        missing -= block.shape[1] - start
    if missing < _BLOCK:
        yield np.concatenate(held, axis=1)


class _Sink:
    """Where libsndfile writes: a stream until it first fails, nowhere after that.

    Its callbacks from C cannot raise: they print the exception, of Ctrl-C too, and go on. Here it is kept, in
    ``error``, and libsndfile told that all is well, for what it would make of a failure differs between containers.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.error: BaseException | None = None
        self._stream = stream

    def write(self, data: bytes) -> int:
        if not self.error:
            with self._kept_error():
                self._stream.write(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> None:
        if not self.error:
            with self._kept_error():
                self._stream.seek(offset, whence)

    def tell(self) -> int:
        if not self.error:
            with self._kept_error():
                return self._stream.tell()
        return 0

    @contextlib.contextmanager
    def _kept_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.error = error


def resample(samples: Samples, rate: int, new_rate: int) -> Samples:
    """Resample ``[C, N]`` from ``rate`` to ``new_rate`` Hz, giving ``ceil(N * new_rate / rate)`` samples.

    Raises:
        SettingsError: The two rates have so little in common that the filter would not fit in memory.
    """
    if rate == new_rate:
        return samples
    divisor = math.gcd(rate, new_rate)
    if (new_rate // divisor) * (rate // divisor + 2 * _RESAMPLER_WIDTH) > _MAX_RESAMPLER_COEFFICIENTS:
        raise SettingsError(f"cannot resample {rate} to {new_rate} Hz; choose rates with a larger common divisor")
    import torch  # deferred: reading and checking files must not wait for it
    from torchaudio.functional import resample as polyphase

    resampled = polyphase(
        torch.from_numpy(samples),
        rate,
        new_rate,
        lowpass_filter_width=_RESAMPLER_WIDTH,
        rolloff=0.9475937167399596,
        resampling_method="sinc_interp_kaiser",
        beta=14.769656459379492,
    )
    return np.asarray(resampled.numpy(), dtype=np.float64)
