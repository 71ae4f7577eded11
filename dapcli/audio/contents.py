"""How a file keeps its samples, and what libsndfile is to see in place of it: the file's bytes with another header."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

#: A part of what is read: bytes, or those of the file in this range.
Piece = bytes | range

# About 2 or 4 GB, and all bits of 8 bytes.
_UNKNOWN_SIZES = (range(0x7FFF_0000, 0x8000_0001), range(0xFFFF_0000, 0x1_0000_0000), range(2**62, 2**64))


class Pieces(io.BufferedIOBase):
    """Pieces of a file, or all of it, one behind the other; it can be read, and seek."""

    def __init__(self, path: Path, pieces: Sequence[Piece] = ()) -> None:
        self._file = path.open("rb")
        self._pieces = pieces or (range(path.stat().st_size),)
        self._starts = list(accumulate(map(len, self._pieces), initial=0))
        self._position = 0
        self.size = self._starts[-1]

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position, also beyond the end."""
        self._position = max(0, offset + (0, self._position, self.size)[whence])
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes, all that there are of so many; libsndfile does not ask again for the rest."""
        parts, left = [], self.size if size is None or size < 0 else size
        while left > 0 and self._position < self.size:
            index = bisect_right(self._starts, self._position) - 1
            piece = self._pieces[index][self._position - self._starts[index] :][:left]
            if isinstance(piece, range):
                self._file.seek(piece.start)
                piece = self._file.read(len(piece))
                if not piece:
                    break  # the file has shrunk
            parts.append(piece)
            left -= len(piece)
            self._position += len(piece)
        return b"".join(parts)

    def at(self, offset: int, count: int) -> bytes:
        """``count`` bytes from ``offset`` on, fewer at the end."""
        self.seek(offset)
        return self.read(count)

    def close(self) -> None:
        """Close the file, too."""
        self._file.close()
        super().close()


@dataclass
class Contents:
    """How a file keeps its samples.

    ``pieces`` is what libsndfile is to read, nothing where that is the file itself. ``announced`` and ``present`` are
    bytes of samples, and ``frames`` the number of samples per channel, as far as the header tells them; ``cut`` is true
    where the end is missing and nobody knows how much. ``unit`` are the bytes of a frame, or of the ``block`` samples
    per channel that are encoded together; ``limit`` is the number of all, where libsndfile would read more. ``bits`` of
    a sample count, where it takes more; ``patch`` is what is to be in its description instead, and where. ``checked``
    means that libsndfile need not be asked about sizes, ``is_noisy`` that it prints what it finds wrong in MP3 and SDS.
    """

    pieces: tuple[Piece, ...] = ()
    announced: int = 0
    present: int = 0
    frames: int | None = None
    cut: bool = False
    unit: int = 1
    block: int = 1
    limit: int | None = None
    bits: int | None = None
    patch: tuple[int, bytes] | None = None
    checked: bool = False
    is_noisy: bool = False
    notes: tuple[str, ...] = ()
    refusal: str = ""


def is_unknown(size: int) -> bool:
    """Whether a size is one that programs announce which write to a pipe and cannot know it."""
    return any(size in sizes for sizes in _UNKNOWN_SIZES)


def patched(patches: Mapping[int, bytes], stop: int, done: int = 0) -> tuple[Piece, ...]:
    """The bytes from ``done`` to ``stop`` with others from some positions on."""
    pieces: list[Piece] = []
    for position, new in sorted(patches.items()):
        pieces += [range(done, position), new]
        done = position + len(new)
    return (*pieces, range(done, stop))


def note_more(announced: int, available: int) -> str:
    """The note on samples that no header announces, both in bytes."""
    return f"its header announces {announced} bytes of samples, it holds {available}; all are read"
