"""What the fits of all tasks have in common: what goes in and comes out, the network, and one run of the loop."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from dapcli.audio import Samples
from dapcli.fit import STOPPING_RULES, Fit, Step, StopContext
from dapcli.objectives import Objective
from dapcli.priors import build_prior
from dapcli.priors.independent import IndependentNetworks
from dapcli.priors.unet import UNet
from dapcli.settings import Settings
from dapcli.signal.stft import STFT
from dapcli.tasks.rules import AutomaticRules, choose_rule

#: Weights of a network by name.
Weights = Mapping[str, Tensor]
Report = Callable[[Step], None]

# A network that knows the recording is refined in smaller steps; the usual ones would first unlearn.
_REFINING_RATE = 0.5
# torch draws a network's first weights from a generator that all threads share.
_DRAWING = threading.Lock()


@dataclass(frozen=True)
class Segment:
    """What one fit is given: the recording from ``start`` to ``stop``, in samples of the recording.

    ``samples`` are ``[C, N]`` at the working rate, in double precision. The network starts from ``weights`` and is only
    refined, or from random weights. ``reference`` ``[K * C, N]`` is for the oracle rule.
    """

    samples: Tensor
    start: int
    stop: int
    weights: Weights | None = None
    reference: Tensor | None = None


@dataclass(frozen=True)
class SegmentFit:
    """The fit of one segment, ``start`` to ``stop`` in samples of the recording.

    ``power`` is the mean square of its samples and ``noise_std`` the level of its noise, full scale at 1. A recording
    with a degradation has no noise, but a share of samples of the estimate ``outside`` of what the degradation allows. ``notes``
    tell what did not go well at once.
    """

    rule: str
    rule_reason: str
    best_iteration: int
    stopped_by: str
    seconds: float
    power: float
    parameters: int
    steps: tuple[Step, ...]
    noise_std: float | None = None
    white_noise: bool | None = None
    outside: float | None = None
    notes: tuple[str, ...] = ()
    start: int = 0
    stop: int = 0


@dataclass(frozen=True, kw_only=True)
class Engine(ABC):
    """What all fits to one recording have in common; every task is a subclass.

    ``rate`` is the working rate in Hz, ``dtype`` what convolutions compute in.
    """

    automatic_rules: ClassVar[AutomaticRules]

    settings: Settings
    stft: STFT
    rate: int
    device: torch.device
    dtype: torch.dtype

    @property
    def sources(self) -> int:
        """Number of sources K in an estimate."""
        return 1

    @property
    def iterations(self) -> tuple[int, int]:
        """Iterations at the most for learning from a recording, 0 where :meth:`learn` has no use, and for a segment."""
        return 0, self.settings.iterations

    def needs_fit(self, samples: Samples, start: int) -> bool:
        """Whether a fit has anything to do in samples ``[C, N]`` of the recording that begin at ``start``."""
        del samples, start
        return True

    def learn(self, segments: Sequence[Tensor], report: Report) -> Weights:
        """The weights of one network that was fitted to some segments ``[C, N]`` in turn, for each to start from.

        Raises ``NotImplementedError`` where :attr:`iterations` has none for it: every segment is then fitted anew.
        """
        raise NotImplementedError

    def fit_segment(self, segment: Segment, report: Report) -> tuple[Tensor, SegmentFit]:
        """Fit a network to a segment; returns the estimate ``[K * C, N]`` and its record.

        Raises:
            SettingsError: The stopping rule has nothing to go by.
        """
        estimate, fit = self._estimate(segment, report)
        return estimate, replace(fit, start=segment.start, stop=segment.stop)

    @abstractmethod
    def _estimate(self, segment: Segment, report: Report) -> tuple[Tensor, SegmentFit]:
        """The same as :meth:`fit_segment`; its record need not say where the segment is."""

    def _generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(self.settings.seed)

    def _load(self, samples: Tensor) -> Tensor:
        """Samples as fits take them: in single precision, on the device."""
        return samples.float().to(self.device)

    def _reference(self, segment: Segment) -> Tensor | None:
        return None if segment.reference is None else self._load(segment.reference)

    def _run(
        self,
        observation: Objective,
        context: StopContext,
        generator: torch.Generator,
        report: Report,
        weights: Weights | None = None,
    ) -> tuple[Tensor, SegmentFit]:
        """Run one fit; returns the estimate ``[K * C, 2, F, T]`` and a record of what all tasks tell."""
        settings = self.settings
        name, reason = choose_rule(settings, self.automatic_rules)
        rule = STOPPING_RULES[name](context)
        network = self._build(observation, weights)
        fit = Fit(
            network,
            observation,
            rule,
            iterations=settings.iterations if weights is None else settings.refinement,
            optimizer=settings.optimizer,
            learning_rate=settings.learning_rate * (1.0 if weights is None else _REFINING_RATE),
            annealed=weights is not None,
            averaging=settings.averaging,
            dtype=self.dtype,
            generator=generator,
        )
        steps = []
        for step in fit:
            steps.append(step)
            report(step)
        return fit.estimate, SegmentFit(
            rule=name,
            rule_reason=reason,
            parameters=sum(weights.numel() for weights in network.parameters()),
            best_iteration=fit.best_iteration,
            stopped_by=fit.stopped_by,
            seconds=fit.seconds,
            power=float(context.samples.square().mean()),
            steps=tuple(steps),
        )

    def _build(self, observation: Objective, weights: Weights | None = None) -> UNet | IndependentNetworks:
        """The network for an observation, or all it needs as one, with these weights or with random ones."""
        settings = self.settings
        with _DRAWING, torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            networks = [
                build_prior(
                    settings.prior, *channels, width=settings.width, dilation=settings.dilation, fold=settings.fold
                )
                for channels in observation.networks
            ]
        if observation.starts_from_zero:
            for each in networks:
                torch.nn.init.zeros_(each.head.weight)
                torch.nn.init.zeros_(each.head.bias)  # type: ignore[arg-type]
        network = networks[0] if len(networks) == 1 else IndependentNetworks(networks)
        if weights is not None:
            network.load_state_dict(weights)
        return network
