"""Restoration of whole recordings: the Python API that the command line is thin over.

``denoise`` removes noise; ``repair`` restores what was lost, whichever degradation it was.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import torch

from dapcli.audio import Recording, resample
from dapcli.audio.recording import count_channels
from dapcli.errors import InputError, SettingsError
from dapcli.fit import OPTIMIZERS, STOPPING_RULES, Need, check_rule, choose_dtype, find_device
from dapcli.objectives import ESTIMATORS, REPAIR_ESTIMATORS
from dapcli.pipeline.result import Result, fit_recording
from dapcli.pipeline.run import Progress
from dapcli.pipeline.store import Store
from dapcli.priors import DEFAULT_DILATION, PRIORS
from dapcli.settings import REPAIR_PRESETS, Settings
from dapcli.signal.degradation import Degradation
from dapcli.signal.noise import NOISE_MODELS
from dapcli.signal.noise_spectrum import Spectrum, profile_spectrum
from dapcli.signal.stft import STFT
from dapcli.tasks import Denoiser, Repairer
from dapcli.tasks.postfilter import POST_FILTERS


def denoise(
    recording: Recording,
    settings: Settings | None = None,
    *,
    device: str = "auto",
    parallel: int | None = None,
    noise_profile: tuple[float, float] | Recording | None = None,
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
        noise_profile: Start and end, in seconds, of a stretch with nothing but noise, or another recording with nothing
            but that noise. Without it the noise spectrum is estimated from the recording.
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
    where, dtype = check_denoising(settings, device, has_reference=has_reference, parallel=parallel)
    rate = settings.rate or recording.rate
    stft = STFT.for_rate(rate, settings.window, settings.hop)
    profile = _profile(stft, recording, rate, noise_profile)
    engine = Denoiser(settings=settings, stft=stft, rate=rate, device=where, dtype=dtype, profile=profile)
    return fit_recording(recording, engine, parallel, reference, on_step, store)


def repair(
    recording: Recording,
    degradation: Degradation,
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

    Segments without degradation are copied; a network is fitted to each of the others.

    Args:
        recording: The damaged recording, ``[C, N]``.
        degradation: What happened to it.
        settings: What to do; the ``quality`` preset for repairs by default.
        consistent: Move the estimate to where the degradation allows it: samples that are known come back bit by bit.
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
    engine = Repairer(
        settings=settings, stft=stft, rate=recording.rate, device=where, dtype=dtype, degradation=degradation
    )
    kept = degradation if consistent else None
    return fit_recording(recording, engine, parallel, reference, on_step, store, degradation=kept)


def check_denoising(
    settings: Settings, device: str, *, has_reference: bool, parallel: int | None = None
) -> tuple[torch.device, torch.dtype]:
    """Check what :func:`denoise` would only find out on its way, and return the device and the type to compute in.

    Raises:
        SettingsError: A name is unknown, or a setting has no effect here.
        DeviceError: The device is not there.
    """
    _look_up(NOISE_MODELS, settings.noise_model, "noise model")
    if settings.attenuation_limit is not None and settings.estimator != "mask":
        raise SettingsError("--attenuation-limit is for --estimator mask; leave it out")
    return check_settings(
        settings, device, ESTIMATORS, {"hidden": True, "noise": True, "reference": has_reference}, parallel=parallel
    )


def check_repair(
    settings: Settings, device: str, *, has_reference: bool, parallel: int | None = None
) -> tuple[torch.device, torch.dtype]:
    """The same for :func:`repair`."""
    given: dict[Need, bool] = {"training_pairs": settings.estimator == "mix", "reference": has_reference}
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
    _look_up(OPTIMIZERS, settings.optimizer, "optimizer")
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


def _profile(
    stft: STFT, recording: Recording, rate: int, given: tuple[float, float] | Recording | None
) -> Spectrum | None:
    """The noise spectrum ``[C, F]`` of a stretch, in seconds, or of a recording that holds nothing but noise."""
    if given is None:
        return None
    if isinstance(given, tuple):
        start, stop = given
        if not 0 <= start < stop:
            raise SettingsError(f"--noise-profile {start:g}:{stop:g} is not a stretch; give START:END in seconds")
        if stop * recording.rate > recording.length:
            length = recording.length / recording.rate
            raise InputError(f"--noise-profile ends at {stop:g} s, the recording at {length:.3f} s")
        source, samples = recording, recording.read(round(start * recording.rate), round(stop * recording.rate))
    else:
        source, samples = given, given.read(0, given.length)
        if source.channels not in (1, recording.channels):
            raise InputError(
                f"--noise-profile has {count_channels(source.channels)}, the recording {recording.channels}; "
                "give as many, or one"
            )
    piece = torch.from_numpy(resample(samples, source.rate, rate)).float()
    if piece.shape[1] < 2 * stft.n_fft:
        raise InputError(f"--noise-profile must be at least {2 * stft.n_fft / rate:.3f} s long to show a spectrum")
    if not piece.any():
        raise InputError("--noise-profile covers digital silence; choose a stretch where the noise can be heard")
    spectrum = profile_spectrum(stft, piece)
    return np.broadcast_to(spectrum, (recording.channels, spectrum.shape[1]))


def _look_up(registry: Collection[str], name: str, kind: str, *extra: str) -> None:
    if name not in registry:
        raise SettingsError(f"unknown {kind} {name!r}; choose one of {', '.join((*extra, *registry))}")
