"""Restoration of recordings in memory: the Python API that the command line is thin over."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dapcli import noise
from dapcli.audio import Audio, Samples, resample
from dapcli.errors import DeviceError, InputError, SettingsError
from dapcli.fitting import STOPPING_RULES, Fit, Step, StopContext, choose_dtype, find_device
from dapcli.observations import ESTIMATORS
from dapcli.postfilter import POST_FILTERS
from dapcli.priors import DEFAULT_DILATION, PRIORS, build_prior, prior_layout
from dapcli.segments import fade_weights, plan_segments
from dapcli.settings import SEGMENT_OVERLAP, Settings
from dapcli.spectral import STFT

# Share of the samples that the held-out rule hides from the fit.
_HIDDEN_SHARE = 0.05


@dataclass(frozen=True)
class Progress:
    """Where a restoration stands: the step of a fit, which segment it belongs to, and its iterations at the most.

    ``noise_std`` is the level of what the estimate leaves over, full scale at 1.
    """

    step: Step
    iterations: int
    segment: int
    segments: int
    noise_std: float


@dataclass(frozen=True)
class SegmentFit:
    """The fit of one segment, ``start`` to ``stop`` in samples at the working rate."""

    rule: str
    rule_reason: str
    best_iteration: int
    stopped_by: str
    seconds: float
    noise_std: float
    white_noise: bool
    parameters: int
    steps: tuple[Step, ...]
    start: int = 0
    stop: int = 0


@dataclass(frozen=True)
class Result:
    """A restored recording and how it came about.

    ``audio`` has the input's rate, channels and length. ``noise_std`` is the estimated standard deviation of the noise
    with full scale at 1, ``input_snr_db`` the recording's estimated SNR (None where nothing was fitted).
    ``receptive_field`` is in (s, Hz).
    """

    audio: Audio
    settings: Settings
    device: torch.device
    dtype: torch.dtype
    stft: STFT
    rate: int
    receptive_field: tuple[float, float]
    segments: tuple[SegmentFit, ...]
    noise_std: float | None
    input_snr_db: float | None
    seconds: float
    notes: tuple[str, ...]


def denoise(
    audio: Audio,
    settings: Settings | None = None,
    *,
    device: str = "auto",
    noise_profile: tuple[float, float] | None = None,
    reference: Samples | None = None,
    on_step: Callable[[Progress], None] | None = None,
) -> Result:
    """Remove noise from a recording by fitting an untrained network to it.

    Args:
        audio: The noisy recording, ``[C, N]``; its channels are fitted jointly.
        settings: What to do; the ``quality`` preset by default.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        noise_profile: Start and end, in seconds, of a stretch with nothing but noise. Without it the noise spectrum is
            estimated from the whole recording.
        reference: The clean recording, ``[C, N]``, for the ``oracle`` stopping rule only.
        on_step: Called after every iteration.

    Raises:
        SettingsError: A setting is unknown, or does not go with the others.
        InputError: The recording, the noise profile or the reference cannot be used.
        DeviceError: The device is not there, or its memory does not suffice.
    """
    settings = settings or Settings()
    where, dtype = check_settings(settings, device)
    if audio.length < 2:
        raise InputError("the recording has one sample only; there is nothing to fit to")
    if reference is not None and reference.shape != audio.samples.shape:
        raise InputError(f"the reference has shape {reference.shape}, the recording {audio.samples.shape}")
    started = time.perf_counter()
    rate = settings.rate or audio.rate
    stft = STFT.for_rate(rate, settings.window, settings.hop)
    samples = torch.from_numpy(resample(audio.samples, audio.rate, rate)).float()
    clean = None if reference is None else torch.from_numpy(resample(reference, audio.rate, rate)).float()
    profile = _profile(stft, samples, rate, noise_profile)

    plan = plan_segments(samples.shape[1], round(settings.segment * rate), round(SEGMENT_OVERLAP * rate))
    restored = np.zeros(samples.shape)
    fits: list[SegmentFit] = []
    notes: list[str] = []
    for index, (start, stop) in enumerate(plan):
        piece = samples[:, start:stop]
        if not piece.any():
            notes.append(f"silence from {start / rate:.2f} to {stop / rate:.2f} s is left as it is")
            continue

        def report(step: Step, index: int = index) -> None:
            if on_step:
                # Spectrograms are fitted, people think in samples: white noise of level 1 has this power in a bin.
                level = step.residual * stft.white_gain**-0.5
                on_step(Progress(step, settings.iterations, index, len(plan), level))

        with _memory_errors():
            estimate, fit = _fit_segment(
                piece.to(where),
                settings,
                stft,
                rate,
                dtype,
                spectrum=profile,
                reference=None if clean is None else clean[:, start:stop].to(where),
                report=report,
            )
        fits.append(replace(fit, start=start, stop=stop))
        restored[:, start:stop] += estimate.cpu().numpy() * fade_weights(plan, index)

    if fits:
        output = resample(restored, rate, audio.rate)[:, : audio.length]
    else:
        output, notes = audio.samples, ["the recording is silent; the output is the input"]
    layout = prior_layout(settings.prior, width=settings.width, dilation=settings.dilation)
    noise_std = float(np.sqrt(np.mean([fit.noise_std**2 for fit in fits]))) if fits else None
    return Result(
        audio=audio.with_samples(output),
        settings=settings,
        device=where,
        dtype=dtype,
        stft=stft,
        rate=rate,
        receptive_field=(layout.receptive_field() * stft.hop / rate, layout.receptive_field() * rate / stft.n_fft),
        segments=tuple(fits),
        noise_std=noise_std,
        input_snr_db=None if noise_std is None else _snr_db(float(samples.square().mean()), noise_std**2),
        seconds=time.perf_counter() - started,
        notes=tuple(notes),
    )


def check_settings(settings: Settings, device: str) -> tuple[torch.device, torch.dtype]:
    """Check what a restoration would only find out on its way, and return the device and the type to compute in.

    Raises:
        SettingsError: A name is unknown or an option has no effect here.
        DeviceError: The device is not there.
    """
    _look_up(PRIORS, settings.prior, "prior")
    _look_up(ESTIMATORS, settings.estimator, "estimator")
    _look_up(POST_FILTERS, settings.post_filter, "post-filter")
    if settings.stop != "auto":
        _look_up(STOPPING_RULES, settings.stop, "stopping rule", "auto")
    if settings.prior != "dilated" and settings.dilation != DEFAULT_DILATION:
        raise SettingsError("--dilation belongs to --prior dilated; the other priors have their own")
    where = find_device(device)
    return where, choose_dtype(settings.precision, where)


def choose_rule(settings: Settings) -> tuple[str, str]:
    """The stopping rule to use, and why: the one that was asked for, or what measured best (docs/results.md)."""
    if settings.stop != "auto":
        return settings.stop, "asked for"
    if settings.estimator == "mask":
        return "fixed", "a mask is fitted to its own estimated error and hardly takes up noise"
    return "held-out", "samples that the fit has not seen tell sound from noise"


def _fit_segment(
    samples: Tensor,
    settings: Settings,
    stft: STFT,
    rate: int,
    dtype: torch.dtype,
    *,
    spectrum: noise.Spectrum | None,
    reference: Tensor | None,
    report: Callable[[Step], None],
) -> tuple[Tensor, SegmentFit]:
    """Fit one network to samples ``[C, N]`` and return its estimate ``[C, N]`` with a record of the fit."""
    device = samples.device
    generator = torch.Generator(device).manual_seed(settings.seed)
    margin = 1.0 if spectrum is None else noise.PROFILE_MARGIN
    if spectrum is None:
        spectrum = noise.estimate_spectrum(stft, samples.cpu(), rate)
    noise_spectrum = torch.from_numpy(margin * spectrum).float().to(device)
    rule_name, reason = choose_rule(settings)

    rule_class = STOPPING_RULES[rule_name]
    hidden = _hidden_samples(samples.shape[1], settings.seed).to(device) if rule_class.hides_samples else None
    rule = rule_class(StopContext(stft, samples, noise_spectrum, hidden, reference))
    observation = ESTIMATORS[settings.estimator](
        samples if hidden is None else _hide(samples, hidden),
        stft,
        noise_spectrum,
        perturbation=settings.perturbation,
        generator=generator,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = build_prior(
            settings.prior,
            observation.in_channels,
            observation.out_channels,
            width=settings.width,
            dilation=settings.dilation,
        )
    fit = Fit(
        network,
        observation,
        rule,
        iterations=settings.iterations,
        learning_rate=settings.learning_rate,
        averaging=settings.averaging,
        dtype=dtype,
        generator=generator,
    )
    steps = []
    for step in fit:
        steps.append(step)
        report(step)
    filtered = POST_FILTERS[settings.post_filter](fit.estimate, stft.forward(samples), noise_spectrum)
    return stft.inverse(filtered, samples.shape[1]), SegmentFit(
        rule=rule_name,
        rule_reason=reason,
        parameters=sum(weights.numel() for weights in network.parameters()),
        best_iteration=fit.best_iteration,
        stopped_by=fit.stopped_by,
        seconds=fit.seconds,
        noise_std=noise.noise_std(spectrum, stft),
        white_noise=noise.is_white(spectrum),
        steps=tuple(steps),
    )


def _profile(stft: STFT, samples: Tensor, rate: int, stretch: tuple[float, float] | None) -> noise.Spectrum | None:
    """The noise spectrum ``[C, F]`` of a stretch in seconds that holds nothing but noise."""
    if stretch is None:
        return None
    start, stop = stretch
    if not 0 <= start < stop:
        raise SettingsError(f"--noise-profile {start:g}:{stop:g} is not a stretch; give START:END in seconds")
    if stop * rate > samples.shape[1]:
        raise InputError(f"--noise-profile ends at {stop:g} s, the recording at {samples.shape[1] / rate:.3f} s")
    piece = samples[:, round(start * rate) : round(stop * rate)]
    if piece.shape[1] < 2 * stft.n_fft:
        raise InputError(f"--noise-profile must be at least {2 * stft.n_fft / rate:.3f} s long to show a spectrum")
    if not piece.any():
        raise InputError("--noise-profile covers digital silence; choose a stretch where the noise can be heard")
    return noise.profile_spectrum(stft, piece)


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


def _snr_db(power: float, noise_power: float) -> float:
    """SNR of a recording of this power with noise of that, dB; no sound at all counts as -60 dB."""
    return 10 * float(np.log10(max(power / noise_power - 1, 1e-6)))


def _look_up(registry: Collection[str], name: str, kind: str, *extra: str) -> None:
    if name not in registry:
        raise SettingsError(f"unknown {kind} {name!r}; choose one of {', '.join((*extra, *registry))}")


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turn torch's errors about memory into one that names the options that help."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; on the CPU only the text tells
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise DeviceError("out of memory; use a shorter --segment or a smaller --width") from error
