"""The frames of MP3, counted.

A file without a Xing frame does not tell its length, and one that others were joined to tells a wrong one. libsndfile
estimates it, and reads no further.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Kilobits per second of layer III, by index: MPEG-1; MPEG-2 and 2.5.
_KILOBITS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_RATES = (44_100, 48_000, 32_000)
# Bytes that are looked through for the next frame where one does not follow.
_SEARCHED = 1 << 16
_WINDOW = 1 << 20


@dataclass(frozen=True)
class Stream:
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


@dataclass(frozen=True)
class _Frame:
    """What the header of a frame of layer III tells; ``kind`` is the same for all frames of a stream."""

    header: bytes
    kind: int
    size: int
    samples: int
    side: int

    @staticmethod
    def parse(header: bytes) -> _Frame | None:
        if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
            return None
        version, index, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
        if version == 1 or index in (0, 15) or rate == 3:
            return None
        low = version != 3
        kilobits = _KILOBITS[low][index]
        hertz = _RATES[rate] >> (0 if version == 3 else 1 if version == 2 else 2)
        size = (72_000 if low else 144_000) * kilobits // hertz + (header[2] >> 1 & 1)
        mono = header[3] >> 6 == 3
        side = (9 if mono else 17) if low else (17 if mono else 32)
        # Of a frame without a checksum.
        plain = bytes([header[0], header[1] | 1, *header[2:4]])
        return _Frame(plain, (header[1] & 0xFE) << 8 | header[2] & 0x0C, size, 576 if low else 1152, side)


def scan(read: Callable[[int, int], bytes], start: int, stop: int) -> Stream | None:
    """The frames between two positions of a file that ``read(position, count)`` reads; None without two of them.

    Bytes between frames are skipped, as decoders do.
    """
    base, window = start, b""

    def frame_at(position: int) -> _Frame | None:
        nonlocal base, window
        if not base <= position <= base + len(window) - 4:
            base, window = position, read(position, _WINDOW)
        return _Frame.parse(window[position - base : position - base + 4])

    first = frame_at(start)
    if not first:
        return None
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
        if end > stop:
            is_cut = True
            break
        if runs and runs[-1].stop == position:
            runs[-1] = range(runs[-1].start, end)
        else:
            runs.append(range(position, end))
        position, count, largest = end, count + 1, max(largest, frame.size)
    if count < 2:
        return None
    announced = _announced(read(start, first.size), 4 + first.side)
    leading = 0 if announced is None else first.size
    silence = first.header + bytes(first.size - 4)
    return Stream(tuple(runs), count - (leading > 0), first.samples, largest, announced, leading, is_cut, silence)


def _search(found: bytes, kind: int) -> int | None:
    """Where in bytes the next two frames of a kind begin."""
    position = 0
    while (position := found.find(b"\xff", position + 1)) >= 0:
        frame = _Frame.parse(found[position : position + 4])
        if frame and frame.kind == kind:
            following = _Frame.parse(found[position + frame.size :][:4])
            if following and following.kind == kind:
                return position
    return None


def _announced(frame: bytes, at: int) -> int | None:
    """The number of frames that a Xing or Info frame tells, which does not count itself."""
    if frame[at : at + 4] in (b"Xing", b"Info") and len(frame) >= at + 12 and frame[at + 7] & 1:
        return int.from_bytes(frame[at + 8 : at + 12], "big")
    return None
