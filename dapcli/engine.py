"""A network fitted to one segment of a recording, or to several in turn: where all parts of dap meet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dapcli import noise
from dapcli.damage import TOLERANCE, Damage
from dapcli.fitting import STOPPING_RULES, Fit, Step, StopContext, StoppingRule
from dapcli.observations import ESTIMATORS, REPAIR_ESTIMATORS, SEPARATION_ESTIMATORS, Alternating, Observation
from dapcli.observations.mixed import MixedObservation
from dapcli.observations.shared import SharedObservation
from dapcli.postfilter import POST_FILTERS
from dapcli.priors import build_prior
from dapcli.priors.several import SideBySide
from dapcli.priors.unet import UNet
from dapcli.settings import Settings
from dapcli.sources import levels, share_out
from dapcli.spectral import STFT

#: Weights of a network by name.
Weights = Mapping[str, Tensor]
Report = Callable[[Step], None]

# Share of the samples that the held-out rule hides from the fit.
_HIDDEN_SHARE = 0.05
#: A network learns on frames so many hops apart, which takes as much less time, and is refined on all.
COARSENESS = 2
# A network that knows the recording is refined in smaller steps; the usual ones would first unlearn.
_REFINING_RATE = 0.5
# torch draws a network's first weights from a generator that all threads share.
_DRAWING = threading.Lock()
# Sources that are painted out of noise are fitted with so many seeds, at the most, until none is silent: has less than
# this share of the energy of all. Of all sources and not of the mixture, for a fit that has only begun is no collapse.
_SEEDS = 4
_SILENT = 0.01


@dataclass(frozen=True)
class SegmentFit:
    """The fit of one segment, ``start`` to ``stop`` in samples of the recording.

    ``power`` is the mean square of its samples and ``noise_std`` the level of its noise, full scale at 1. A recording
    with a damage has no noise, but a share of samples of the estimate ``outside`` of what the damage allows. ``notes``
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


@dataclass(frozen=True)
class Engine:
    """What all fits to one recording have in common.

    ``profile`` ``[C, F]`` is the spectrum of a noise profile; without one, every segment's noise is estimated. With a
    ``damage``, that is repaired in place of noise; with ``kinds``, the recording is separated into sources of these
    kinds, which the estimates then hold one after the other, ``[K * C, N]``, and which sum to the recording where they
    are ``consistent``. ``graph`` runs the iterations of a segment as CUDA graphs.
    """

    settings: Settings
    stft: STFT
    rate: int
    device: torch.device
    dtype: torch.dtype
    profile: noise.Spectrum | None = None
    damage: Damage | None = None
    kinds: tuple[str, ...] = ()
    consistent: bool = True
    graph: bool = False

    @property
    def sources(self) -> int:
        """Number of sources K in an estimate."""
        return max(len(self.kinds), 1)

    def fit_segment(
        self,
        samples: Tensor,
        span: tuple[int, int],
        *,
        weights: Weights | None,
        reference: Tensor | None,
        report: Report,
    ) -> tuple[Tensor, SegmentFit]:
        """Fit a network to samples ``[C, N]`` in double precision; returns the estimate ``[K * C, N]`` and its record.

        ``span`` is where the samples start and stop in the recording. The network starts from ``weights`` and is only
        refined, or from random weights. ``reference`` ``[K * C, N]`` is for the oracle rule.
        """
        clean = None if reference is None else reference.float().to(self.device)
        if self.kinds:
            estimate, fit = self._separate(samples, clean, report)
        elif self.damage is not None:
            estimate, fit = self._repair(samples, self.damage.part(*span), clean, report)
        else:
            estimate, fit = self._remove_noise(samples.float().to(self.device), weights, clean, report)
        return estimate, replace(fit, start=span[0], stop=span[1])

    def _remove_noise(
        self, samples: Tensor, weights: Weights | None, clean: Tensor | None, report: Report
    ) -> tuple[Tensor, SegmentFit]:
        settings, stft = self.settings, self.stft
        generator = self._generator()
        spectrum = self._noise_spectrum(samples)
        expected = self._expected_noise(spectrum)
        rule_class = STOPPING_RULES[choose_rule(settings)[0]]
        hidden = (
            _hidden_samples(samples.shape[1], settings.seed).to(self.device) if rule_class.needs == "hidden" else None
        )
        rule = rule_class(StopContext(stft, samples, expected, hidden, clean))
        observation = self._observe(samples if hidden is None else _hide(samples, hidden), expected, generator)
        fit, record = self._fit(observation, rule, samples, weights, generator, report)
        filtered = POST_FILTERS[settings.post_filter](fit.estimate, stft.forward(samples), expected)
        return stft.inverse(filtered, samples.shape[1]), replace(
            record, noise_std=noise.noise_std(spectrum, stft), white_noise=noise.is_white(spectrum)
        )

    def _repair(
        self, samples: Tensor, damage: Damage, clean: Tensor | None, report: Report
    ) -> tuple[Tensor, SegmentFit]:
        generator = self._generator()
        observation = REPAIR_ESTIMATORS[self.settings.estimator](
            samples.numpy(), self.stft, damage, self.rate, perturbation=self.settings.perturbation, generator=generator
        )
        rehearse = observation.rehearse if isinstance(observation, MixedObservation) else None
        context = StopContext(self.stft, samples.float(), reference=clean, rehearse=rehearse)
        rule = STOPPING_RULES[choose_rule(self.settings, repairs=True)[0]](context)
        fit, record = self._fit(observation, rule, samples, None, generator, report)
        estimate = self.stft.inverse(fit.estimate, samples.shape[1])
        observed = samples.numpy()
        restored = damage.finish(estimate.double().cpu().numpy(), observed, self.rate, self.settings.seed)
        outside = np.abs(damage.project(restored, observed) - restored) > TOLERANCE
        return torch.from_numpy(restored), replace(record, outside=float(outside.mean()))

    def _separate(self, samples: Tensor, clean: Tensor | None, report: Report) -> tuple[Tensor, SegmentFit]:
        if SEPARATION_ESTIMATORS[self.settings.estimator].generates:
            sources, fit = self._fit_audible_sources(samples, clean, report)
            if self.consistent:
                sources = share_out(self.stft.forward(samples.float().to(self.device)), sources)
        else:
            sources, fit = self._fit_sources(samples, clean, report)
        return self.stft.inverse(sources, samples.shape[1]), fit

    def _fit_audible_sources(self, samples: Tensor, clean: Tensor | None, report: Report) -> tuple[Tensor, SegmentFit]:
        """Sources ``[K * C, 2, F, T]``, fitted with further seeds as long as one is silent."""
        seeds = [(self.settings.seed + index) % 2**63 for index in range(_SEEDS)]
        fits: list[tuple[float, Tensor, SegmentFit]] = []
        notes: list[str] = []
        for seed in seeds:
            engine = replace(self, settings=replace(self.settings, seed=seed))
            if fits:
                notes[-1] += f"; fitted again with seed {seed}"
            sources, fit = engine._fit_sources(samples, clean, report)
            heard = levels(sources, self.sources)
            fits.append((float(heard.min()), sources, fit))
            if heard.min() >= _SILENT:
                break
            notes.append(f"source {int(heard.argmin()) + 1} was silent")
        best = max(range(len(fits)), key=lambda index: fits[index][0])
        level, sources, fit = fits[best]
        if level < _SILENT:
            notes[-1] += f"; the fit with seed {seeds[best]} is kept"
        seconds = sum(each.seconds for _, _, each in fits)
        return sources, replace(fit, seconds=seconds, notes=tuple(notes))

    def _fit_sources(self, samples: Tensor, clean: Tensor | None, report: Report) -> tuple[Tensor, SegmentFit]:
        """One fit of the sources ``[K * C, 2, F, T]``."""
        generator = self._generator()
        observation = SEPARATION_ESTIMATORS[self.settings.estimator](
            samples.numpy(),
            self.stft,
            self.kinds,
            self.rate,
            iterations=self.settings.iterations,
            perturbation=self.settings.perturbation,
            generator=generator,
        )
        context = StopContext(self.stft, samples.float(), reference=clean, kinds=self.kinds)
        rule = STOPPING_RULES[choose_rule(self.settings)[0]](context)
        fit, record = self._fit(observation, rule, samples, None, generator, report)
        if isinstance(observation, SharedObservation) and not observation.has_learned():
            note = "the network found no structure, and the classical separation was kept"
            return observation.spectrogram, replace(record, notes=(note,))
        return fit.estimate, record

    def _fit(
        self,
        observation: Observation,
        rule: StoppingRule,
        samples: Tensor,
        weights: Weights | None,
        generator: torch.Generator,
        report: Report,
    ) -> tuple[Fit, SegmentFit]:
        """Run one fit; its record does not yet say what was wrong with the samples, and where they are."""
        settings = self.settings
        rule_name, reason = choose_rule(settings, repairs=self.damage is not None)
        network = self._build(observation, weights)
        fit = Fit(
            network,
            observation,
            rule,
            iterations=settings.iterations if weights is None else settings.refinement,
            learning_rate=settings.learning_rate * (1.0 if weights is None else _REFINING_RATE),
            averaging=settings.averaging,
            dtype=self.dtype,
            generator=generator,
            graph=self.graph,
        )
        steps = []
        for step in fit:
            steps.append(step)
            report(step)
        return fit, SegmentFit(
            rule=rule_name,
            rule_reason=reason,
            parameters=sum(weights.numel() for weights in network.parameters()),
            best_iteration=fit.best_iteration,
            stopped_by=fit.stopped_by,
            seconds=fit.seconds,
            power=float(samples.square().mean()),
            steps=tuple(steps),
        )

    def learn(self, segments: Sequence[Tensor], report: Report) -> Weights:
        """The weights of one network that was fitted to some segments ``[C, N]`` in turn, for each to start from.

        It is fitted on every second frame. Then a fraction of the iterations on all frames is enough, on any segment
        of the recording: also on one that it has not seen, unless what it has seen is nothing but noise. It would
        return silence then, and no refinement brings it back.
        """
        hop = COARSENESS * self.stft.hop
        if 2 * hop > self.stft.n_fft:  # samples between frames would be lost
            hop = self.stft.hop
        return replace(self, stft=replace(self.stft, hop=hop))._learn(segments, report)

    def _learn(self, segments: Sequence[Tensor], report: Report) -> Weights:
        generator = self._generator()
        spectra = [self._expected_noise(self._noise_spectrum(samples.float())) for samples in segments]
        observations = [
            self._observe(samples.float().to(self.device), spectrum, generator)
            for samples, spectrum in zip(segments, spectra, strict=True)
        ]
        network = self._build(observations[0], None)
        fit = Fit(
            network,
            Alternating(observations, self.settings.seed),
            STOPPING_RULES["fixed"](StopContext(self.stft, segments[0])),
            iterations=self.settings.iterations,
            learning_rate=self.settings.learning_rate,
            averaging=0.0,
            dtype=self.dtype,
            generator=generator,
        )
        for step in fit:
            report(step)
        return {name: weights.cpu() for name, weights in network.state_dict().items()}

    def _generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(self.settings.seed)

    def _noise_spectrum(self, samples: Tensor) -> noise.Spectrum:
        """The noise spectrum ``[C, F]`` of samples ``[C, N]``: the profile's, or estimated from them."""
        if self.profile is not None:
            return self.profile
        return noise.estimate_spectrum(self.stft, samples.cpu(), self.rate)

    def _expected_noise(self, spectrum: noise.Spectrum) -> Tensor:
        """A noise spectrum ``[C, F]`` as fits take it."""
        margin = 1.0 if self.profile is None else noise.PROFILE_MARGIN
        return torch.from_numpy(margin * spectrum).float().to(self.device)

    def _observe(self, samples: Tensor, spectrum: Tensor, generator: torch.Generator) -> Observation:
        return ESTIMATORS[self.settings.estimator](
            samples, self.stft, spectrum, perturbation=self.settings.perturbation, generator=generator
        )

    def _build(self, observation: Observation, weights: Weights | None) -> UNet | SideBySide:
        """The network for an observation, or all it needs as one, with these weights or with random ones."""
        settings = self.settings
        with _DRAWING, torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            networks = [
                build_prior(settings.prior, *channels, width=settings.width, dilation=settings.dilation)
                for channels in observation.networks
            ]
        if observation.starts_from_zero:
            for each in networks:
                torch.nn.init.zeros_(each.head.weight)
                torch.nn.init.zeros_(each.head.bias)  # type: ignore[arg-type]
        network = networks[0] if len(networks) == 1 else SideBySide(networks)
        if weights is not None:
            network.load_state_dict(weights)
        return network


def choose_rule(settings: Settings, *, repairs: bool = False) -> tuple[str, str]:
    """The stopping rule to use, and why: the one that was asked for, or what measured best (docs/results.md)."""
    if settings.stop != "auto":
        return settings.stop, "asked for"
    if settings.estimator == "mix":
        return "rehearsal", "what the network learns from some exercises must help with others"
    if settings.estimator == "share":
        return "fixed", "the structure of a separation is learned in the first iterations, its errors later"
    if settings.estimator == "paper":
        return "fixed", "a mixture has no noise that the networks could take up"
    if settings.estimator == "mask":
        return "fixed", "a mask is fitted to its own estimated error and hardly takes up noise"
    if repairs:
        return "fixed", "there is no noise that the network could take up"
    return "held-out", "samples that the fit has not seen tell sound from noise"


def _hidden_samples(length: int, seed: int) -> Tensor:
    """Sorted random indices of samples to hide, no two of them neighbours, none at the ends."""
    candidates = np.arange(1, length - 1, 2)
    count = min(len(candidates), round(length * _HIDDEN_SHARE))
    chosen = np.random.default_rng(seed).choice(candidates, count, replace=False)
    return torch.from_numpy(np.sort(chosen))


def _hide(samples: Tensor, hidden: Tensor) -> Tensor:
    """Samples ``[C, N]`` with the hidden ones replaced by the mean of their neighbours."""
    samples = samples.clone()
    samples[:, hidden] = (samples[:, hidden - 1] + samples[:, hidden + 1]) / 2
    return samples
