"""Audio files, read in blocks so that long ones take no more memory than short ones."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections import deque
from pathlib import Path

import numpy as np
import soundfile

from dapcli.audio.recording import BLOCK, PORTABLE_SUBTYPES, Audio, Recording, Samples, check_range, shape_in_words
from dapcli.errors import InputError
from dapcli.settings import MAX_RATE, MIN_RATE

# How libsndfile logs the size of a data chunk that does not match its file: WAV, AIFF, AU, W64 and SVX; RF64.
_DATA_SIZE = re.compile(r"^\s*(?:data|SSND|Data Size|riff|BODY)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
_DS64_FRAMES = re.compile(r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
# How it logs that a VOC or MAT4 file ends too early.
_ENDS_EARLY = re.compile(r"[Ss]eems to be (?:a )?truncated")
_UNKNOWN_LENGTH = 0x7FFF_0000
# The number of frames that libsndfile gives for a FLAC file out of a pipe, which does not tell its own.
_UNKNOWN_FRAMES = 0x7FFF_FFFF_FFFF_FFFF
# Blocks that a file keeps after reading them: the next reading begins a little before the end of the last.
_RECENT_BLOCKS = 4
# The last page of an Ogg file lies within so many bytes: a page has 65,307 at the most, and tags may follow.
_OGG_TAIL = 100_000


class AudioFile(contextlib.AbstractContextManager["AudioFile"]):
    """An open audio file, of which a few blocks are in memory. Close it, or use it in a ``with`` statement.

    It is a :class:`Recording`, not for use by several threads at once. ``decoder`` has counted ``length`` samples per
    channel and stands at their end. ``notes`` are lines for people, with the path, about what is wrong in the file.
    """

    def __init__(self, path: Path, decoder: _Decoder, length: int, notes: tuple[str, ...] = ()) -> None:
        self.rate = int(decoder.samplerate)
        self.subtype = str(decoder.subtype)
        self.format = str(decoder.format)
        self.channels = int(decoder.channels)
        self.length = length
        self.notes = notes
        self._path = path
        self._decoder = decoder
        # Where the decoder stands, in blocks, and the blocks right before.
        self._position = -(-length // BLOCK)
        self._recent: deque[Samples] = deque(maxlen=_RECENT_BLOCKS)
        # The first thousand samples after a seek in Vorbis, Opus, MP3 or ALAC are not always those of a whole read
        # (libsndfile 1.2.2). After one in FLAC, whose subtypes are portable too, and in plain samples they are.
        self._seeks = self.subtype.startswith(PORTABLE_SUBTYPES) and decoder.frames == length

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
        check_range(self, start, stop)
        if self._decoder.closed:
            raise ValueError(f"{self._path}: is closed")
        samples = np.empty((self.channels, stop - start))
        try:
            for index in range(start // BLOCK, -(-stop // BLOCK)):
                offset = index * BLOCK
                first, last = max(start, offset), min(stop, offset + BLOCK)
                samples[:, first - start : last - start] = self._block(index)[:, first - offset : last - offset]
        except (soundfile.LibsndfileError, EOFError) as error:
            raise InputError(f"{self._path}: changed while it was in use; leave it alone until all is done") from error
        return samples

    def _block(self, index: int) -> Samples:
        """Samples ``[C, BLOCK]`` from ``index * BLOCK`` on; fewer at the end."""
        if not self._position - len(self._recent) <= index <= self._position:
            self._recent.clear()
            if self._seeks:
                self._decoder.seek(index * BLOCK)
                self._position = index
            elif index < self._position:
                self._decoder.close()
                self._decoder = _Decoder(self._path)
                self._position = 0
        while self._position <= index:
            block = self._decoder.read(BLOCK, dtype="float64", always_2d=True).T
            if block.shape[1] < min(BLOCK, self.length - self._position * BLOCK):
                raise EOFError
            self._recent.append(block)
            self._position += 1
        return self._recent[index - self._position]


class _Decoder(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read forwards: SoundFile itself seeks to the end of each reading, which is not always exact."""

    def __init__(self, path: Path) -> None:
        # As bytes, for names of files need not be UTF-8; Windows has no such names.
        super().__init__(path if os.name == "nt" else os.fsencode(path))

    def seekable(self) -> bool:
        return False


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
            file = stack.enter_context(_Decoder(path))
            truncated = _is_cut_off(file.extra_info) or (file.format == "OGG" and not _has_last_page(path))
            if not soundfile.SoundFile.seekable(file):
                raise ValueError("this encoding does not tell its length")  # noqa: TRY301
            length, finite = 0, True
            while len(block := file.read(BLOCK, dtype="float64", always_2d=True)):
                length += len(block)
                finite = finite and bool(np.isfinite(block).all())
        except (RuntimeError, TypeError, ValueError) as error:  # libsndfile's are RuntimeErrors; the others: RAW, XI
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
            f"{path}: has {shape_in_words(file)}, the recording to compare it with "
            f"{shape_in_words(other)}; they must match"
        )
    return file


def _is_cut_off(log: str) -> bool:
    """Whether libsndfile logged that a file ends before the data that it announces (it then reads what is there).

    Programs that write to a pipe cannot know the length and announce the largest one; that is no degradation.
    """
    return (
        any(int(there) < int(announced) < _UNKNOWN_LENGTH for announced, there in _DATA_SIZE.findall(log))
        or any(int(there) < int(announced) for there, announced in _DS64_FRAMES.findall(log))
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
    sizes = page[27 : 27 + page[26]]  # of the segments; cut off itself, the page is too short for them too
    return len(page) >= 27 + page[26] + sum(sizes)
