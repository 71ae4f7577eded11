"""Fits that separate a mixture, with further seeds where a source stays silent."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from dapcli.fit import StopContext
from dapcli.objectives import SEPARATION_ESTIMATORS
from dapcli.objectives.ratio_mask import RatioMask
from dapcli.signal.sources import levels, ratio_masked
from dapcli.tasks.rules import SEPARATING
from dapcli.tasks.solver import Engine, Report, Segment, SegmentFit

# Sources that are painted out of noise are fitted with so many seeds, at the most, until none is silent: has less than
# this share of the energy of all. Of all sources and not of the mixture, for a fit that has only begun is no collapse.
_SEEDS = 4
_SILENT = 0.01


@dataclass(frozen=True, kw_only=True)
class Separator(Engine):
    """Separates the segments of a mixture into K sources of these ``kinds``.

    Estimates hold them one after the other, ``[K * C, N]``; they sum to the mixture where they are ``consistent``.
    """

    automatic_rules = SEPARATING

    kinds: tuple[str, ...]
    consistent: bool = True

    @property
    def sources(self) -> int:
        """Number of sources K in an estimate."""
        return len(self.kinds)

    def _estimate(self, segment: Segment, report: Report) -> tuple[Tensor, SegmentFit]:
        if SEPARATION_ESTIMATORS[self.settings.estimator].generates:
            sources, fit = self._fit_audible_sources(segment, report)
            if self.consistent:
                mixture = self.stft.forward(self._load(segment.samples))
                sources = ratio_masked(mixture, sources.reshape(self.sources, -1, *sources.shape[1:])).flatten(0, 1)
        else:
            sources, fit = self._fit_sources(segment, report)
        return self.stft.inverse(sources, segment.samples.shape[1]), fit

    def _fit_audible_sources(self, segment: Segment, report: Report) -> tuple[Tensor, SegmentFit]:
        """Sources ``[K * C, 2, F, T]``, fitted with further seeds as long as one is silent."""
        seeds = [(self.settings.seed + index) % 2**63 for index in range(_SEEDS)]
        fits: list[tuple[float, Tensor, SegmentFit]] = []
        notes: list[str] = []
        for seed in seeds:
            if fits:
                notes[-1] += f"; fitted again with seed {seed}"
            sources, fit = replace(self, settings=replace(self.settings, seed=seed))._fit_sources(segment, report)
            heard = levels(sources.reshape(self.sources, -1, *sources.shape[1:]))
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

    def _fit_sources(self, segment: Segment, report: Report) -> tuple[Tensor, SegmentFit]:
        """One fit of the sources ``[K * C, 2, F, T]``."""
        generator = self._generator()
        observation = SEPARATION_ESTIMATORS[self.settings.estimator](
            segment.samples.numpy(),
            self.stft,
            self.kinds,
            self.rate,
            iterations=self.settings.iterations,
            perturbation=self.settings.perturbation,
            generator=generator,
        )
        reference = self._reference(segment)
        context = StopContext(self.stft, segment.samples.float(), reference=reference, kinds=self.kinds)
        sources, fit = self._run(observation, context, generator, report)
        if isinstance(observation, RatioMask) and not observation.has_learned():
            note = "the network found no structure, and the classical separation was kept"
            return observation.spectrogram, replace(fit, notes=(note,))
        return sources, fit
