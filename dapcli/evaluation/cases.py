"""Cases: a damaged clip, apart from it the truth, so that no method is handed what it must not know."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dapcli.audio import Audio, Samples
from dapcli.signal.degradation import Degradation


@dataclass(frozen=True)
class Known:
    """All that a blind method may know: the recording, what is known of its degradation, and the kinds of its sources."""

    recording: Audio
    degradation: Degradation | None = None
    kinds: tuple[str, ...] = ()

    @property
    def sources(self) -> int:
        """Number of sources K."""
        return max(len(self.kinds), 1)


@dataclass(frozen=True)
class Truth:
    """What no user has: the references ``[K, C, N]``, and the noise ``[C, N]`` where some was added."""

    references: Samples
    noise: Samples | None = None


@dataclass(frozen=True)
class Case:
    """A damaged clip and the truth about it; ``notes`` say what a reader should know."""

    known: Known
    truth: Truth
    notes: tuple[str, ...] = ()


def noisy_case(clean: Audio, noise: Samples, *notes: str) -> Case:
    """A clean clip with noise ``[C, N]`` added to it."""
    reference = single(clean.samples)
    damaged = single(reference + noise)
    return Case(Known(Audio(damaged, clean.rate)), Truth(reference[None], noise=damaged - reference), notes)


def make_case(
    references: Samples,
    damaged: Samples,
    rate: int,
    *,
    degradation: Degradation | None = None,
    kinds: tuple[str, ...] = (),
) -> Case:
    """What was left, ``[C, N]``, of references ``[K, C, N]`` at ``rate`` Hz."""
    return Case(Known(Audio(single(damaged), rate), degradation, kinds), Truth(single(references)))


def single(samples: Samples) -> Samples:
    """Samples as files hold them, in single precision, so that what is heard and measured is what was restored."""
    return samples.astype(np.float32).astype(np.float64)
