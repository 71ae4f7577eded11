"""Chunks: the parts that WAV, RF64, W64, AIFF and CAF files consist of."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

#: What can be read, and seek.
Source = BinaryIO | io.BufferedIOBase
# What a name may be; in W64 the rest of an identifier of 16 bytes follows.
_NAME = re.compile(rb"[A-Za-z0-9 _()]{4}(?:[\x00-\xff]{12})?")


class Layout(NamedTuple):
    """How a family of containers lays out its chunks: a name, a size in ``struct``'s ``size`` format, and the content.

    The first chunk begins at ``first``, the next at a multiple of ``alignment``. ``whole`` is where the file's own size
    stands; RF64 has it in a chunk. ``counted`` are the bytes of a chunk's own header that its size counts, ``outside``
    those of the file that its size does not.
    """

    first: int
    size: str = "<I"
    whole: int | None = 4
    alignment: int = 2
    name: int = 4
    counted: int = 0
    outside: int = 8

    @property
    def header(self) -> int:
        """Bytes before the content of a chunk."""
        return self.name + struct.calcsize(self.size)


class Chunk(NamedTuple):
    """A chunk of a file: its name, where its content begins, and how many bytes that has."""

    name: bytes
    start: int
    size: int


#: The layouts by the first four bytes of a file.
LAYOUTS = {
    b"RIFF": Layout(12),
    b"RIFX": Layout(12, ">I"),
    b"RF64": Layout(12, whole=None),
    b"BW64": Layout(12, whole=None),
    b"FORM": Layout(12, ">I"),
    b"riff": Layout(40, "<Q", 16, 8, name=16, counted=24, outside=0),
    b"caff": Layout(8, ">q", None, 1),
}


def layout_of(stream: Source) -> Layout | None:
    """The layout of a file, by its first bytes; None where it has no chunks that are known here."""
    stream.seek(0)
    return LAYOUTS.get(stream.read(4))


def chunks(stream: Source, position: int | None = None, layout: Layout | None = None) -> Iterator[Chunk]:
    """The chunks of a file, or those from a position on, in their order; the last may be cut off."""
    layout = layout or layout_of(stream)
    if layout is None:
        return
    end, long_data = stream.seek(0, 2), None
    position = layout.first if position is None else position
    while position + layout.header <= end:
        stream.seek(position)
        header, start = stream.read(layout.header), position + layout.header
        name = header[: layout.name]
        if not _NAME.fullmatch(name):
            return
        size = struct.unpack(layout.size, header[layout.name :])[0] - layout.counted
        if name == b"data" and size == 0xFFFF_FFFF and long_data is not None:
            size = long_data
        elif size < 0:  # to the end, in CAF
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


def pack(kind: str, value: int) -> bytes:
    """A number in one of ``struct``'s formats, or the largest that it holds."""
    return struct.pack(kind, min(value, 2 ** (8 * struct.calcsize(kind) - kind[-1].islower()) - 1))


def append(stream: BinaryIO, added: Iterable[tuple[bytes, bytes]]) -> None:
    """Append chunks, by name and content, to a file that has some."""
    layout = layout_of(stream)
    assert layout
    *_, last = chunks(stream)
    stream.seek(last.start + last.size)  # there may be padding where there should be none
    stream.write(bytes(-stream.tell() % layout.alignment))
    for name, content in added:
        length = struct.pack(layout.size, len(content) + layout.counted)
        stream.write(name + length + content + bytes(-len(content) % layout.alignment))
    size = stream.tell() - layout.outside
    if layout.whole is not None:
        stream.seek(layout.whole)
        stream.write(struct.pack(layout.size, size))
    elif (sizes := next(chunks(stream))).name == b"ds64":
        stream.seek(sizes.start)
        stream.write(struct.pack("<Q", size))
