"""The headers of files, read before libsndfile reads them.

There may be tags in front, sizes that are wrong, or samples in more bytes than they need. libsndfile believes a header
where it should not, and stops where people would go on. What it is to see in place of a file is a :class:`View`: the
file's bytes with another header.
"""

from __future__ import annotations

import io
import re
import struct
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from dapcli.audio import mpeg
from dapcli.audio.chunks import Chunk, Layout, chunks, layout_of, pack
from dapcli.audio.recording import count_channels

#: A part of a view: bytes, or those of the file in this range.
Piece = bytes | range

# Sizes that programs announce when they write to a pipe and cannot know: about 2 or 4 GB, and all bits of 8 bytes.
_UNKNOWN_SIZES = (range(0x7FFF_0000, 0x8000_0001), range(0xFFFF_0000, 0x1_0000_0000), range(2**62, 2**64))
# Formats in WAV.
_PCM, _FLOAT, _EXTENSIBLE, _MPEG, _IN_BLOCKS = 1, 3, 0xFFFE, (0x50, 0x55), (0x02, 0x11, 0x31)
# Bytes of a sample in an AU file, by its encoding.
_AU_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
_AIFF_LINEAR = (b"NONE", bytes(4), b"TWOS", b"SOWT", b"FL32", b"FL64", b"IN24", b"IN32")
# The longest header of a page of Ogg.
_OGG_HEADER = 27 + 255


class View(io.BufferedIOBase):
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


def inspect(path: Path) -> Contents:
    """What the header of a file tells of its samples; raises ``OSError`` if it cannot be read."""
    with View(path) as file:
        start, stop = without_tags(file)
    with View(path, [range(start, stop)]) as body:
        contents = _inspect(body)
    # Ranges of the body are ranges of the file from the end of its tags on; libsndfile's decoder of MP3 knows tags.
    pieces = contents.pieces or (range(0 if contents.is_noisy else stop - start),)
    moved = (range(p.start + start, p.stop + start) if isinstance(p, range) else p for p in pieces if p)
    contents.pieces = tuple(moved)
    if contents.pieces == (range(file.size),):
        contents.pieces = ()
    return contents


def _inspect(body: View) -> Contents:
    magic = body.at(0, 16)
    if layout := layout_of(body):
        return _inspect_chunks(body, layout)
    if magic.startswith((b".snd", b"dns.")):
        return _inspect_au(body, ">" if magic.startswith(b".") else "<")
    if magic.startswith(b"fLaC"):
        return Contents(block=int.from_bytes(magic[10:12], "big"))
    if magic.startswith(b"OggS"):
        return _inspect_ogg(body)
    if magic.startswith(b"\xf0\x7e"):  # SDS
        return Contents(is_noisy=True)
    return _inspect_mpeg(body)


def without_tags(file: View) -> tuple[int, int]:
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


# Chunks that are commonly found behind the samples.
_COMMON = re.compile(
    rb"LIST|bext|iXML|cue |smpl|fact|PEAK|id3 |ID3 |JUNK|junk|PAD |FLLR|DISP|_PMX|axml|inst|acid|cart|MARK|INST|COMT|"
    rb"NAME|AUTH|ANNO|APPL|COMM|CHAN|pakt|info|chan|free|uuid"
)
# Bytes at the end in which such chunks are looked for.
_SEARCHED = 1 << 20


def _inspect_chunks(body: View, layout: Layout) -> Contents:
    magic = body.at(0, 4)
    found: dict[bytes, Chunk] = {}
    for chunk in chunks(body):
        found.setdefault(chunk.name[:4], chunk)
    data = next((found[name] for name in (b"data", b"SSND", b"BODY") if name in found), None)
    if data is None:
        return Contents()  # libsndfile says what is wrong
    described, contents = next((found[name] for name in _READERS if name in found), None), Contents()
    if described:  # zeros where it is too short, of which libsndfile says what is wrong
        description = body.at(described.start, min(40, described.size)).ljust(40, b"\0")
        contents = _READERS[described.name[:4]](description, layout.size[0])
    if contents.refusal:
        return contents
    skipped = 4 if magic == b"caff" else 0
    if data.name == b"SSND":
        skipped = 8 + int.from_bytes(body.at(data.start, 4), "big")
    start, announced, unit = data.start + skipped, data.size - skipped, contents.unit
    available = max(0, body.size - start)
    is_unknown = announced > available and any(data.size in sizes for sizes in _UNKNOWN_SIZES)
    if announced <= available:
        present, contents.notes = _with_unannounced(body, layout, start, max(0, announced), unit)
    else:
        present = available
        if is_unknown and b"ds64" not in found:  # which libsndfile does not understand
            announced = available
    if present != announced:
        present -= present % unit
    stop = start + present
    if contents.is_noisy:
        stream = _inspect_mpeg(body, range(start, stop))
        stream.notes = (*contents.notes, *stream.notes)
        return stream

    head = b""  # what is to be in place of the first 12 bytes
    patches = {0: b"RF64"} if magic == b"BW64" else {}
    if magic == b"caff" and body.at(data.start - 8, 8) == b"\xff" * 8:  # to the end, which libsndfile does not know
        patches[data.start - 8] = pack(layout.size, data.size)
    if described and contents.patch:
        patches[described.start + contents.patch[0]] = contents.patch[1]
    if present != announced:
        patches[data.start - struct.calcsize(layout.size)] = pack(layout.size, present + skipped + layout.counted)
        sizes = struct.pack("<QQQ", stop - 8, present, present // unit)
        if b"ds64" in found:
            patches |= {data.start - 4: b"\xff" * 4, found[b"ds64"].start: sizes}
        elif magic == b"RIFF" and present >= 2**32 - 1:
            head = b"RF64\xff\xff\xff\xffWAVEds64" + struct.pack("<I", 28) + sizes + bytes(4)
        elif layout.whole is not None:
            patches[layout.whole] = pack(layout.size, stop - layout.outside)
        if described and data.name == b"SSND":
            patches[described.start + 2] = pack(">I", present // unit)
    elif not layout.counted and data.name != b"BODY":
        stop = body.size  # in W64 and SVX libsndfile takes chunks behind the samples for more of them
    contents.pieces = (head, *_patched(patches, stop, 12 if head else 0))
    # More samples than the header announces are no fewer than they should be.
    contents.announced = max(0, present if contents.notes or is_unknown else announced)
    contents.present, contents.checked = present, True
    if magic == b"caff" and contents.block > 1:  # packets of any size, with a table behind them
        contents.cut = b"pakt" not in found
        contents.frames = None if contents.cut else int.from_bytes(body.at(found[b"pakt"].start + 8, 8), "big")
    elif contents.block > 1 and present != announced:
        contents.limit = present // unit * contents.block  # libsndfile reads one block of GSM more
    return contents


def _with_unannounced(body: View, layout: Layout, start: int, announced: int, unit: int) -> tuple[int, tuple[str, ...]]:
    """The bytes of samples from ``start`` on, with those that follow without being announced, and a note on them."""
    stop = start + announced
    aligned = stop + -stop % layout.alignment
    behind = body.size - aligned
    if behind < max(unit, layout.header) or any(_are_chunks(body, at) for at in {stop, aligned}):
        return announced, ()
    if not any(body.at(at, _SEARCHED).strip(b"\0") for at in range(aligned, body.size, _SEARCHED)):
        return announced, (f"{behind} bytes of zeros follow the samples; they are left out",)
    # With a size that has wrapped, chunks may follow the samples all the same.
    begin = max(stop, body.size - _SEARCHED)
    ends = (begin + match.start() for match in _COMMON.finditer(body.at(begin, _SEARCHED)))
    available = next((at for at in ends if _are_chunks(body, at, common=False)), body.size) - start
    return available, (_more(announced, available),)


def _are_chunks(body: View, position: int, *, common: bool = True) -> bool:
    """Whether chunks fill the file from a position on, or a ``common`` one begins there."""
    found = list(chunks(body, position))
    if not found:
        return False
    beyond = found[-1].start + found[-1].size - body.size  # there may be padding, at most 7 bytes
    return (common and _COMMON.match(found[0].name) is not None) or -8 < beyond <= 1


def _patched(patches: Mapping[int, bytes], stop: int, done: int = 0) -> tuple[Piece, ...]:
    """The bytes from ``done`` to ``stop`` with others from some positions on."""
    pieces: list[Piece] = []
    for position, new in sorted(patches.items()):
        pieces += [range(done, position), new]
        done = position + len(new)
    return (*pieces, range(done, stop))


def _read_fmt(fmt: bytes, order: str) -> Contents:
    tag, channels, _, _, unit, bits = struct.unpack(f"{order}HHIIHH", fmt[:16])
    valid_or_block, _, extended = struct.unpack(f"{order}HIH", fmt[18:26])
    taken = bits
    if tag == _EXTENSIBLE:
        tag, bits = extended, min(bits, valid_or_block) or bits
    if tag in _MPEG:
        return Contents(is_noisy=True)
    if tag in (_PCM, _FLOAT):
        return _linear(channels, unit, bits, taken, tag == _FLOAT, (14, f"{order}H"))
    return Contents(unit=max(1, unit), block=max(1, valid_or_block) if tag in _IN_BLOCKS else 1)


def _read_desc(desc: bytes, _: str) -> Contents:
    name, flags, unit, block, channels, bits = struct.unpack(">4sIIIII", desc[8:32])
    if name == b"lpcm":
        return _linear(channels, unit, bits, bits, bool(flags & 1), (28, ">I"))
    return Contents(unit=max(1, unit), block=max(1, block))


def _read_comm(comm: bytes, _: str) -> Contents:
    channels, _, bits = struct.unpack(">HIH", comm[:8])
    if comm[18:22] == b"ima4":
        return Contents(unit=max(1, 34 * channels), block=64)
    return Contents(unit=max(1, channels * -(-bits // 8)) if comm[18:22].upper() in _AIFF_LINEAR else 1)


# By the name of the chunk that describes samples.
_READERS = {b"fmt ": _read_fmt, b"COMM": _read_comm, b"desc": _read_desc}


def _linear(channels: int, unit: int, bits: int, taken: int, is_float: bool, at: tuple[int, str]) -> Contents:
    """Plain samples of ``bits`` in frames of ``unit`` bytes; that each takes ``taken`` bits is told at a position."""
    if not channels or not unit or not bits:
        return Contents()  # libsndfile says what is wrong
    width, rest = divmod(unit, channels)
    if rest or not -(-bits // 8) <= width <= (8 if is_float else 4) or (is_float and bits != 8 * width):
        layout = f"{bits} bits in frames of {unit} bytes for {count_channels(channels)}"
        return Contents(refusal=f"keeps samples of {layout}, which do not go together")
    if is_float or width == 1 or bits == 8 * width:
        return Contents(unit=unit)
    return Contents(unit=unit, bits=bits, patch=(at[0], struct.pack(at[1], 8 * width)) if taken != 8 * width else None)


def _inspect_au(body: View, order: str) -> Contents:
    start, announced, encoding, _, channels = struct.unpack(f"{order}IIIII", body.at(4, 20).ljust(20, b"\0"))
    unit = max(1, _AU_WIDTHS.get(encoding, 1) * channels)
    available = max(0, body.size - start)
    present = available - available % unit
    if present <= announced < available or any(announced in sizes for sizes in _UNKNOWN_SIZES):
        return Contents(checked=True)
    notes = (_more(announced, available),) if announced < available else ()
    pieces = _patched({8: b"\xff" * 4}, start + present)
    return Contents(pieces, present if notes else announced, present, checked=True, notes=notes)


def _inspect_ogg(body: View) -> Contents:
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


def _inspect_mpeg(body: View, part: range | None = None) -> Contents:
    """What MP3 holds; libsndfile is shown nothing but its frames, and enough of them where it has to estimate."""
    part = part or range(body.size)
    stream = mpeg.scan(body.at, part.start, part.stop)
    if stream is None or (stream.announced is not None and stream.announced >= stream.count):
        pieces = stream.runs if stream else (part,)
        block = stream.samples if stream else 1
        return Contents(() if pieces == (range(body.size),) else pieces, block=block, is_noisy=True)
    notes: tuple[str, ...] = ()
    if stream.announced is not None:
        notes = (f"its header announces {stream.announced} frames, it holds {stream.count}; all are read",)
    elif stream.is_cut:
        notes = ("its last frame is cut off",)
    first, *others = stream.runs
    pieces = (range(first.start + stream.leading, first.stop), *others)
    short = stream.count * stream.largest - sum(map(len, pieces))
    silence = (stream.silence,) * (-(-short // len(stream.silence)) + 1)
    limit = stream.count * stream.samples
    return Contents((*pieces, *silence), block=stream.samples, limit=limit, is_noisy=True, notes=notes)


def _more(announced: int, available: int) -> str:
    return f"its header announces {announced} bytes of samples, it holds {available}; all are read"
