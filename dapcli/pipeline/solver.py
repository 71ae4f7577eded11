"""Solvers: networks fitted to the segments of one recording. Every task has one; here is what they have in common."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dapcli.audio import Samples
from dapcli.audio.view import View
from dapcli.fit import STOPPING_RULES, Fitted, Iteration, Objective, Report, StopContext, StoppingRule
from dapcli.objectives import Setup
from dapcli.priors import NO_PRIOR, build_priors
from dapcli.settings import Settings
from dapcli.signal.stft import STFT

#: Weights of a network by name.
Weights = Mapping[str, Tensor]

# torch draws a network's first weights from a generator that all threads share.
_DRAWING = threading.Lock()


@dataclass(frozen=True)
class Segment:
    """What one fit is given: the recording from ``start`` to ``stop``, in samples of the recording.

    ``samples`` are ``[C, N]`` at the working rate. The network starts from ``weights`` and is only finetuned, or from
    random weights. ``references`` ``[K, C, N]`` are for the oracle rule.
    """

    samples: Samples
    start: int
    stop: int
    weights: Weights | None = None
    references: Samples | None = None


@dataclass(frozen=True)
class SegmentFit:
    """The fit of one segment, ``start`` to ``stop`` in samples of the recording.

    ``power`` is the mean square of its samples and ``noise_std`` the level of its noise, full scale at 1; ``noise`` is
    its power per Hz in a few bands, from 0 Hz to half the working rate, and frames ``[F, T]``. A degraded recording has
    no noise, but an ``inconsistent`` fraction of the estimate's samples. ``validation`` is the error of what was kept
    on what the network did not learn from, relative to that without a network: below 1 it helped.
    ``notes`` tell what did not go well at once. Without a network there are no ``iterations``.
    """

    rule: str
    rule_reason: str
    best_iteration: int
    stopped_by: str
    seconds: float
    power: float
    parameters: int
    iterations: tuple[Iteration, ...]
    validation: float | None = None
    noise_std: float | None = None
    white_noise: bool | None = None
    noise: tuple[tuple[float, ...], ...] = ()
    inconsistent: float | None = None
    notes: tuple[str, ...] = ()
    start: int = 0
    stop: int = 0


@dataclass(frozen=True, kw_only=True)
class Solver(ABC):
    """What all fits to one recording have in common; every task has a subclass.

    ``rate`` is the working rate in Hz, ``threads`` how many may prepare segments, ``dtype`` what convolutions compute
    in, ``objective`` the class of the estimator's, ``rule`` the stopping rule's name, ``rule_reason`` why it was
    chosen, and ``types`` those of the K sources in an estimate.
    """

    settings: Settings
    stft: STFT
    rate: int
    device: torch.device
    threads: int
    dtype: torch.dtype
    objective: Any
    rule: str
    rule_reason: str
    types: tuple[str, ...] = ("",)

    @property
    def iterations(self) -> tuple[int, int]:
        """Iterations at the most for :meth:`pretrain`, 0 where it has no use, and for a segment."""
        return 0, self.settings.iterations

    @property
    def joint(self) -> bool:
        """Whether several segments are fitted as one network, and not each in a thread of its own."""
        return False

    def alike(self, one: int, other: int, sign: int) -> bool:  # noqa: ARG002
        """Whether all that is known of a channel holds for another that equals it, with this sign."""
        return True

    def for_view(self, view: View) -> Solver:  # noqa: ARG002
        """The solver for what a view shows of the recording."""
        return self

    def needs_fit(self, samples: Samples, start: int) -> bool:  # noqa: ARG002
        """Whether a fit has anything to do in samples ``[C, N]`` of the recording that begin at ``start``."""
        return True

    def pretrain(self, segments: Sequence[Samples], report: Report) -> Weights:
        """The weights of one network that was fitted to some segments ``[C, N]`` in turn, for each to start from.

        Raises ``NotImplementedError`` where :attr:`iterations` has none for it: every segment is then fitted anew.
        """
        raise NotImplementedError

    @abstractmethod
    def fit_segments(self, segments: Sequence[Segment], reports: Sequence[Report]) -> list[tuple[Tensor, SegmentFit]]:
        """Fit a network to each segment; returns their estimates ``[K, C, N]`` and records.

        There is one segment, unless they are :attr:`joint`; all have one length.

        Raises:
            SettingsError: The stopping rule has nothing to go by.
        """

    def finalise(self, estimate: Samples, observed: Samples, start: int, gain: float, step: float | None) -> Samples:
        """An estimate ``[K, C, n]`` with what is known of it kept, and then scaled by ``gain``.

        ``observed`` ``[C, n]`` is the recording from ``start`` on, ``step`` that of the integers in which the estimate
        is written, full scale at 1, None for other formats.
        """
        del observed, start, step
        return estimate * gain

    def setup(self, seed: int | None = None) -> Setup:
        """The surroundings of a fit with random numbers by a seed, or by that of the settings."""
        generator = torch.Generator(self.device).manual_seed(self.settings.seed if seed is None else seed)
        return Setup(self.settings, self.stft, self.rate, generator)

    def build(self, objective: Objective, setup: Setup, weights: Weights | None = None) -> nn.Module | None:
        """The network for an objective, or all it needs as one, with these weights or with random ones by the seed."""
        if self.settings.prior == NO_PRIOR:
            return None
        with _DRAWING, torch.random.fork_rng(devices=[]):
            torch.manual_seed(setup.generator.initial_seed())
            network = build_priors(self.settings, objective.networks, zero=objective.starts_from_zero)
        if weights is not None:
            network.load_state_dict(weights)
        return network

    def rule_for(self, segment: Segment, setup: Setup, hidden: Tensor | None = None) -> StoppingRule:
        """The stopping rule of a segment, which may know its references, and the indices of ``hidden`` samples.

        Raises:
            SettingsError: It has nothing to go by.
        """
        references = None if segment.references is None else setup.tensor(segment.references)
        samples = setup.tensor(segment.samples)
        return STOPPING_RULES[self.rule](StopContext(self.stft, samples, hidden, references, self.types))

    def record(self, fitted: Fitted, network: nn.Module | None, segment: Segment) -> SegmentFit:
        """What all tasks tell of a fit."""
        return SegmentFit(
            rule=self.rule,
            rule_reason=self.rule_reason,
            parameters=0 if network is None else sum(weights.numel() for weights in network.parameters()),
            best_iteration=fitted.best_iteration,
            stopped_by=fitted.stopped_by,
            seconds=fitted.seconds,
            power=float(np.mean(segment.samples**2)),
            iterations=fitted.iterations,
            validation=fitted.iterations[fitted.best_iteration - 1].validation if fitted.iterations else None,
        )
