"""Gaps out of a file: a table, labels, or audio."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from dapcli.audio import Recording, open_audio
from dapcli.audio.recording import PORTABLE_SUBTYPES, blocks, shape_in_words
from dapcli.errors import InputError
from dapcli.signal.gaps import Gaps, Interval, checked_gaps, find_stretches
from dapcli.signal.gaps_given import check_inside, make_gaps, to_samples

# How a column's name begins. "nan" is a number, and 0,5 and O.5 are meant to be one.
_NAME = re.compile(r"(?!(?:nan|inf|infinity)$)[^\W\d]", re.IGNORECASE)
_TEXT = (".csv", ".tsv", ".txt")


def read_mask(path: Path, recording: Recording) -> tuple[Gaps, list[str]]:
    """Gaps of a recording out of a file, and notes.

    ``.csv``, ``.tsv`` and ``.txt`` hold a gap of all channels per line, start and end in seconds, with commas or tabs
    between them: tables, and the labels that Audacity exports. Lines that are blank or begin with ``#``, a header,
    further columns, and Audacity's lines of frequencies, which begin with a backslash, are ignored. Any other file is
    audio that is zero where samples are missing: with the recording's rate and length, and one channel for all or as
    many as the recording.

    Raises:
        InputError: The file cannot be read or does not go with the recording, or nothing of a channel is left.
    """
    if path.suffix.lower() in _TEXT:
        return make_gaps(_read_lines(path, recording), recording, f"{path}: ")
    return _read_audio_mask(path, recording), []


def _read_lines(path: Path, recording: Recording) -> Iterator[Interval]:
    """Interval of every line of a table or of labels."""
    first = True
    for number, line in enumerate(_decode(path).split("\n"), 1):
        if not line.strip() or line.startswith(("#", "\\")):
            continue
        separator = "\t" if "\t" in line else ","
        fields = [field.strip().strip('"') for field in line.split(separator)]
        is_header = first and len(fields) > 1 and all(_NAME.match(field) for field in fields[:2])
        first = False
        if is_header:
            continue
        source = f"{path}, line {number}: "
        if separator == "," and len(fields) > 2 and all(field.isdigit() for field in fields[:3]):
            # 0,5,0,56 may be 0.5 to 0.56 or 0 to 5 s. Gaps of whole seconds are rare, and replacing sound does harm.
            raise InputError(f"{source}looks like decimal commas; write decimal points, and START,END alone")
        try:
            start, stop = (float(field) for field in fields[:2])
        except ValueError:
            raise InputError(
                f"{source}{line[:40]!r} is no gap; write START,END in seconds with decimal points, such as 0.50,0.56"
            ) from None
        try:
            interval = to_samples(start, stop, recording.rate)
        except ValueError as error:
            raise InputError(f"{source}{error}") from None
        check_inside(interval, recording, source)
        yield interval


def _decode(path: Path) -> str:
    """A text file with any line ends as one string. What is not UTF-8 can only be in what people wrote beside times."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    # Spreadsheets write byte-order marks, and some of them UTF-16.
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16" if utf16 else "utf-8-sig", errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_audio_mask(path: Path, recording: Recording) -> Gaps:
    with open_audio(path) as mask:
        fits = (mask.rate, mask.length) == (recording.rate, recording.length)
        if not fits or mask.channels not in (1, recording.channels):
            raise InputError(
                f"{path}: has {shape_in_words(mask)}, the recording {shape_in_words(recording)}; "
                "a mask has the same rate and length, and one channel or as many"
            )
        if not mask.subtype.startswith(PORTABLE_SUBTYPES):
            raise InputError(f"{path}: {mask.subtype} may not keep zeros; save the mask as WAV or FLAC")
        channels = find_stretches((block == 0 for block in blocks(mask)), mask.channels, 1)
    return checked_gaps(channels * (recording.channels // mask.channels), recording, f"{path}: ")
