"""Degradation: what is still known of a recording that has lost samples, or only keeps bounds for them.

A degradation names the set of recordings that would have been damaged into this one, restores it in the classical way, and
degradations it once more, where the truth is known, for a network to learn how to do better. Tasks differ in nothing else.
To add one, write a class with the members of :class:`Degradation`, and a command.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor

from dapcli.audio import Recording, Samples
from dapcli.signal.gaps import Flags as Flags
from dapcli.signal.gaps import Gaps

#: Samples that are off what is known by less, half a step of 16 bits, count as consistent.
TOLERANCE = 2.0**-16


@dataclass(frozen=True)
class TrainingPair:
    """A recording whose truth is known at some samples, with classical restorations of it.

    ``candidates`` is ``[K, C, N]``, ``truth`` ``[C, N]``; it counts where ``scored`` ``[C, N]`` is true.
    """

    candidates: Samples
    truth: Samples
    scored: Flags


class Degradation(Protocol):
    """What happened to a recording ``[C, N]``, or to a part of it."""

    initial_estimate: ClassVar[str]
    """Method of the classical restorations, in words."""

    @property
    def gaps(self) -> Gaps | None:
        """The missing samples; ``None`` where the degradation leaves none out."""
        ...

    def part(self, start: int, stop: int) -> Degradation:
        """The same for the samples ``start`` to ``stop`` alone."""
        ...

    def describe(self, recording: Recording) -> dict[str, Any]:
        """What happened to a recording, as JSON can hold it; ``kind`` is its name."""
        ...

    def affects(self, samples: Samples) -> bool:
        """Whether there is anything to restore in samples ``[C, N]``."""
        ...

    def candidates(self, samples: Samples, rate: int) -> Samples:
        """Classical restorations ``[K, C, N]`` of samples ``[C, N]`` at ``rate`` Hz, each of them consistent."""
        ...

    def training_pairs(self, samples: Samples, candidates: Samples, rate: int, seed: int) -> list[TrainingPair]:
        """The same recording damaged in this way once more, some times over, with candidates as many as these."""
        ...

    def data_fidelity(self, estimate: Tensor, samples: Tensor) -> Tensor:
        """How far an estimate ``[C, N]`` is from being consistent with samples ``[C, N]``; 0 where it is."""
        ...

    def add_texture(self, estimate: Samples, samples: Samples, rate: int, seed: int) -> Samples:
        """The estimate ``[C, N]`` with what the least squared error leaves out although it is heard."""
        ...

    def project(self, estimate: Samples, samples: Samples) -> Samples:
        """The nearest estimate ``[C, N]`` that would have been damaged into samples ``[C, N]``."""
        ...
