"""A problem: a recording and what is known of it, as the command line, evaluations and baselines hand it on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from dapcli.audio import Recording, Samples
from dapcli.signal.source_types import DEFAULT_TYPES

D = TypeVar("D")


@dataclass(frozen=True)
class Problem(Generic[D]):
    """A recording ``[C, N]`` to be restored or separated.

    ``degradation`` is what happened to it, found as ``source`` says (``given``, ``mask`` or ``detected``); ``types``
    are those of the sources in it; ``noise_profile`` is a stretch of it in seconds, or another recording, with nothing
    but its noise. ``oracle_noise`` ``[C, N]`` is the noise itself, which no user has: for baselines in an evaluation.
    Estimates are ``consistent`` with what is known if it is true. ``notes`` are lines for people; ``fingerprint`` is
    what decides the fit of a segment besides the recording and the settings, as JSON can hold it.
    """

    recording: Recording
    degradation: D = None  # type: ignore[assignment]
    types: tuple[str, ...] = DEFAULT_TYPES[2]
    noise_profile: tuple[float, float] | Recording | None = None
    oracle_noise: Samples | None = None
    consistent: bool = True
    source: str = "given"
    seed: int = 0
    notes: tuple[str, ...] = ()
    fingerprint: Mapping[str, Any] = field(default_factory=dict)

    @property
    def samples(self) -> Samples:
        """All samples ``[C, N]`` of the recording."""
        return self.recording.read(0, self.recording.length)

    @property
    def rate(self) -> int:
        """The recording's rate, Hz."""
        return self.recording.rate

    def arguments(self, names: Sequence[str]) -> dict[str, Any]:
        """What a task's function takes of it besides the recording."""
        return {name: getattr(self, name) for name in names}
