"""Audio files, read in blocks so that long ones take no more memory than short ones."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import stat
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from dapcli.audio.contents import Contents, Pieces
from dapcli.audio.foreign import convert_line, describe_foreign
from dapcli.audio.headers import inspect
from dapcli.audio.recording import BLOCK, PORTABLE_SUBTYPES, Audio, Recording, Samples, check_range, shape_in_words
from dapcli.errors import InputError
from dapcli.settings import MAX_RATE, MIN_RATE

# How libsndfile logs that a VOC or MAT4 file ends too early; of others headers.py knows better.
_ENDS_EARLY = re.compile(r"[Ss]eems to be (?:a )?truncated")
# The number of frames that libsndfile gives for a FLAC file out of a pipe, which does not tell its own.
_UNKNOWN_FRAMES = 0x7FFF_FFFF_FFFF_FFFF
# Blocks that a file keeps after reading them: the next reading begins a little before the end of the last.
_RECENT_BLOCKS = 4
# A file that lacks no more than this of its end is restored: so many seconds, and this share of it. So is one that
# lacks a single block of its encoding.
_UNNOTICED_SECONDS, _UNNOTICED_SHARE = 0.1, 0.05
# Samples of all channels that are read at once where nobody knows yet whether there are any.
_PROBED = 1 << 20


class AudioFile(contextlib.AbstractContextManager["AudioFile"]):
    """An open audio file, of which a few blocks are in memory. Close it, or use it in a ``with`` statement.

    It is a :class:`Recording`, not for use by several threads at once. ``decoder`` has counted ``length`` samples per
    channel and stands at their end. ``notes`` are lines for people, with the path, about what is wrong in the file.
    """

    def __init__(self, decoder: _Decoder, length: int, notes: tuple[str, ...] = ()) -> None:
        self.rate = int(decoder.samplerate)
        self.subtype = decoder.alignment.subtype if decoder.alignment else str(decoder.subtype)
        self.format = str(decoder.format)
        self.channels = int(decoder.channels)
        self.length, self.notes = length, notes
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
        Raises ``ValueError`` if there are none such or the file is closed, ``InputError`` if it can no longer be read.
        """
        check_range(self, start, stop)
        if self._decoder.closed:
            raise ValueError(f"{self._decoder.path}: is closed")
        samples = np.empty((self.channels, stop - start))
        try:
            for index in range(start // BLOCK, -(-stop // BLOCK)):
                offset = index * BLOCK
                first, last = max(start, offset), min(stop, offset + BLOCK)
                samples[:, first - start : last - start] = self._block(index)[:, first - offset : last - offset]
        except (soundfile.LibsndfileError, EOFError, OSError) as error:
            advice = "changed while it was in use; leave it alone until all is done"
            raise InputError(f"{self._decoder.path}: {advice}") from error
        return samples

    def _block(self, index: int) -> Samples:
        """Samples ``[C, BLOCK]`` from ``index * BLOCK`` on; fewer at the end."""
        if not self._position - len(self._recent) <= index <= self._position:
            self._recent.clear()
            try:
                if self._seeks:
                    with self._decoder.silenced():
                        self._decoder.seek(index * BLOCK)
                    self._position = index
            except soundfile.LibsndfileError:  # behind FLAC that more was joined to
                self._position = index + 1
            if index < self._position:
                self._decoder.close()
                self._decoder = _Decoder(self._decoder.path, self._decoder.contents, self._decoder.alignment)
                self._position = 0
        while self._position <= index:
            wanted = min(BLOCK, self.length - self._position * BLOCK)
            block, _ = self._decoder.next_block(wanted)
            if len(block) < wanted:
                raise EOFError
            self._recent.append(block.T)
            self._position += 1
        return self._recent[index - self._position]


class _Decoder(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read forwards: SoundFile itself seeks to the end of each reading, which is not always exact."""

    def __init__(self, path: Path, contents: Contents, alignment: Alignment | None = None) -> None:
        self.path, self.contents, self.alignment = path, contents, alignment
        self.view = Pieces(path, contents.pieces) if contents.pieces else None
        # As bytes, for names of files need not be UTF-8; Windows has no such names.
        name = path if os.name == "nt" else os.fsencode(path)
        with self.silenced():
            super().__init__(self.view or name)

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        super().close()
        if self.view:
            self.view.close()

    @contextlib.contextmanager
    def silenced(self) -> Iterator[None]:
        """Keep off the terminal what libsndfile prints from C about damaged MP3 and SDS."""
        with contextlib.ExitStack() as stack:
            if self.contents.is_noisy:
                nowhere = stack.enter_context(Path(os.devnull).open("wb"))
                for number in (1, 2):
                    with contextlib.suppress(OSError):  # it is closed
                        saved = os.dup(number)
                        stack.callback(os.close, saved)
                        stack.callback(os.dup2, saved, number)
                        os.dup2(nowhere.fileno(), number)
                if os.name != "nt":
                    stack.callback(ctypes.CDLL(None).fflush, None)  # what C still holds
            yield

    def next_block(self, count: int) -> tuple[Samples, str]:
        """The next samples ``[n, C]`` that can be decoded, ``count`` at the most, and what stopped their decoding."""
        block, reason = np.full((count, self.channels), np.nan), ""
        try:
            with self.silenced():
                block = block[: len(self.read(out=block))]
        except soundfile.LibsndfileError as error:
            # What was decoded before the error is there, and finite for integers and for what was encoded.
            decoded = np.isfinite(block).all(axis=1)
            block, reason = block[: count if decoded.all() else int(decoded.argmin())], error.error_string
        return self.alignment.aligned(block) if self.alignment else block, reason


class Alignment:
    """Where the ``bits`` of a sample that count lie in the integers that hold it; all samples ``[n, C]`` are looked at.

    By the standards they are the upper ones. Many programs use the lower ones, with or without extending the sign.
    """

    def __init__(self, subtype: str, bits: int) -> None:
        self.bits = bits
        self._taken = int(subtype.removeprefix("PCM_"))
        self._low = self._high = 0.0
        self._is_upper = True

    def look_at(self, samples: Samples) -> None:
        """Take note of samples as libsndfile reads them."""
        integers = samples * 2.0 ** (self._taken - 1)
        self._low, self._high = integers.min(initial=self._low), integers.max(initial=self._high)
        self._is_upper = self._is_upper and not np.fmod(integers, 2.0 ** (self._taken - self.bits)).any()

    @property
    def is_shifted(self) -> bool:
        """Whether the lower bits count, with or without a sign."""
        full = 2.0**self.bits
        lowest = 0 if self._low >= 0 else -full / 2
        return not self._is_upper and self._low >= lowest and self._high < lowest + full

    @property
    def subtype(self) -> str:
        """The subtype that holds the bits that count."""
        needed = self.bits if self._is_upper or self.is_shifted else self._taken
        return f"PCM_{max(16, -(-needed // 8) * 8)}"

    def aligned(self, samples: Samples) -> Samples:
        """The samples with full scale at 1."""
        if not self.is_shifted:
            return samples
        half = 2.0 ** (self.bits - 1)
        integers = samples * 2.0 ** (self._taken - 1)
        return (np.mod(integers + half, 2 * half) - half) / half

    def describe(self) -> str:
        """How the samples are stored, and how they were taken."""
        where = "from the lower bits" if self.is_shifted else "with the others, which are not empty"
        where = "from the upper bits" if self._is_upper else where
        return f"{self.bits} bits in {self._taken // 8} bytes, taken {where}"


def open_audio(path: str | Path, *, accept_truncated: bool = False) -> AudioFile:
    """Open any file that libsndfile reads, and check all of it.

    With ``accept_truncated`` a noticeable part of its end may be missing, or its samples damaged from somewhere on.

    Raises:
        InputError: The file is missing, not audio, truncated or empty, has samples that are not finite, or a rate
            that dap does not work at.
    """
    try:
        path = Path(path)
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{path}: is a folder; name one audio file")
        if not stat.S_ISREG(mode):
            raise InputError(f"{path}: is not a regular file; write what it delivers to a file first")
        contents = inspect(path)
    except TypeError as error:
        raise InputError(f"{path!r} is no path ({error})") from None
    except FileNotFoundError:
        hint = "; write what comes by a pipe to a file first, and name that" if str(path) == "-" else ""
        raise InputError(f"{path}: no such file{hint}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if contents.refusal:
        raise InputError(f"{path}: {contents.refusal}; convert it first: {convert_line(path)}")
    with contextlib.ExitStack() as stack:
        file, reason = None, "it has no header"
        try:
            file = stack.enter_context(_Decoder(path, contents))
        except (RuntimeError, TypeError, ValueError) as error:  # libsndfile's are RuntimeErrors; the others: RAW, XI
            reason = _brief(error)
        if file is None or file.format == "RAW":
            unknown = f"cannot be read as audio ({reason}); if other programs play it: {convert_line(path)}"
            raise InputError(f"{path}: {describe_foreign(path) or unknown}")
        alignment = Alignment(file.subtype, contents.bits) if contents.bits else None
        length, finite, reason = 0, True, ""
        limit = _UNKNOWN_FRAMES if contents.limit is None else contents.limit
        while not reason:
            block, reason = file.next_block(min(BLOCK, max(1, _PROBED // file.channels), limit - length))
            if not len(block):
                break
            length += len(block)
            finite = finite and bool(np.isfinite(block).all())
            if alignment:
                alignment.look_at(block)
        file.alignment = alignment
        notes = [*contents.notes, *([alignment.describe()] if alignment else [])]
        notes += _missing(path, file, contents, length, reason, accept=accept_truncated)
        if length == 0:
            raise InputError(f"{path}: holds no samples")
        if not finite:
            raise InputError(f"{path}: holds samples that are NaN or infinite; repair it first")
        if not MIN_RATE <= file.samplerate <= MAX_RATE:
            advice = "resample it first: at twice the highest frequency in it, or more, nothing is lost"
            raise InputError(f"{path}: has a rate of {file.samplerate} Hz, outside {MIN_RATE} to {MAX_RATE}; {advice}")
        stack.pop_all()
    return AudioFile(file, length, tuple(f"{path}: {note}" for note in notes))


def _missing(path: Path, file: _Decoder, contents: Contents, length: int, reason: str, *, accept: bool) -> list[str]:
    """Notes on what a file lacks; raises ``InputError`` if it may be noticed or nobody knows, and is not accepted."""
    missing = 0
    if contents.frames is not None:
        missing = contents.frames - length
    elif contents.announced > contents.present:
        missing = round(length * (contents.announced / contents.present - 1)) if contents.present else 1
    if contents.limit is None and file.frames != _UNKNOWN_FRAMES:
        missing = max(missing, file.frames - length)
    unknown = contents.cut or (bool(reason) and file.frames == _UNKNOWN_FRAMES)
    unknown = unknown or (not contents.checked and _ENDS_EARLY.search(file.extra_info) is not None)
    if missing <= 0 and not unknown:
        return []
    if not length:
        raise InputError(f"{path}: is truncated: none of its samples is there")
    lost = f"the last {missing} of {length + missing} samples are missing" if missing > 0 else "its end is missing"
    if reason:
        lost += f" or damaged ({_brief(reason)})"
    tolerated = max(contents.block, min(_UNNOTICED_SECONDS * file.samplerate, _UNNOTICED_SHARE * (length + missing)))
    if (unknown or missing > tolerated) and not accept:
        raise InputError(f"{path}: is truncated: {lost}; add --accept-truncated to restore the {length} that are there")
    return [f"is truncated: {lost}"]


def _brief(error: object) -> str:
    """The last part of what libsndfile says."""
    return str(error).split(":")[-1].strip().rstrip(".")


def read_audio(path: str | Path, *, accept_truncated: bool = False) -> Audio:
    """Read the whole of any file that libsndfile reads; raises ``InputError`` as :func:`open_audio` does."""
    with open_audio(path, accept_truncated=accept_truncated) as file:
        return Audio(file.read(0, file.length), file.rate, file.subtype, file.format)


def open_matching(path: str | Path, other: Recording, *, accept_truncated: bool = False) -> AudioFile:
    """Open a recording to compare with another; raises ``InputError`` also where rate, length or channels differ."""
    file = open_audio(path, accept_truncated=accept_truncated)
    if (file.rate, file.channels, file.length) != (other.rate, other.channels, other.length):
        file.close()
        longer = (file.rate, file.channels) == (other.rate, other.channels)
        raise InputError(
            f"{path}: has {shape_in_words(file)}, the recording to compare it with "
            f"{shape_in_words(other)}; they must match{': cut or pad the end of one' * longer}"
        )
    return file
