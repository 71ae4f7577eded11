"""Gaps: which samples of a recording are missing, as given by hand, read from a mask, or detected.

Gaps are kept in samples of the recording, one set per channel. Nothing here fills them. Notes are lines for people,
about what was done to what they gave.
"""

from dapcli.gaps.detection import DEFAULT_MIN_GAP, detect_gaps
from dapcli.gaps.given import make_gaps, parse_gap
from dapcli.gaps.intervals import Gaps, Interval, describe, list_intervals, merge, warn_of_long
from dapcli.gaps.mask import read_mask

__all__ = [
    "DEFAULT_MIN_GAP",
    "Gaps",
    "Interval",
    "describe",
    "detect_gaps",
    "list_intervals",
    "make_gaps",
    "merge",
    "parse_gap",
    "read_mask",
    "warn_of_long",
]
