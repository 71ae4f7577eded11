"""The frames of MP3, counted.

A file without a Xing frame does not tell its length, and one that others were joined to tells a wrong one. libsndfile
estimates it, and reads no further.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from dapcli.audio.contents import Contents, Pieces

# Kilobits per second of layer III, by index: MPEG-1; MPEG-2 and 2.5.
_KILOBITS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_RATES = (44_100, 48_000, 32_000)
# Bytes that are looked through for the next frame where one does not follow, and that are read at once.
_SEARCHED, _WINDOW = 1 << 16, 1 << 20


@dataclass(frozen=True)
class _Stream:
    """The frames of a file: the ``count`` that are whole, in ``runs`` of bytes without anything else between.

    Each holds ``samples`` per channel, and none has more than ``largest`` bytes. ``announced`` is the number that a
    leading Xing or Info frame tells, which then is ``leading`` bytes long and not counted; None without one.
    ``is_cut``: the last frame ends after the file. ``silence`` is a frame of it.
    """

    runs: tuple[range, ...]
    count: int
    samples: int
    largest: int
    announced: int | None
    leading: int
    is_cut: bool
    silence: bytes


class _Frame(NamedTuple):
    """What the header of a frame tells; ``kind`` is the same for all frames of a stream, Xing's lies at ``xing``."""

    kind: int
    size: int
    samples: int
    xing: int


def _parse(header: bytes) -> _Frame | None:
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version, index, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or index in (0, 15) or rate == 3:
        return None
    low, mono = version != 3, header[3] >> 6 == 3
    hertz = _RATES[rate] >> (2, 0, 1, 0)[version]
    size = (72_000 if low else 144_000) * _KILOBITS[low][index] // hertz + (header[2] >> 1 & 1)
    kind = (header[1] & 0xFE) << 8 | header[2] & 0x0C
    return _Frame(kind, size, 576 if low else 1152, (36, 21, 13)[low + mono])


def inspect(body: Pieces, part: range | None = None) -> Contents:
    """What MP3 holds; libsndfile is shown nothing but its frames, and enough of them where it has to estimate."""
    part = part or range(body.size)
    stream = _scan(body.at, part.start, part.stop)
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


def _scan(read: Callable[[int, int], bytes], start: int, stop: int) -> _Stream | None:
    """The frames between two positions of a file that ``read(position, count)`` reads; None without two of them.

    Bytes between frames are skipped, as decoders do.
    """
    base, window = start, b""

    def frame_at(position: int) -> _Frame | None:
        nonlocal base, window
        if not base <= position <= base + len(window) - 4:
            base, window = position, read(position, _WINDOW)
        return _parse(window[position - base : position - base + 4])

    first = frame_at(start)
    if not first:
        return None
    head = read(start, first.size)
    runs: list[range] = []
    position, count, largest, is_cut = start, 0, 0, False
    while position + 4 <= stop:
        frame = frame_at(position)
        if not frame or frame.kind != first.kind:
            found = _search(read(position, min(_SEARCHED, stop - position)), first.kind) if count > 1 else None
            if found is None:
                break
            position += found
            continue
        end = position + frame.size
        if is_cut := end > stop:
            break
        runs.append(range(runs.pop().start if runs and runs[-1].stop == position else position, end))
        position, count, largest = end, count + 1, max(largest, frame.size)
    if count < 2:
        return None
    announced, leading = None, 0
    xing = head[first.xing : first.xing + 12]
    if xing[:4] in (b"Xing", b"Info") and len(xing) == 12 and xing[7] & 1:  # the number does not count this frame
        announced, leading = int.from_bytes(xing[8:], "big"), first.size
    silence = bytes([head[0], head[1] | 1, *head[2:4]]).ljust(first.size, b"\0")  # without a checksum
    return _Stream(tuple(runs), count - (leading > 0), first.samples, largest, announced, leading, is_cut, silence)


def _search(found: bytes, kind: int) -> int | None:
    """Where in bytes the next two frames of a kind begin."""
    position = 0
    while (position := found.find(b"\xff", position + 1)) >= 0:
        frame = _parse(found[position : position + 4])
        following = _parse(found[position + frame.size :][:4]) if frame and frame.kind == kind else None
        if following and following.kind == kind:
            return position
    return None
