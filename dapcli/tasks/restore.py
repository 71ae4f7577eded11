"""Fits that restore what a recording has lost, within what its degradation allows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dapcli.audio import Samples
from dapcli.fit import StopContext
from dapcli.objectives import REPAIR_ESTIMATORS
from dapcli.objectives.ensemble import Ensemble
from dapcli.signal.degradation import TOLERANCE, Degradation
from dapcli.tasks.rules import REPAIRING
from dapcli.tasks.solver import Engine, Report, Segment, SegmentFit


@dataclass(frozen=True, kw_only=True)
class Repairer(Engine):
    """Restores what the segments of a recording with a ``degradation`` have lost, at the recording's own rate."""

    automatic_rules = REPAIRING

    degradation: Degradation

    def needs_fit(self, samples: Samples, start: int) -> bool:
        """Whether anything is damaged in samples ``[C, N]`` of the recording that begin at ``start``."""
        return self.degradation.part(start, start + samples.shape[1]).affects(samples)

    def _estimate(self, segment: Segment, report: Report) -> tuple[Tensor, SegmentFit]:
        samples, degradation = segment.samples, self.degradation.part(segment.start, segment.stop)
        observed, generator = samples.numpy(), self._generator()
        observation = REPAIR_ESTIMATORS[self.settings.estimator](
            observed, self.stft, degradation, self.rate, perturbation=self.settings.perturbation, generator=generator
        )
        validate = observation.validate if isinstance(observation, Ensemble) else None
        context = StopContext(self.stft, samples.float(), reference=self._reference(segment), validate=validate)
        spectrogram, fit = self._run(observation, context, generator, report)
        estimate = self.stft.inverse(spectrogram, samples.shape[1])
        restored = degradation.add_texture(estimate.double().cpu().numpy(), observed, self.rate, self.settings.seed)
        outside = np.abs(degradation.project(restored, observed) - restored) > TOLERANCE
        return torch.from_numpy(restored), replace(fit, outside=float(outside.mean()))
