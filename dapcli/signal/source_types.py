"""What is known of the sources of a mixture. To add a kind of source, give it a line in :data:`SOURCE_TYPES`.

This module imports nothing heavy, so that the command line knows the names of its files at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dapcli.errors import SettingsError


@dataclass(frozen=True)
class SourceType:
    """What is known of a kind of source: for how long its sounds go on, and how wide they are in frequency.

    ``window`` is the length of the STFT's window, s, in which ``sustained``, s, tells it from kinds that go on for less
    time. Those are smooth over ``width``, Hz, where this one has lines.
    """

    description: str
    window: float
    sustained: float
    width: float


SOURCE_TYPES: dict[str, SourceType] = {
    "harmonic": SourceType("tones that go on: piano, strings, organ, hum", 0.256, 1.0, 30.0),
    "voice": SourceType("tones that glide: speech and singing", 0.032, 0.1, 60.0),
    "percussive": SourceType("struck and gone: drums, clicks", 0.016, 0.0, 120.0),
}
#: What a source is where its kind is not made use of.
ANY_TYPE = "source"
#: The kinds of K sources where they are not given.
DEFAULT_TYPES = {
    2: ("harmonic", "percussive"),
    3: ("harmonic", "voice", "percussive"),
    4: ("harmonic", "harmonic", "voice", "percussive"),
}


def check_types(kinds: Sequence[str]) -> None:
    """Raise ``SettingsError`` unless these are the kinds of two to four sources."""
    for kind in kinds:
        if kind not in SOURCE_TYPES:
            raise SettingsError(f"unknown kind {kind!r}; choose from {', '.join(SOURCE_TYPES)}")
    if len(kinds) not in DEFAULT_TYPES:
        raise SettingsError(f"a mixture is separated into 2 to 4 sources, and {len(kinds)} kinds were given")


def default_names(kinds: Sequence[str]) -> tuple[str, ...]:
    """What to call sources: by their kinds, numbered where one comes more than once, such as ``harmonic-2``."""
    return tuple(
        f"{kind}-{kinds[: index + 1].count(kind)}" if kinds.count(kind) > 1 else kind
        for index, kind in enumerate(kinds)
    )
