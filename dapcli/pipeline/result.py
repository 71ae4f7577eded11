"""Fit networks to the segments of a recording and join them: what all tasks have in common, and their result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dapcli.audio import Audio, Recording, Samples, full_scale_gain
from dapcli.audio.recording import blocks
from dapcli.errors import InputError
from dapcli.fit import Step
from dapcli.pipeline.run import Progress, Task, choose_parallel
from dapcli.pipeline.segments import Joined, align
from dapcli.pipeline.store import MemoryStore, Store
from dapcli.priors import prior_layout
from dapcli.settings import Settings
from dapcli.signal.degradation import Degradation
from dapcli.signal.stft import STFT
from dapcli.tasks import Engine, SegmentFit


class Restored:
    """A restored recording, read block by block from its finished segments and scaled by ``gain``."""

    def __init__(
        self,
        joined: Joined,
        source: Recording,
        *,
        subtype: str,
        container: str,
        degradation: Degradation | None = None,
        gain: float = 1.0,
    ) -> None:
        self.rate, self.channels, self.length = source.rate, joined.channels, source.length
        self.subtype, self.format, self.gain = subtype, container, gain
        self._joined = joined
        self._source = source
        self._damage = degradation

    def read(self, start: int, stop: int) -> Samples:
        """Samples ``[C, stop - start]``, consistent with the recording where it had a degradation."""
        samples = self._joined.read(start, stop)
        if self._damage is not None:
            samples = self._damage.part(start, stop).project(samples, self._source.read(start, stop))
        return samples * self.gain

    def as_file(self, container: str, subtype: str) -> Restored:
        """The same for another format and subtype, scaled down if its peaks would not fit in there."""
        peak = max(float(np.abs(block).max()) for block in blocks(self)) / self.gain
        gain = full_scale_gain(peak, subtype)
        return Restored(
            self._joined, self._source, subtype=subtype, container=container, degradation=self._damage, gain=gain
        )


@dataclass(frozen=True)
class Result:
    """A restored recording and how it came about.

    ``restored`` has the input's rate, channels and length. ``noise_std`` is the estimated standard deviation of the
    noise with full scale at 1, ``input_snr_db`` the recording's estimated SNR (None where no noise was removed).
    ``outside`` is the share of the estimate's samples that the recording's degradation does not allow, before they were
    moved to where it does (None where there was none).
    ``rate`` is the working rate in Hz, ``receptive_field`` is in (s, Hz), and ``learning`` holds the steps before the
    segments' own, which an earlier run may have taken.
    """

    restored: Restored
    settings: Settings
    device: torch.device
    dtype: torch.dtype
    parallel: int
    stft: STFT
    rate: int
    receptive_field: tuple[float, float]
    segments: tuple[SegmentFit, ...]
    learning: tuple[Step, ...]
    learning_seconds: float
    noise_std: float | None
    input_snr_db: float | None
    outside: float | None
    seconds: float
    notes: tuple[str, ...]

    @property
    def audio(self) -> Audio:
        """The restored recording in memory."""
        source = self.restored
        return Audio(source.read(0, source.length), source.rate, source.subtype, source.format)


def fit_recording(
    recording: Recording,
    engine: Engine,
    parallel: int | None,
    reference: Recording | None,
    on_step: Callable[[Progress], None] | None,
    store: Store | None,
    *,
    degradation: Degradation | None = None,
    kinds: Sequence[str] = (),
) -> Result:
    """Fit networks to the segments of a recording, and join their estimates.

    The result's ``restored`` is consistent with a ``degradation``. It has the sources of a mixture one after the other, as
    channels ``[K * C, N]``; those of one of their ``kinds`` are matched from segment to segment. The other arguments
    are those of :func:`dapcli.denoise`, whose settings were checked.

    Raises:
        InputError: The recording is too short, or the reference has another shape.
        DeviceError: The device's memory does not suffice.
    """
    settings = engine.settings
    channels = engine.sources * recording.channels
    if recording.length < 2:
        raise InputError("the recording has one sample only; there is nothing to fit to")
    if reference is not None and (reference.channels, reference.length) != (channels, recording.length):
        raise InputError(
            f"the reference has shape {(reference.channels, reference.length)}, "
            f"the recording {(channels, recording.length)}"
        )
    started = time.perf_counter()
    rate, stft = engine.rate, engine.stft
    task = Task(engine, recording, reference, MemoryStore() if store is None else store, on_step)
    workers = choose_parallel(engine.device) if parallel is None else parallel
    task.run(workers)

    fits = tuple(fit for index in range(len(task.plan)) if (fit := task.load(index).fit))
    layout = prior_layout(settings.prior, width=settings.width, dilation=settings.dilation, fold=settings.fold)
    noise_std = _root_mean_square([fit.noise_std for fit in fits if fit.noise_std is not None])
    outside = [fit.outside for fit in fits if fit.outside is not None]
    estimates = align(task.plan, kinds, lambda index: task.load(index).estimate)
    joined = Joined(task.plan, channels, estimates)
    return Result(
        restored=Restored(
            joined,
            recording,
            subtype=recording.subtype,
            container=recording.format,
            degradation=degradation,
        ),
        settings=settings,
        device=engine.device,
        dtype=engine.dtype,
        parallel=task.workers,
        stft=stft,
        rate=rate,
        receptive_field=(layout.receptive_field() * stft.hop / rate, layout.receptive_field() * rate / stft.n_fft),
        segments=fits,
        learning=tuple(task.learning),
        learning_seconds=task.learning_seconds,
        noise_std=noise_std,
        input_snr_db=None if noise_std is None else _snr_db(float(np.mean([fit.power for fit in fits])), noise_std**2),
        outside=float(np.mean(outside)) if outside else None,
        seconds=time.perf_counter() - started,
        notes=(*task.notes, *(f"{_where(fit, task.plan, recording)}{note}" for fit in fits for note in fit.notes)),
    )


def _where(fit: SegmentFit, plan: Sequence[tuple[int, int]], recording: Recording) -> str:
    """What a note on a fit begins with: where in a recording of several segments it is."""
    return "" if len(plan) == 1 else f"from {fit.start / recording.rate:.2f} to {fit.stop / recording.rate:.2f} s "


def _root_mean_square(values: list[float]) -> float | None:
    return float(np.sqrt(np.mean(np.square(values)))) if values else None


def _snr_db(power: float, noise_power: float) -> float:
    """SNR of a recording of this power with noise of that, dB; no sound at all counts as -60 dB."""
    return 10 * float(np.log10(max(power / noise_power - 1, 1e-6)))
