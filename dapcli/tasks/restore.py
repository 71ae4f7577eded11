"""``restore``: recordings that lost samples (inpaint), peaks (declip) or levels (dequantize)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dapcli.audio import Recording, Samples
from dapcli.audio.recording import check_recording
from dapcli.audio.view import View
from dapcli.errors import InputError
from dapcli.fit import Report, fit
from dapcli.pipeline.result import Result
from dapcli.pipeline.run import OnStep, Pipeline
from dapcli.pipeline.solver import Segment, SegmentFit, Solver
from dapcli.pipeline.store import Store
from dapcli.settings import Settings
from dapcli.signal.clipping import Clipping, clipping_at, detect_clipping
from dapcli.signal.degradation import TOLERANCE, Degradation
from dapcli.signal.gaps import list_intervals, make_gaps, parse_gap, read_mask, warn_of_long
from dapcli.signal.gaps_detection import DEFAULT_MIN_GAP, detect_gaps
from dapcli.signal.missing import Missing
from dapcli.signal.quantization import MOST_DETECTED, Quantization, detect_quantization, quantization_of
from dapcli.tasks import TASKS
from dapcli.tasks.check import check
from dapcli.tasks.options import BY_HAND, DeclipOptions, DequantizeOptions, InpaintOptions
from dapcli.tasks.problem import Problem

# A fraction of clipped samples that recordings hardly ever have.
_UNUSUAL = 0.5
# Sound beside what is degraded that the prior is fitted to as well, s: training pairs are made there.
_AROUND_S = 1.0


def restore(
    recording: Recording,
    degradation: Degradation,
    settings: Settings | None = None,
    *,
    consistent: bool = True,
    device: str = "auto",
    parallel: int | None = None,
    references: Sequence[Recording] = (),
    on_step: OnStep | None = None,
    store: Store | None = None,
) -> Result:
    """Restore what a recording has lost: missing, clipped or quantized samples.

    Segments that the degradation does not affect are copied; a network is fitted to each of the others.

    Args:
        recording: The degraded recording, ``[C, N]``.
        degradation: What happened to it.
        settings: What to do; the ``quality`` preset of the degradation's task by default.
        consistent: Move the estimate to where the degradation allows it: samples that are known come back bit by bit.
        device, parallel, references, on_step, store: As for :func:`dapcli.denoise`, whose errors it raises, too.
    """
    check_recording(recording)
    if not isinstance(degradation, Degradation):
        raise InputError(
            f"the degradation is of type {type(degradation).__name__}; give Missing(gaps), or Clipping or Quantization "
            "where one was detected"
        )
    degradation.check(recording)
    task = TASKS[degradation.task]
    settings = task.presets["quality"] if settings is None else settings
    fields = check(task, settings, recording.rate, device=device, parallel=parallel, references=bool(references))
    solver = Restorer(**fields, degradation=degradation, consistent=consistent)
    return Pipeline(recording, solver, references, on_step, store).run(parallel)


@dataclass(frozen=True, kw_only=True)
class Restorer(Solver):
    """Restores what the segments of a recording have lost to a ``degradation``, at the recording's own rate.

    Its estimates are ``consistent`` with what is known of the recording if that is true; samples that are off by less
    than the ``tolerance`` count as that.
    """

    degradation: Degradation
    consistent: bool = True
    tolerance: float = TOLERANCE

    def alike(self, one: int, other: int, sign: int) -> bool:
        """Whether two channels that are equal, with this sign, are degraded alike."""
        return self.degradation.alike(one, other, sign)

    def for_view(self, view: View) -> Restorer:
        """The solver with the degradation of what a view shows."""
        return replace(self, degradation=self.degradation.for_view(view), tolerance=view.gain * self.tolerance)

    def needs_fit(self, samples: Samples, start: int) -> bool:
        """Whether anything is degraded in samples ``[C, N]`` of the recording that begin at ``start``."""
        return bool(self.degradation.part(start, start + samples.shape[1]).affected(samples).any())

    def fit_segments(self, segments: Sequence[Segment], reports: Sequence[Report]) -> list[tuple[Tensor, SegmentFit]]:
        """The restored segment ``[1, C, N]`` and its record.

        A prior that weighs restorations is fitted to the stretch that the degradation affects, and what is beside it;
        one that paints, to the whole segment, as in the papers.
        """
        (segment,), (report,) = segments, reports
        whole = self.degradation.part(segment.start, segment.stop).affected(segment.samples)
        places = np.flatnonzero(whole.any(axis=0))
        around = whole.shape[1] if self.objective.generates else round(_AROUND_S * self.rate)
        first, last = max(places[0] - around, 0), min(places[-1] + around + 1, whole.shape[1])
        stretch = replace(
            segment,
            samples=segment.samples[:, first:last],
            start=segment.start + first,
            stop=segment.start + last,
            references=None if segment.references is None else segment.references[..., first:last],
        )
        degradation = self.degradation.part(stretch.start, stretch.stop)
        observed, setup = stretch.samples, self.setup()
        objective = self.objective(observed, degradation, setup)
        network, rule = self.build(objective, setup), self.rule_for(stretch, setup)
        (fitted,) = fit(network, objective, [rule], self.settings, self.dtype, setup.generator, [report])
        plain = self.stft.inverse(fitted.estimate[0], observed.shape[1]).double().cpu().numpy()
        restored = plain
        if not self.objective.generates:
            restored = degradation.add_texture(plain, observed, self.rate, self.settings.seed)
        inconsistent = np.abs(degradation.project(restored, observed) - restored) > self.tolerance
        record = self.record(fitted, network, stretch)
        estimate = segment.samples.copy()
        estimate[:, first:last] = restored
        record = replace(record, inconsistent=float(inconsistent.sum() / whole.size))
        return [(torch.from_numpy(estimate)[None], record)]

    def finalise(self, estimate: Samples, observed: Samples, start: int, gain: float, step: float | None) -> Samples:
        """The estimate with what is known put back."""
        if self.consistent:
            part = self.degradation.part(start, start + observed.shape[1])
            estimate = part.project(estimate[0], observed)[None]
        return super().finalise(estimate, observed, start, gain, step)


def pose_gaps(recording: Recording, options: InpaintOptions, path: Path) -> Problem[Missing]:
    """The problem of a recording with gaps out of the one source that was given.

    Raises:
        SettingsError: What was given is not a gap.
        InputError: There are no gaps, or they do not go with the recording.
    """
    if options.gap:
        gaps, notes = make_gaps([parse_gap(text, recording.rate) for text in options.gap], recording)
    elif options.mask:
        gaps, notes = read_mask(options.mask, recording)
        if not gaps:
            raise InputError(
                f"{options.mask}: nothing is missing by this mask; give another, or gaps with --gap START:END"
            )
    else:
        shortest = DEFAULT_MIN_GAP if options.min_gap is None else options.min_gap
        gaps, notes = detect_gaps(recording, shortest, each=options.dry_run)
        if not gaps:
            reasons = f" ({'; '.join(notes)})" if notes else ""
            raise InputError(f"{path}: no gaps were detected{reasons}; {BY_HAND}")
    return Problem(
        recording,
        Missing(gaps),
        consistent=options.consistent,
        source="given" if options.gap else "mask" if options.mask else "detected",
        notes=(*notes, *warn_of_long(gaps, recording)),
        fingerprint={"gaps": list_intervals(gaps)},
    )


def pose_clipping(recording: Recording, options: DeclipOptions, path: Path) -> Problem[Degradation]:
    """The problem of a clipped recording: at a level, or as detected.

    Raises:
        SettingsError: The level is out of range.
        InputError: Nothing is clipped, or the recording is rather quantized.
    """
    level = options.level
    if level is None and detect_quantization(recording):
        raise InputError(
            f"{path}: is quantized to a few levels, so that clipping cannot be detected; use dap dequantize, "
            "or give the level of clipping with --level"
        )
    clipping = detect_clipping(recording) if level is None else clipping_at(level, recording)
    if clipping is None:
        raise InputError(
            f"{path}: no clipping was detected (where nearly all samples are at the highest value, it is rather a "
            "square wave); if it is clipped, give the level with --level"
        )
    problem = _pose_bounded(recording, clipping, options.consistent, given=level is not None)
    share = clipping.describe(recording)["clipped"]
    if level is not None or share < _UNUSUAL:
        return problem
    note = f"{share:.0%} of the samples look clipped; if the sound is meant to be so, as a synthesizer's, leave it"
    return replace(problem, notes=(note,))


def pose_quantization(recording: Recording, options: DequantizeOptions, path: Path) -> Problem[Degradation]:
    """The problem of a quantized recording: of so many levels, or as detected.

    Raises:
        SettingsError: The number of levels is out of range.
        InputError: The recording does not have these levels, or any that can be detected.
    """
    levels = options.levels
    quantization = detect_quantization(recording) if levels is None else quantization_of(levels, recording)
    if quantization is None:
        raise InputError(
            f"{path}: no quantization to {MOST_DETECTED} levels or fewer was detected; "
            "if it is quantized, give the number of levels with --levels"
        )
    return _pose_bounded(recording, quantization, options.consistent, given=levels is not None)


def _pose_bounded(
    recording: Recording, degradation: Clipping | Quantization, consistent: bool, *, given: bool
) -> Problem[Degradation]:
    source = "given" if given else "detected"
    return Problem(recording, degradation, consistent=consistent, source=source, fingerprint=asdict(degradation))
