"""Degradation: what is still known of a recording that has lost samples, or only keeps bounds for them.

A degradation names the set of recordings that would have been degraded into this one and restores it in the classical
way. It degrades the recording once more, where the truth is known, for a network to learn how to do better. Tasks
differ in nothing else. To add one, write a class with the members of :class:`Degradation`, and a command.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from dapcli.audio import Recording, Samples
from dapcli.audio.view import View
from dapcli.audio.writing import step_of
from dapcli.signal.gaps import Flags as Flags
from dapcli.signal.gaps import Gaps
from dapcli.signal.spade import refine_sparse, restore_sparse

#: Samples that are off what is known by less, half a step of 16 bits, count as consistent.
TOLERANCE = 2.0**-16
#: The most by which writing in 16 bits changes a sample: some programs round to the nearest, some down.
ROUNDING = 2.0**-15


def full_scale(peak: float, subtype: str) -> tuple[float, float]:
    """The power of two that holds a recording's peak, and the most by which its samples may have been rounded.

    The latter is a step of 16 bits at that scale, for recordings of finer steps may be of any level; but not less than
    the step of the recording's own integers, if they have 16 bits or more.
    """
    scale = 2.0 ** math.ceil(math.log2(peak)) if peak else 1.0
    return scale, max(scale * ROUNDING, min(step_of(subtype) or 0.0, ROUNDING))


@dataclass(frozen=True)
class TrainingPair:
    """A recording whose truth is known at some samples, with classical restorations of it.

    ``candidates`` is ``[M, C, N]``, ``truth`` ``[C, N]``; it counts where ``scored`` ``[C, N]`` is true.
    """

    candidates: Samples
    truth: Samples
    scored: Flags


@runtime_checkable
class Degradation(Protocol):
    """The degradation of a recording ``[C, N]``, or of a part of it.

    What is written out here holds for those that inherit: of every sample something is known, all parts of a recording
    are degraded alike, and sound is there in all of it.
    """

    task: ClassVar[str]
    """Task that restores it."""
    initial_estimate: ClassVar[str]
    """Method of the classical restorations, in words."""

    @property
    def gaps(self) -> Gaps | None:
        """The missing samples; ``None`` where something is known of every sample."""
        return None

    def check(self, recording: Recording) -> None:  # noqa: ARG002
        """Raise ``InputError`` where a recording cannot have it."""
        return

    def part(self, start: int, stop: int) -> Degradation:  # noqa: ARG002
        """The degradation of the samples ``start`` to ``stop`` alone."""
        return self

    def alike(self, one: int, other: int, sign: int) -> bool:  # noqa: ARG002
        """Whether two channels are degraded alike, one of them multiplied by a sign."""
        return True

    def for_view(self, view: View) -> Degradation:
        """The degradation of what a view shows of the recording."""
        ...

    def describe(self, recording: Recording) -> dict[str, Any]:
        """The degradation of a recording as JSON can hold it; ``kind`` is its name."""
        ...

    def affected(self, samples: Samples) -> Flags:
        """Flags ``[C, N]`` of the samples ``[C, N]`` in which there is something to restore."""
        ...

    def candidates(self, samples: Samples, rate: int) -> Samples:
        """Classical restorations ``[M, C, N]`` of samples ``[C, N]`` at ``rate`` Hz, each of them consistent."""
        ...

    def training_pairs(self, samples: Samples, candidates: Samples, rate: int, seed: int) -> list[TrainingPair]:
        """The recording degraded in this way once more, several times over, each with as many candidates as these."""
        ...

    def data_fidelity(self, estimate: Tensor, samples: Tensor) -> Tensor:
        """Mean squared distance of an estimate ``[C, N]`` from what is consistent with samples ``[C, N]``."""
        ...

    def add_texture(self, estimate: Samples, samples: Samples, rate: int, seed: int) -> Samples:  # noqa: ARG002
        """The estimate ``[C, N]`` with the sound that the least squared error leaves out although it is heard."""
        return estimate

    def project(self, estimate: Samples, samples: Samples) -> Samples:
        """The nearest estimate ``[C, N]`` that would have been degraded into samples ``[C, N]``."""
        ...


class Bounded(Degradation, ABC):
    """Degradation that leaves two bounds for every sample, and degrades all that lies between them into the sample."""

    initial_estimate: ClassVar[str] = "sparsest consistent signal (A-SPADE)"

    @abstractmethod
    def bounds(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest and the highest values ``[C, N]`` that are degraded into samples ``[C, N]``; infinite at times.

        Both are the sample itself where it is reliable. Nothing here waits for a device.
        """

    def data_fidelity(self, estimate: Tensor, samples: Tensor) -> Tensor:
        """Mean squared distance of an estimate from the bounds of samples, both ``[C, N]``; 0 between them."""
        low, high = self.bounds(samples)
        return (estimate - estimate.clamp(low, high)).square().mean()

    def project(self, estimate: Samples, samples: Samples) -> Samples:
        """The nearest estimate between the bounds of samples, all ``[C, N]``."""
        return np.clip(estimate, *self._bounds(samples))

    def sparsest(self, samples: Samples, rate: int) -> Samples:
        """The sparsest signals between the bounds of samples, both ``[C, N]``; channel by channel."""
        channels = zip(samples, *self._bounds(samples), strict=True)
        return np.stack([restore_sparse(*channel, rate) for channel in channels])

    def refined(self, estimate: Samples, samples: Samples, rate: int) -> Samples:
        """An estimate between the bounds of samples, both ``[C, N]``, refined by its own power; channel by channel."""
        channels = zip(estimate, *self._bounds(samples), strict=True)
        return np.stack([refine_sparse(*channel, rate) for channel in channels])

    def _bounds(self, samples: Samples) -> tuple[Samples, Samples]:
        low, high = self.bounds(torch.tensor(samples))
        return low.numpy(), high.numpy()
