"""Cases: a problem, and apart from it the truth, so that no method is handed what it must not know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dapcli.audio import Audio, Samples
from dapcli.tasks.problem import Problem


@dataclass(frozen=True)
class Truth:
    """What no user has: the references ``[K, C, N]``, and the ``noise`` ``[C, N]`` that they lack of the recording."""

    references: Samples
    noise: Samples


@dataclass(frozen=True)
class Case:
    """A degraded clip as a blind method may know it, and the truth about it; ``notes`` are for readers."""

    problem: Problem[Any]
    truth: Truth
    notes: tuple[str, ...] = ()


def make_case(references: Samples, observed: Samples, rate: int, *notes: str, **known: Any) -> Case:
    """The recording ``[C, N]`` that was made of references ``[K, C, N]`` at ``rate`` Hz, and what else is known of it.

    All samples are as files hold them, so that those are heard and measured that were restored.
    """
    references, observed = single(references), single(observed)
    return Case(Problem(Audio(observed, rate), **known), Truth(references, observed - references.sum(axis=0)), notes)


def single(samples: Samples) -> Samples:
    """Samples as files hold them: in single precision."""
    return samples.astype(np.float32).astype(np.float64)
