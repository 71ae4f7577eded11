"""Fits that restore what a recording has lost, within what its damage allows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dapcli.audio import Samples
from dapcli.damage import TOLERANCE, Damage
from dapcli.engine.core import Engine, Report, Segment, SegmentFit
from dapcli.engine.rules import REPAIRING
from dapcli.fitting import StopContext
from dapcli.observations import REPAIR_ESTIMATORS
from dapcli.observations.mixed import MixedObservation


@dataclass(frozen=True, kw_only=True)
class Repairer(Engine):
    """Restores what the segments of a recording with a ``damage`` have lost, at the recording's own rate."""

    automatic_rules = REPAIRING

    damage: Damage

    def needs_fit(self, samples: Samples, start: int) -> bool:
        """Whether anything is damaged in samples ``[C, N]`` of the recording that begin at ``start``."""
        return self.damage.part(start, start + samples.shape[1]).touches(samples)

    def _estimate(self, segment: Segment, report: Report) -> tuple[Tensor, SegmentFit]:
        samples, damage = segment.samples, self.damage.part(segment.start, segment.stop)
        observed, generator = samples.numpy(), self._generator()
        observation = REPAIR_ESTIMATORS[self.settings.estimator](
            observed, self.stft, damage, self.rate, perturbation=self.settings.perturbation, generator=generator
        )
        rehearse = observation.rehearse if isinstance(observation, MixedObservation) else None
        context = StopContext(self.stft, samples.float(), reference=self._reference(segment), rehearse=rehearse)
        spectrogram, fit = self._run(observation, context, generator, report)
        estimate = self.stft.inverse(spectrogram, samples.shape[1])
        restored = damage.finish(estimate.double().cpu().numpy(), observed, self.rate, self.settings.seed)
        outside = np.abs(damage.project(restored, observed) - restored) > TOLERANCE
        return torch.from_numpy(restored), replace(fit, outside=float(outside.mean()))
