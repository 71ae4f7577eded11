"""Fits that remove noise: its spectrum, the samples to hold out, the post-filter, and what one fit leaves to others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dapcli import noise
from dapcli.engine.core import Engine, Report, Segment, SegmentFit, Weights
from dapcli.engine.rules import DENOISING, choose_rule
from dapcli.fitting import STOPPING_RULES, Fit, StopContext
from dapcli.observations import ESTIMATORS, Alternating, Observation
from dapcli.postfilter import POST_FILTERS
from dapcli.settings import Settings

# Share of the samples that the held-out rule hides from the fit.
_HIDDEN_SHARE = 0.05
#: A network learns on frames so many hops apart, which takes as much less time, and is refined on all.
COARSENESS = 2


def count_iterations(settings: Settings) -> tuple[int, int]:
    """Iterations at the most for learning from a recording with noise, and for each of its segments."""
    rule, _ = choose_rule(settings, DENOISING)
    # A rule that may end a fit early has to see all of it.
    if not settings.refinement or not ESTIMATORS[settings.estimator].transfers or STOPPING_RULES[rule].patience:
        return 0, settings.iterations
    return settings.iterations, settings.refinement


@dataclass(frozen=True, kw_only=True)
class Denoiser(Engine):
    """Removes noise from the segments of a recording.

    ``profile`` ``[C, F]`` is the spectrum of a noise profile; without one, every segment's noise is estimated.
    """

    automatic_rules = DENOISING

    profile: noise.Spectrum | None = None

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
        hop = COARSENESS * self.stft.hop
        if 2 * hop > self.stft.n_fft:  # samples between frames would be lost
            hop = self.stft.hop
        return replace(self, stft=replace(self.stft, hop=hop))._learn(segments, report)

    def _learn(self, segments: Sequence[Tensor], report: Report) -> Weights:
        generator = self._generator()
        spectra = [self._expected_noise(self._noise_spectrum(samples.float())) for samples in segments]
        observations = [
            self._observe(self._load(samples), spectrum, generator)
            for samples, spectrum in zip(segments, spectra, strict=True)
        ]
        network = self._build(observations[0])
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

    def _estimate(self, segment: Segment, report: Report) -> tuple[Tensor, SegmentFit]:
        samples, generator = self._load(segment.samples), self._generator()
        spectrum = self._noise_spectrum(samples)
        expected = self._expected_noise(spectrum)
        hidden = None
        if STOPPING_RULES[choose_rule(self.settings, DENOISING)[0]].needs == "hidden":
            hidden = _hidden_samples(samples.shape[1], self.settings.seed).to(self.device)
        observation = self._observe(samples if hidden is None else _hide(samples, hidden), expected, generator)
        context = StopContext(self.stft, samples, expected, hidden, self._reference(segment))
        estimate, fit = self._run(observation, context, generator, report, segment.weights)
        filtered = POST_FILTERS[self.settings.post_filter](estimate, self.stft.forward(samples), expected)
        return self.stft.inverse(filtered, samples.shape[1]), replace(
            fit, noise_std=noise.noise_std(spectrum, self.stft), white_noise=noise.is_white(spectrum)
        )

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
