"""Restoration of whole recordings: the Python API that the command line is thin over.

``denoise`` removes noise; ``repair`` restores what was lost, whichever damage it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dapcli import noise
from dapcli.audio import Audio, Recording, Samples, full_scale_gain, resample
from dapcli.audio.recording import blocks
from dapcli.damage import Damage
from dapcli.engine import Denoiser, Engine, Repairer, SegmentFit
from dapcli.errors import InputError, SettingsError
from dapcli.fitting import STOPPING_RULES, Need, Step, check_rule, choose_dtype, find_device
from dapcli.observations import ESTIMATORS, REPAIR_ESTIMATORS
from dapcli.postfilter import POST_FILTERS
from dapcli.priors import DEFAULT_DILATION, PRIORS, prior_layout
from dapcli.segments import Joined, align
from dapcli.settings import REPAIR_PRESETS, Settings
from dapcli.spectral import STFT
from dapcli.store import MemoryStore, Store
from dapcli.task import Progress, Task, choose_parallel


class Restored:
    """A restored recording, read block by block from its finished segments and scaled by ``gain``."""

    def __init__(
        self,
        joined: Joined,
        source: Recording,
        *,
        subtype: str,
        container: str,
        damage: Damage | None = None,
        gain: float = 1.0,
    ) -> None:
        self.rate, self.channels, self.length = source.rate, joined.channels, source.length
        self.subtype, self.format, self.gain = subtype, container, gain
        self._joined = joined
        self._source = source
        self._damage = damage

    def read(self, start: int, stop: int) -> Samples:
        """Samples ``[C, stop - start]``, consistent with the recording where it had a damage."""
        samples = self._joined.read(start, stop)
        if self._damage is not None:
            samples = self._damage.part(start, stop).project(samples, self._source.read(start, stop))
        return samples * self.gain

    def as_file(self, container: str, subtype: str) -> Restored:
        """The same for another format and subtype, scaled down if its peaks would not fit in there."""
        peak = max(float(np.abs(block).max()) for block in blocks(self)) / self.gain
        gain = full_scale_gain(peak, subtype)
        return Restored(
            self._joined, self._source, subtype=subtype, container=container, damage=self._damage, gain=gain
        )


@dataclass(frozen=True)
class Result:
    """A restored recording and how it came about.

    ``restored`` has the input's rate, channels and length. ``noise_std`` is the estimated standard deviation of the
    noise with full scale at 1, ``input_snr_db`` the recording's estimated SNR (None where no noise was removed).
    ``outside`` is the share of the estimate's samples that the recording's damage does not allow, before they were
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


def denoise(
    recording: Recording,
    settings: Settings | None = None,
    *,
    device: str = "auto",
    parallel: int | None = None,
    graph: bool = False,
    noise_profile: tuple[float, float] | None = None,
    reference: Recording | None = None,
    on_step: Callable[[Progress], None] | None = None,
    store: Store | None = None,
) -> Result:
    """Remove noise from a recording by fitting an untrained network to it.

    A recording longer than ``settings.segment`` is restored in segments. One network learns from the loudest of them
    in turn, on every second frame, and is then refined on each.

    Args:
        recording: The noisy recording, ``[C, N]``, in memory or in a file; its channels are fitted jointly.
        settings: What to do; the ``quality`` preset by default.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        parallel: Segments to fit at the same time; by what the device has room for where it is None.
        graph: Run iterations as CUDA graphs.
        noise_profile: Start and end, in seconds, of a stretch with nothing but noise. Without it the noise spectrum is
            estimated from the recording.
        reference: The clean recording, ``[C, N]``, for the ``oracle`` stopping rule only.
        on_step: Called after every iteration, always from the calling thread.
        store: Keeps finished segments, and may hold some from an earlier run; in memory by default.

    Raises:
        SettingsError: A setting is unknown, or does not go with the others.
        InputError: The recording, the noise profile or the reference cannot be used.
        DeviceError: The device is not there, or its memory does not suffice.
    """
    settings = settings or Settings()
    has_reference = reference is not None
    where, dtype = check_denoising(settings, device, has_reference=has_reference, parallel=parallel, graph=graph)
    rate = settings.rate or recording.rate
    stft = STFT.for_rate(rate, settings.window, settings.hop)
    profile = _profile(stft, recording, rate, noise_profile)
    engine = Denoiser(settings=settings, stft=stft, rate=rate, device=where, dtype=dtype, graph=graph, profile=profile)
    return fit_recording(recording, engine, parallel, reference, on_step, store)


def repair(
    recording: Recording,
    damage: Damage,
    settings: Settings | None = None,
    *,
    consistent: bool = True,
    device: str = "auto",
    parallel: int | None = None,
    reference: Recording | None = None,
    on_step: Callable[[Progress], None] | None = None,
    store: Store | None = None,
) -> Result:
    """Restore what a recording has lost: missing, clipped or quantized samples.

    Segments without damage are copied; a network is fitted to each of the others.

    Args:
        recording: The damaged recording, ``[C, N]``.
        damage: What happened to it.
        settings: What to do; the ``quality`` preset for repairs by default.
        consistent: Move the estimate to where the damage allows it: samples that are known come back bit by bit.
        device: As for :func:`denoise`, like the arguments that follow.
        parallel: See there.
        reference: See there.
        on_step: See there.
        store: See there.

    Raises:
        SettingsError: A setting is unknown, or does not go with the others.
        InputError: The recording or the reference cannot be used.
        DeviceError: The device is not there, or its memory does not suffice.
    """
    settings = settings or REPAIR_PRESETS["quality"]
    where, dtype = check_repair(settings, device, has_reference=reference is not None, parallel=parallel)
    if settings.rate not in (None, recording.rate):
        raise SettingsError("--rate has no use here: what is known of a recording is known at its own rate")
    stft = STFT.for_rate(recording.rate, settings.window, settings.hop)
    engine = Repairer(settings=settings, stft=stft, rate=recording.rate, device=where, dtype=dtype, damage=damage)
    kept = damage if consistent else None
    return fit_recording(recording, engine, parallel, reference, on_step, store, damage=kept)


def fit_recording(
    recording: Recording,
    engine: Engine,
    parallel: int | None,
    reference: Recording | None,
    on_step: Callable[[Progress], None] | None,
    store: Store | None,
    *,
    damage: Damage | None = None,
    kinds: Sequence[str] = (),
) -> Result:
    """Fit networks to the segments of a recording, and join their estimates.

    The result's ``restored`` is consistent with a ``damage``. It has the sources of a mixture one after the other, as
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
    layout = prior_layout(settings.prior, width=settings.width, dilation=settings.dilation)
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
            damage=damage,
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


def check_denoising(
    settings: Settings, device: str, *, has_reference: bool, parallel: int | None = None, graph: bool = False
) -> tuple[torch.device, torch.dtype]:
    """Check what :func:`denoise` would only find out on its way, and return the device and the type to compute in.

    Raises:
        SettingsError: A name is unknown, or a setting has no effect here.
        DeviceError: The device is not there.
    """
    checked = check_settings(
        settings, device, ESTIMATORS, {"hidden": True, "noise": True, "reference": has_reference}, parallel=parallel
    )
    if graph and checked[0].type != "cuda":
        raise SettingsError(f"--cuda-graph needs a CUDA device, and {checked[0]} is none")
    return checked


def check_repair(
    settings: Settings, device: str, *, has_reference: bool, parallel: int | None = None
) -> tuple[torch.device, torch.dtype]:
    """The same for :func:`repair`."""
    given: dict[Need, bool] = {"exercises": settings.estimator == "mix", "reference": has_reference}
    checked = check_settings(settings, device, REPAIR_ESTIMATORS, given, parallel=parallel)
    if settings.post_filter != "none":
        raise SettingsError("--post-filter removes noise, and a repair has none to remove; use none")
    return checked


def check_settings(
    settings: Settings,
    device: str,
    estimators: Collection[str],
    given: Mapping[Need, bool],
    *,
    parallel: int | None,
) -> tuple[torch.device, torch.dtype]:
    """Check what all tasks have in common; ``given`` is what a stopping rule can go by.

    Raises:
        SettingsError: A name is unknown, or a setting has no effect here.
        DeviceError: The device is not there.
    """
    _look_up(PRIORS, settings.prior, "prior")
    _look_up(estimators, settings.estimator, "estimator")
    _look_up(POST_FILTERS, settings.post_filter, "post-filter")
    if settings.stop != "auto":
        _look_up(STOPPING_RULES, settings.stop, "stopping rule", "auto")
        check_rule(settings.stop, given)
    if settings.prior != "dilated" and settings.dilation != DEFAULT_DILATION:
        raise SettingsError("--dilation belongs to --prior dilated; the other priors have their own")
    if parallel is not None and parallel < 1:
        raise SettingsError("--parallel must be at least 1")
    where = find_device(device)
    return where, choose_dtype(settings.precision, where)


def _profile(stft: STFT, recording: Recording, rate: int, stretch: tuple[float, float] | None) -> noise.Spectrum | None:
    """The noise spectrum ``[C, F]`` of a stretch in seconds that holds nothing but noise."""
    if stretch is None:
        return None
    start, stop = stretch
    if not 0 <= start < stop:
        raise SettingsError(f"--noise-profile {start:g}:{stop:g} is not a stretch; give START:END in seconds")
    if stop * recording.rate > recording.length:
        length = recording.length / recording.rate
        raise InputError(f"--noise-profile ends at {stop:g} s, the recording at {length:.3f} s")
    samples = recording.read(round(start * recording.rate), round(stop * recording.rate))
    piece = torch.from_numpy(resample(samples, recording.rate, rate)).float()
    if piece.shape[1] < 2 * stft.n_fft:
        raise InputError(f"--noise-profile must be at least {2 * stft.n_fft / rate:.3f} s long to show a spectrum")
    if not piece.any():
        raise InputError("--noise-profile covers digital silence; choose a stretch where the noise can be heard")
    return noise.profile_spectrum(stft, piece)


def _where(fit: SegmentFit, plan: Sequence[tuple[int, int]], recording: Recording) -> str:
    """What a note on a fit begins with: where in a recording of several segments it is."""
    return "" if len(plan) == 1 else f"from {fit.start / recording.rate:.2f} to {fit.stop / recording.rate:.2f} s "


def _root_mean_square(values: list[float]) -> float | None:
    return float(np.sqrt(np.mean(np.square(values)))) if values else None


def _snr_db(power: float, noise_power: float) -> float:
    """SNR of a recording of this power with noise of that, dB; no sound at all counts as -60 dB."""
    return 10 * float(np.log10(max(power / noise_power - 1, 1e-6)))


def _look_up(registry: Collection[str], name: str, kind: str, *extra: str) -> None:
    if name not in registry:
        raise SettingsError(f"unknown {kind} {name!r}; choose one of {', '.join((*extra, *registry))}")
