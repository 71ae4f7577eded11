"""Types of sources. To add one, give it a line in :data:`SOURCE_TYPES`.

This module imports nothing heavy, so that the command line knows the names of its files at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dapcli.errors import SettingsError


@dataclass(frozen=True)
class SourceType:
    """A type of source: what it is, and the lengths of STFT windows, s, that tell it from types that last less long."""

    description: str
    windows: tuple[float, ...] = ()


@dataclass(frozen=True)
class Contrast:
    """How a type differs from one that lasts less long, once they are told apart roughly.

    In STFTs of these ``windows``, s, it lasts for ``lasting``, s, and the other one is smooth over ``width``, Hz. They
    are told apart again so many ``rounds``, from the ``lowest`` frequency, Hz, on. At high frequencies the other one is
    stronger than it seems, by the factor ``brightness``; and what is louder than ``excess`` times the smoothed lasting
    part is the other one, which rings.
    """

    windows: tuple[float, ...]
    lasting: float
    width: float
    rounds: int = 2
    lowest: float = 0.0
    brightness: float = 1.0
    excess: float = 1e6


#: From the type that lasts longest on.
SOURCE_TYPES: dict[str, SourceType] = {
    "harmonic": SourceType("tones that go on: piano, strings, organ, hum", (0.384, 0.512, 0.768)),
    "voice": SourceType("tones that glide: speech and singing", (0.064, 0.128, 0.256)),
    "percussive": SourceType("struck and gone: drums, clicks"),
}
#: For every type and one that lasts less long, what did best on mixtures of piano, drums and speech.
CONTRASTS: dict[tuple[str, str], Contrast] = {
    ("harmonic", "voice"): Contrast((0.128, 0.256, 0.384), 0.5, 60.0),
    ("harmonic", "percussive"): Contrast(
        (0.032, 0.064, 0.128, 0.256), 0.1, 400.0, rounds=1, lowest=200.0, brightness=4.0, excess=5.0
    ),
    ("voice", "percussive"): Contrast((0.016, 0.032, 0.064), 0.03, 300.0, rounds=4, lowest=200.0, brightness=4.0),
}
#: The type of a source where types are not used.
ANY_TYPE = "source"
#: The types of K sources where none are given.
DEFAULT_TYPES = {
    2: ("harmonic", "percussive"),
    3: ("harmonic", "voice", "percussive"),
    4: ("harmonic", "harmonic", "voice", "percussive"),
}


def check_types(types: Sequence[str], *, any_type: bool = False) -> None:
    """Raise ``SettingsError`` unless these are the types of two to four sources, or so many of ``any_type``."""
    if isinstance(types, str) or not isinstance(types, Sequence):
        raise SettingsError(
            f"the types are of type {type(types).__name__}; give one for each source, such as {DEFAULT_TYPES[2]}"
        )
    for each in types:
        if each not in SOURCE_TYPES and not any_type:
            raise SettingsError(f"unknown type {each!r}; choose from {', '.join(SOURCE_TYPES)}")
    if len(types) not in DEFAULT_TYPES:
        raise SettingsError(f"a mixture is separated into 2 to 4 sources, and {len(types)} types were given")


def default_names(types: Sequence[str]) -> tuple[str, ...]:
    """Names of sources: their types, numbered where one comes more than once, such as ``harmonic-2``."""
    return tuple(
        f"{each}-{types[: index + 1].count(each)}" if types.count(each) > 1 else each
        for index, each in enumerate(types)
    )
