"""Fits that remove noise: its spectrum, the samples to hold out, the post-filter, and what one fit leaves to others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dapcli.fit import STOPPING_RULES, Fit, StopContext
from dapcli.objectives import ESTIMATORS, Alternating, Objective
from dapcli.settings import Settings
from dapcli.signal.noise import PROFILE_MARGIN, Noise, estimate_noise, protect
from dapcli.signal.noise_spectrum import Spectrum, noise_std
from dapcli.tasks.postfilter import POST_FILTERS
from dapcli.tasks.rules import DENOISING, choose_rule
from dapcli.tasks.solver import Engine, Report, Segment, SegmentFit, Weights

# Share of the samples that the held-out rule hides from the fit.
_HIDDEN_SHARE = 0.05
_TINY = 1e-30
# Mean gain of bins that are weaker than the noise, beyond which a mask has learned to let all pass: usual is 0.1.
_PASSING = 0.7
_PASSED = "the fit let the noise pass, twice; try --preset generate, or another --seed"
_LIMITED = (
    "little was changed, for what seems to be noise may be the recording's own; "
    "--noise-profile or --attenuation-limit 40 takes more away"
)
#: A network learns on frames so many hops apart, which takes as much less time, and is refined on all.
COARSENESS = 2


def count_iterations(settings: Settings) -> tuple[int, int]:
    """Iterations at the most for learning from a recording with noise, and for each of its segments."""
    rule, _ = choose_rule(settings, DENOISING)
    # A rule that may end a fit early has to see all of it.
    if not settings.refinement or not ESTIMATORS[settings.estimator].masks or STOPPING_RULES[rule].patience:
        return 0, settings.iterations
    return settings.iterations, settings.refinement


@dataclass(frozen=True, kw_only=True)
class Denoiser(Engine):
    """Removes noise from the segments of a recording.

    ``profile`` ``[C, F]`` is the spectrum of a noise profile; without one, every segment's noise is estimated.
    """

    automatic_rules = DENOISING

    profile: Spectrum | None = None

    @property
    def iterations(self) -> tuple[int, int]:
        """Iterations at the most for learning from a recording, and for each of its segments."""
        return count_iterations(self.settings)

    def learn(self, segments: Sequence[Tensor], report: Report) -> Weights:
        """The weights of one network that was fitted to some segments ``[C, N]`` in turn, for each to start from.

        It is fitted on every second frame. Then a fraction of the iterations on all frames is enough, on any segment
        of the recording: also on one that it has not seen, unless what it has seen is nothing but noise. It would
        return silence then, and no refinement brings it back.
        """
        # Between frames further apart than that, samples would be lost.
        stride = COARSENESS if 2 * COARSENESS * self.stft.hop <= self.stft.n_fft else 1
        coarse = replace(self, stft=replace(self.stft, hop=stride * self.stft.hop))
        generator = self._generator()
        observations = [
            coarse._observe(self._load(samples), self._noise(samples).every(stride), generator) for samples in segments
        ]
        network = self._build(observations[0])
        fit = Fit(
            network,
            Alternating(observations, self.settings.seed),
            STOPPING_RULES["fixed"](StopContext(coarse.stft, segments[0])),
            iterations=self.settings.iterations,
            optimizer=self.settings.optimizer,
            learning_rate=self.settings.learning_rate,
            averaging=0.0,
            dtype=self.dtype,
            generator=generator,
        )
        for step in fit:
            report(step)
        return {name: weights.cpu() for name, weights in network.state_dict().items()}

    def _estimate(self, segment: Segment, report: Report) -> tuple[Tensor, SegmentFit]:
        samples, generator = self._load(segment.samples), self._generator()
        noise = self._noise(segment.samples)
        mean = noise.power.mean(dim=2)
        hidden = None
        if STOPPING_RULES[choose_rule(self.settings, DENOISING)[0]].needs == "hidden":
            hidden = _hidden_samples(samples.shape[1], self.settings.seed).to(self.device)
        visible = samples if hidden is None else _hide(samples, hidden)
        observation = self._observe(visible, noise, generator)
        context = StopContext(self.stft, samples, mean, hidden, self._reference(segment))
        estimate, fit = self._run(observation, context, generator, report, segment.weights)
        observed = self.stft.forward(samples)
        if ESTIMATORS[self.settings.estimator].masks:
            notes: list[str] = []
            if _lets_noise_pass(estimate, observed, noise):
                settings = replace(self.settings, seed=(self.settings.seed + 1) % 2**63)
                observation, done = self._observe(visible, noise, generator), fit.steps[-1]
                # Progress stays where it is, and a thread that is to stop still learns of it.
                estimate, fit = replace(self, settings=settings)._run(
                    observation, context, generator, lambda _: report(done)
                )
                failed = _lets_noise_pass(estimate, observed, noise)
                notes.append(
                    _PASSED if failed else f"the fit let the noise pass; fitted again with seed {settings.seed}"
                )
            estimate, limited = self._limit(estimate, observed, noise)
            fit = replace(fit, notes=(*notes, *limited))
        level = noise_std(mean.double().cpu().numpy(), self.stft) / (PROFILE_MARGIN**0.5 if noise.known else 1)
        fit = replace(fit, noise_std=level, white_noise=noise.white)
        filtered = POST_FILTERS[self.settings.post_filter](estimate, observed, noise.power)
        return self.stft.inverse(filtered, samples.shape[1]), fit

    def _limit(self, estimate: Tensor, observed: Tensor, noise: Noise) -> tuple[Tensor, tuple[str, ...]]:
        """An estimate that is a recording with gains, both ``[C, 2, F, T]``, with more left of it; and notes."""
        power, gain = observed.square().sum(dim=1), _gain(estimate, observed)
        if self.settings.attenuation_limit is None:
            gain, limited = protect(gain, power, noise, self.rate / self.stft.n_fft)
            return gain[:, None] * observed, (_LIMITED,) if limited else ()
        return gain.clamp(min=10 ** (-self.settings.attenuation_limit / 20))[:, None] * observed, ()

    def _noise(self, samples: Tensor) -> Noise:
        """The noise of samples ``[C, N]``, on the device."""
        model = self.settings.noise_model
        return estimate_noise(self.stft, samples.float().cpu(), self.rate, model, self.profile).to(self.device)

    def _observe(self, samples: Tensor, noise: Noise, generator: torch.Generator) -> Objective:
        return ESTIMATORS[self.settings.estimator](
            samples, self.stft, noise, perturbation=self.settings.perturbation, generator=generator
        )


def _gain(estimate: Tensor, observed: Tensor) -> Tensor:
    """The gains ``[C, F, T]`` of a masked recording; both are ``[C, 2, F, T]``."""
    return (estimate.square().sum(dim=1) / observed.square().sum(dim=1).clamp(min=_TINY)).sqrt()


def _lets_noise_pass(estimate: Tensor, observed: Tensor, noise: Noise) -> bool:
    """Whether the bins of a masked recording that are weaker than its noise have passed."""
    quiet = observed.square().sum(dim=1) < noise.power
    return bool(quiet.any()) and float(_gain(estimate, observed)[quiet].mean()) > _PASSING


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
