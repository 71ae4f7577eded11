"""Chunks: the parts that WAV, RF64, W64, AIFF and CAF files consist of."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True)
class Layout:
    """How a family of containers lays out its chunks: a name, a size in ``struct``'s ``size`` format, and the content.

    The first chunk begins at ``first``. ``whole`` is where the file's own size stands, ``outside`` the bytes that this
    does not count; RF64 has it in a chunk. A size counts the chunk's own header where ``inclusive``; the next chunk
    begins at a multiple of ``alignment``.
    """

    first: int
    name: int = 4
    size: str = "<I"
    whole: int | None = 4
    outside: int = 8
    inclusive: bool = False
    alignment: int = 2

    @property
    def header(self) -> int:
        """Bytes before the content of a chunk."""
        return self.name + struct.calcsize(self.size)


@dataclass(frozen=True)
class Chunk:
    """A chunk of a file: its name, where its content begins, and how many bytes that has."""

    name: bytes
    start: int
    size: int


# What a name may be; in W64 the rest of an identifier of 16 bytes follows.
_NAME = re.compile(rb"[A-Za-z0-9 _()]{4}(?:[\x00-\xff]{12})?")
#: The layouts by the first four bytes of a file.
LAYOUTS = {
    b"RIFF": Layout(12),
    b"RIFX": Layout(12, size=">I"),
    b"RF64": Layout(12, whole=None),
    b"BW64": Layout(12, whole=None),
    b"FORM": Layout(12, size=">I"),
    b"riff": Layout(40, name=16, size="<Q", whole=16, outside=0, inclusive=True, alignment=8),
    b"caff": Layout(8, size=">q", whole=None, alignment=1),
}


def layout_of(stream: BinaryIO) -> Layout | None:
    """The layout of a file, by its first bytes; None where it has no chunks that are known here."""
    stream.seek(0)
    return LAYOUTS.get(stream.read(4))


def chunks(stream: BinaryIO, position: int | None = None) -> Iterator[Chunk]:
    """All chunks of a file in their order, as far as it has any; the last may be cut off.

    They begin at the first, or at a position behind the samples.
    """
    layout = layout_of(stream)
    end = stream.seek(0, 2)
    long_data = 0
    if layout is not None and position is None:
        position = layout.first
    while layout is not None and position is not None and position + layout.header <= end:
        stream.seek(position)
        header = stream.read(layout.header)
        name, start = header[: layout.name], position + layout.header
        if not _NAME.fullmatch(name):
            return
        (size,) = struct.unpack(layout.size, header[layout.name :])
        if layout.inclusive:
            size -= layout.header
        elif name == b"data" and size == 0xFFFF_FFFF and layout.whole is None:
            size = long_data
        if size < 0:  # to the end, in CAF
            size = end - start
        if name == b"ds64":
            long_data = int.from_bytes(stream.read(16)[8:], "little")
        yield Chunk(name, start, size)
        position = start + size + -size % layout.alignment
        for place in (position, start + size):  # some programs leave the padding out
            stream.seek(place)
            if _NAME.fullmatch(stream.read(layout.name)):
                position = place
                break


def append(stream: BinaryIO, added: Iterable[tuple[bytes, bytes]]) -> None:
    """Append chunks, by name and content, to a file that has some."""
    layout = layout_of(stream)
    assert layout
    *_, last = chunks(stream)
    stream.seek(last.start + last.size)  # there may be padding where there should be none
    stream.write(bytes(-stream.tell() % layout.alignment))
    for name, content in added:
        size = len(content) + layout.inclusive * layout.header
        stream.write(name + struct.pack(layout.size, size) + content + bytes(-len(content) % layout.alignment))
    size = stream.tell() - layout.outside
    if layout.whole is not None:
        stream.seek(layout.whole)
        stream.write(struct.pack(layout.size, size))
    elif (sizes := next(chunks(stream))).name == b"ds64":
        stream.seek(sizes.start)
        stream.write(struct.pack("<Q", size))
