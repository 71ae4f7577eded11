"""``separate``: a mixture into its sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from dapcli.audio import Recording, Samples
from dapcli.audio.recording import blocks, check_recording
from dapcli.errors import InputError, SettingsError
from dapcli.fit import Report, fit
from dapcli.pipeline.result import Result
from dapcli.pipeline.run import OnStep, Pipeline
from dapcli.pipeline.solver import Segment, SegmentFit, Solver
from dapcli.pipeline.store import Store
from dapcli.settings import Settings
from dapcli.signal.source_types import ANY_TYPE, DEFAULT_TYPES, check_types
from dapcli.signal.sources import ratio_masked
from dapcli.tasks import TASKS
from dapcli.tasks.check import check
from dapcli.tasks.options import SeparateOptions
from dapcli.tasks.problem import Problem


def separate(
    recording: Recording,
    types: Sequence[str] = DEFAULT_TYPES[2],
    settings: Settings | None = None,
    *,
    consistent: bool = True,
    device: str = "auto",
    parallel: int | None = None,
    references: Sequence[Recording] = (),
    on_step: OnStep | None = None,
    store: Store | None = None,
) -> Result:
    """Separate a mixture into sources by fitting untrained networks to it; its ``estimates`` are the sources.

    Args:
        recording: The mixture, ``[C, N]``.
        types: What each of the two to four sources is, see :data:`dapcli.signal.source_types.SOURCE_TYPES`; one type
            may come twice. The estimator ``double-dip`` only counts them.
        settings: What to do; the ``quality`` preset of :data:`dapcli.TASKS` by default.
        consistent: Make the sources sum to the mixture; they always do but with ``double-dip``.
        references: The sources as they were, ``[C, N]`` each, for the ``oracle`` stopping rule only; in any order for
            those of one type.
        device, parallel, on_step, store: As for :func:`dapcli.denoise`.

    Raises:
        SettingsError: A type or a setting is unknown, or they do not go together.
        InputError: The recording is silent, or it or the references cannot be used.
        DeviceError: The device is not there, or its memory does not suffice.
    """
    check_recording(recording)
    task = TASKS["separate"]
    settings = task.presets["quality"] if settings is None else settings
    fields = check(task, settings, recording.rate, device=device, parallel=parallel, references=bool(references))
    any_type = fields["objective"].generates
    check_types(types, any_type=any_type)
    if any_type:
        types = (ANY_TYPE,) * len(types)
    elif not consistent:
        raise SettingsError("--no-consistent belongs to --estimator double-dip; ratio masks always sum to the mixture")
    if not any(block.any() for block in blocks(recording)):
        raise InputError("the mixture is silent; there is nothing to separate")
    solver = Separator(**fields, types=tuple(types), consistent=consistent)
    return Pipeline(recording, solver, references, on_step, store).run(parallel)


def pose(recording: Recording, options: SeparateOptions, path: Path) -> Problem[None]:  # noqa: ARG001
    """The problem of a mixture by the options of the command line."""
    types = options.source_types("")
    # Sources that are generated are made consistent segment by segment.
    fingerprint = {"types": types, "consistent": options.consistent}
    return Problem(recording, types=types, consistent=options.consistent, fingerprint=fingerprint)


@dataclass(frozen=True, kw_only=True)
class Separator(Solver):
    """Separates the segments of a mixture into K sources of its types; they sum to it where they are consistent."""

    consistent: bool = True

    def fit_segments(self, segments: Sequence[Segment], reports: Sequence[Report]) -> list[tuple[Tensor, SegmentFit]]:
        """The sources ``[K, C, N]`` of a segment and the record of their fit."""
        (segment,) = segments
        setup = self.setup()
        objective = self.objective(segment.samples, self.types, setup)
        network, rule = self.build(objective, setup), self.rule_for(segment, setup)
        (fitted,) = fit(network, objective, [rule], self.settings, self.dtype, setup.generator, reports)
        sources, record = fitted.estimate, self.record(fitted, network, segment)
        if self.objective.generates:
            if self.consistent:
                sources = ratio_masked(self.stft.forward(setup.tensor(segment.samples)), sources)
        elif record.validation is not None and not record.validation < 1:
            sources = objective.initial
            note = "the network found no structure, and the classical separation was kept"
            record = replace(record, notes=(note,))
        return [(self.stft.inverse(sources, segment.samples.shape[1]), record)]

    def finalise(self, estimate: Samples, observed: Samples, start: int, gain: float, step: float | None) -> Samples:
        """The sources with the little that they leave of the mixture divided equally among them.

        What integers round off one source is added to the next, so that the written ones sum to the mixture as well.
        """
        sources = super().finalise(estimate, observed, start, gain, step)
        if not self.consistent:
            return sources
        mixture = observed * gain
        sources += (mixture - sources.sum(axis=0)) / len(sources)
        if step:
            rest = np.zeros_like(mixture)
            for source in sources:
                wanted = source + rest
                source[:] = np.round(wanted / step) * step
                rest = wanted - source
        return sources
