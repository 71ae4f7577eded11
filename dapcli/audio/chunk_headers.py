"""The headers of files that consist of chunks: WAV, RF64, W64, AIFF and CAF."""

from __future__ import annotations

import re
import struct

from dapcli.audio import mpeg
from dapcli.audio.chunks import Chunk, Layout, chunks, pack
from dapcli.audio.contents import Contents, Pieces, is_unknown, note_more, patched
from dapcli.audio.recording import count_channels

# Formats in WAV.
_PCM, _FLOAT, _EXTENSIBLE, _MPEG, _IN_BLOCKS = 1, 3, 0xFFFE, (0x50, 0x55), (0x02, 0x11, 0x31)
_AIFF_LINEAR = (b"NONE", bytes(4), b"TWOS", b"SOWT", b"FL32", b"FL64", b"IN24", b"IN32")
# Chunks that are commonly found behind the samples.
_COMMON = re.compile(
    rb"LIST|bext|iXML|cue |smpl|fact|PEAK|id3 |ID3 |JUNK|junk|PAD |FLLR|DISP|_PMX|axml|inst|acid|cart|MARK|INST|COMT|"
    rb"NAME|AUTH|ANNO|APPL|COMM|CHAN|pakt|info|chan|free|uuid"
)
# Bytes at the end in which such chunks are looked for.
_SEARCHED = 1 << 20


def inspect(body: Pieces, layout: Layout) -> Contents:
    """What the chunks of a file tell of its samples."""
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
    has_no_size = announced > available and is_unknown(data.size)
    if announced <= available:
        present, contents.notes = _with_unannounced(body, layout, start, max(0, announced), unit)
    else:
        present = available
        if has_no_size and b"ds64" not in found:  # which libsndfile does not understand
            announced = available
    if present != announced:
        present -= present % unit
    stop = start + present
    if contents.is_noisy:
        stream = mpeg.inspect(body, range(start, stop))
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
    contents.pieces = (head, *patched(patches, stop, 12 if head else 0))
    # More samples than the header announces are no fewer than they should be.
    contents.announced = max(0, present if contents.notes or has_no_size else announced)
    contents.present, contents.checked = present, True
    if magic == b"caff" and contents.block > 1:  # packets of any size, with a table behind them
        contents.cut = b"pakt" not in found
        contents.frames = None if contents.cut else int.from_bytes(body.at(found[b"pakt"].start + 8, 8), "big")
    elif contents.block > 1 and present != announced:
        contents.limit = present // unit * contents.block  # libsndfile reads one block of GSM more
    return contents


def _with_unannounced(
    body: Pieces, layout: Layout, start: int, announced: int, unit: int
) -> tuple[int, tuple[str, ...]]:
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
    return available, (note_more(announced, available),)


def _are_chunks(body: Pieces, position: int, *, common: bool = True) -> bool:
    """Whether chunks fill the file from a position on, or a ``common`` one begins there."""
    found = list(chunks(body, position))
    if not found:
        return False
    beyond = found[-1].start + found[-1].size - body.size  # there may be padding, at most 7 bytes
    return (common and _COMMON.match(found[0].name) is not None) or -8 < beyond <= 1


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
