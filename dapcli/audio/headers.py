"""The headers of files, read before libsndfile reads them.

There may be tags in front, sizes that are wrong, or samples in more bytes than they need. libsndfile believes a header
where it should not, and stops where people would go on.
"""

from __future__ import annotations

import struct
from pathlib import Path

from dapcli.audio import chunk_headers, mpeg
from dapcli.audio.chunks import layout_of
from dapcli.audio.contents import Contents, Pieces, is_unknown, note_more, patched

# Bytes of a sample in an AU file, by its encoding.
_AU_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
# The longest header of a page of Ogg, and the bytes in which the next page is looked for.
_OGG_HEADER, _SEARCHED = 27 + 255, 1 << 20


def inspect(path: Path) -> Contents:
    """What the header of a file tells of its samples; raises ``OSError`` if it cannot be read."""
    with Pieces(path) as file:
        start, stop = without_tags(file)
    with Pieces(path, [range(start, stop)]) as body:
        contents = _inspect(body)
    # Ranges of the body are ranges of the file from the end of its tags on; libsndfile's decoder of MP3 knows tags.
    pieces = contents.pieces or (range(0 if contents.is_noisy else stop - start),)
    moved = (range(p.start + start, p.stop + start) if isinstance(p, range) else p for p in pieces if p)
    contents.pieces = tuple(moved)
    if contents.pieces == (range(file.size),):
        contents.pieces = ()
    return contents


def _inspect(body: Pieces) -> Contents:
    magic = body.at(0, 16)
    if layout := layout_of(body):
        return chunk_headers.inspect(body, layout)
    if magic.startswith((b".snd", b"dns.")):
        return _inspect_au(body, ">" if magic.startswith(b".") else "<")
    if magic.startswith(b"fLaC"):
        return Contents(block=int.from_bytes(magic[10:12], "big"))
    if magic.startswith(b"OggS"):
        return _inspect_ogg(body)
    if magic.startswith(b"\xf0\x7e"):  # SDS
        return Contents(is_noisy=True)
    return mpeg.inspect(body)


def without_tags(file: Pieces) -> tuple[int, int]:
    """Where a file begins and ends without ID3 and APE tags around it."""
    start, stop = 0, file.size
    while (header := file.at(start, 10))[:3] == b"ID3" and len(header) == 10:
        size = sum((byte & 0x7F) << shift for byte, shift in zip(header[6:], (21, 14, 7, 0), strict=True))
        start += 10 + size + (10 if header[5] & 0x10 else 0)
    if start >= file.size:
        return 0, file.size
    for _ in range(2):  # either may be the last
        if stop - start > 128 and file.at(stop - 128, 3) == b"TAG":
            stop -= 128
        footer = file.at(max(start, stop - 32), 32)
        if footer[:8] == b"APETAGEX" and len(footer) == 32:
            size, _, flags = struct.unpack_from("<III", footer, 12)
            stop = max(start + 1, stop - size - (32 if flags & 0x8000_0000 else 0))
    return start, stop


def _inspect_au(body: Pieces, order: str) -> Contents:
    start, announced, encoding, _, channels = struct.unpack(f"{order}IIIII", body.at(4, 20).ljust(20, b"\0"))
    unit = max(1, _AU_WIDTHS.get(encoding, 1) * channels)
    available = max(0, body.size - start)
    present = available - available % unit
    if present <= announced < available or is_unknown(announced):
        return Contents(checked=True)
    notes = (note_more(announced, available),) if announced < available else ()
    pieces = patched({8: b"\xff" * 4}, start + present)
    return Contents(pieces, present if notes else announced, present, checked=True, notes=notes)


def _inspect_ogg(body: Pieces) -> Contents:
    """Whether an Ogg file has one stream, and ends with the page that is marked as its last (RFC 3533, section 6)."""
    position, flags, has_begun = 0, 0, False
    while len(header := body.at(position, _OGG_HEADER)) > 5:
        if not header.startswith(b"OggS\0"):
            skipped = body.at(position, _SEARCHED).find(b"OggS\0", 1)
            if skipped < 0:
                break  # tags, for one
            position += skipped
            continue
        flags = header[5]
        if flags & 2 and has_begun:
            return Contents(refusal="holds several recordings one after the other, of which libsndfile reads the first")
        has_begun = has_begun or not flags & 2
        segments = header[26] if len(header) > 26 else 0
        position += 27 + segments + sum(header[27 : 27 + segments])
        if position > body.size:
            break
    if position > body.size and not flags & 4:
        return Contents(cut=True)
    if position > body.size or not flags & 4:
        return Contents(notes=("its last page is missing, and with it the end of the sound",))
    return Contents()
