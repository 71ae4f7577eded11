"""``denoise``: its function, its solver, and its problem on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dapcli.audio import Audio, Recording, Samples, open_audio, resample
from dapcli.audio.files import digest
from dapcli.audio.recording import check_recording, count_channels
from dapcli.audio.view import View
from dapcli.errors import InputError, SettingsError
from dapcli.fit import STOPPING_RULES, Fitted, Iteration, Report, StopContext, fit
from dapcli.objectives.alternating import Alternating
from dapcli.pipeline.result import Result
from dapcli.pipeline.run import OnStep, Pipeline
from dapcli.pipeline.solver import Segment, SegmentFit, Solver, Weights
from dapcli.pipeline.store import Store
from dapcli.priors.network import PriorNetwork, side_by_side
from dapcli.settings import Settings, look_up
from dapcli.signal.hum import Hum, find_hum
from dapcli.signal.noise import NOISE_MODELS, PROFILE_MARGIN, Noise, estimate_noise, protect
from dapcli.signal.noise_spectrum import Spectrum, noise_std, profile_spectrum
from dapcli.signal.stft import STFT
from dapcli.tasks import TASKS
from dapcli.tasks.check import check
from dapcli.tasks.options import DenoiseOptions
from dapcli.tasks.problem import Problem

# Fraction of the samples that the held-out rule hides from the fit.
_HIDDEN_FRACTION = 0.05
_TINY = 1e-30
# Bands and frames of a segment in which its noise is kept for people to look at.
_SEEN = (48, 8)
# Mean gain of bins that are weaker than the noise, beyond which a mask has learned to let all pass: usual is 0.1.
_PASSING = 0.7
_PASSED = "the fit let the noise pass, twice; try --preset generate, or another --seed"
_LIMITED = (
    "little was changed, for the apparent noise may be part of the sound; "
    "--noise-profile or --attenuation-limit 40 takes more away"
)
#: A network is pretrained on frames so many hops apart, which takes as much less time, and is finetuned on all.
COARSENESS = 2


def denoise(
    recording: Recording,
    settings: Settings | None = None,
    *,
    noise_profile: tuple[float, float] | Recording | None = None,
    device: str = "auto",
    parallel: int | None = None,
    references: Sequence[Recording] = (),
    on_step: OnStep | None = None,
    store: Store | None = None,
) -> Result:
    """Remove noise from a recording by fitting an untrained network to it.

    A recording longer than ``settings.segment`` is restored in segments. One network is pretrained on the loudest of
    them in turn, on every second frame, and is then finetuned on each.

    Args:
        recording: The noisy recording, ``[C, N]``, in memory or in a file; its channels are fitted jointly.
        settings: What to do; the ``quality`` preset by default.
        noise_profile: Start and end, in seconds, of a stretch with nothing but noise, or another recording with nothing
            but that noise. Without it the noise is estimated from the recording.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        parallel: Segments to fit at the same time; by what the device has room for where it is None.
        references: The clean recording, ``[C, N]``, for the ``oracle`` stopping rule only.
        on_step: Called after every iteration, always from the calling thread.
        store: Keeps finished segments, and may hold some from an earlier run; in memory by default.

    Raises:
        SettingsError: A setting is unknown, or does not go with the others.
        InputError: The recording, the noise profile or the reference cannot be used.
        DeviceError: The device is not there, or its memory does not suffice.
    """
    check_recording(recording)
    task = TASKS["denoise"]
    settings = task.presets["quality"] if settings is None else settings
    fields = check(task, settings, recording.rate, device=device, parallel=parallel, references=bool(references))
    look_up(settings.noise_model, NOISE_MODELS, "noise model")
    look_up(settings.post_filter, POST_FILTERS, "post-filter")
    notes, hum = [], None
    if any(combs := find_hum(recording)):
        found = max((comb for comb in combs if comb), key=lambda comb: comb.highest)
        notes.append(f"mains hum at {found.frequency:.2f} Hz and its multiples to {found.highest:.0f} Hz was lowered")
        if settings.attenuation_limit is not None:
            hum = Hum(recording, combs, 0.0, 10 ** (-settings.attenuation_limit / 20))
        recording = Hum(recording, combs, 1.0, 0.0)
    profile = _profile(fields["stft"], recording, fields["rate"], noise_profile)
    solver = Denoiser(**fields, profile=profile, hum=hum)
    result = Pipeline(recording, solver, references, on_step, store).run(parallel)
    return replace(result, notes=(*notes, *result.notes))


def pose(recording: Recording, options: DenoiseOptions, path: Path) -> Problem[None]:  # noqa: ARG001
    """The problem of a noisy recording by the options of the command line."""
    given = options.profile
    if not isinstance(given, Path):
        return Problem(recording, noise_profile=given, fingerprint={"noise_profile": given})
    with open_audio(given) as file:
        profile = Audio(file.read(0, file.length), file.rate)
    return Problem(recording, noise_profile=profile, fingerprint={"noise_profile": digest(given)}, notes=file.notes)


@dataclass(frozen=True, kw_only=True)
class Denoiser(Solver):
    """Removes noise from the segments of a recording.

    ``profile`` ``[C, F]`` is the spectrum of a noise profile; without one, every segment's noise is estimated. ``hum``
    is what is to be left of hum that the segments no longer have.
    """

    profile: Spectrum | None = None
    hum: Recording | None = None

    @property
    def iterations(self) -> tuple[int, int]:
        """Iterations at the most for pretraining on a recording, and for each of its segments."""
        first, further = self.settings.iterations, self.settings.finetune_iterations
        # A rule that may end a fit early has to see all of it.
        anew = self.objective.generates or not further or STOPPING_RULES[self.rule].patience
        return (0, first) if anew else (first, further)

    @property
    def joint(self) -> bool:
        """On CUDA, masks: threads would take turns to issue their kernels, which take longer than their work."""
        return self.device.type == "cuda" and not self.objective.generates

    def for_view(self, view: View) -> Denoiser:
        """The solver with what a view shows of the noise profile and of the hum."""
        profile = None if self.profile is None else view.gain**2 * self.profile[list(view.kept)]
        return replace(self, profile=profile, hum=self.hum and view.of(self.hum))

    def finalise(self, estimate: Samples, observed: Samples, start: int, gain: float, step: float | None) -> Samples:
        """The estimate with what is left of the hum."""
        if self.hum is not None:
            estimate = estimate + self.hum.read(start, start + observed.shape[1])
        return super().finalise(estimate, observed, start, gain, step)

    def pretrain(self, segments: Sequence[Samples], report: Report) -> Weights:
        """The weights of one network that was fitted to some segments ``[C, N]`` in turn, for each to start from.

        It is fitted on every second frame. Then a fraction of the iterations on all frames is enough, on any segment
        of the recording: also on one that it has not seen, unless what it has seen is nothing but noise. It would
        return silence then, and no finetuning brings it back.
        """
        # Between frames further apart than that, samples would be lost.
        stride = COARSENESS if 2 * COARSENESS * self.stft.hop <= self.stft.n_fft else 1
        setup = replace(self.setup(), stft=replace(self.stft, hop=stride * self.stft.hop))
        objectives = [
            self.objective(setup.tensor(each), [noise.every(stride)], setup)
            for each, noise in zip(segments, self.noises(segments), strict=True)
        ]
        objective = Alternating(objectives, self.settings.iterations, self.settings.seed)
        network = self.build(objective, setup)
        assert network is not None
        rule = STOPPING_RULES["fixed"](StopContext(setup.stft, setup.tensor(segments[0])))
        # What is wanted are the weights; their estimates are of different segments.
        settings = replace(self.settings, ema_decay=0.0)
        fit(network, objective, [rule], settings, self.dtype, setup.generator, [report])
        return {name: weights.cpu() for name, weights in network.state_dict().items()}

    def fit_segments(self, segments: Sequence[Segment], reports: Sequence[Report]) -> list[tuple[Tensor, SegmentFit]]:
        """The estimates ``[1, C, N]`` of segments without their noise, by networks side by side, and their records."""
        noises = self.noises([segment.samples for segment in segments])
        fits = self._fit(segments, noises, reports, self.settings.seed)
        again = (self.settings.seed + 1) % 2**63
        found = []
        for segment, noise, report, (fitted, network) in zip(segments, noises, reports, fits, strict=True):
            notes: list[str] = []
            observed = self.stft.forward(self.setup().tensor(segment.samples))
            # A mask that lets the noise pass is fitted anew from other weights.
            if not self.objective.generates and _lets_noise_pass(fitted.estimate[0], observed, noise):
                # Progress stays where it is, and a thread that is to stop still learns of it.
                quiet = _repeat(report, fitted.iterations[-1])
                ((fitted, network),) = self._fit([replace(segment, weights=None)], [noise], [quiet], again)
                passes = _lets_noise_pass(fitted.estimate[0], observed, noise)
                notes = [_PASSED if passes else f"the fit let the noise pass; fitted again with seed {again}"]
            estimate = fitted.estimate[0]
            if not self.objective.generates:
                estimate, limited = self._limit(estimate, observed, noise)
                notes += [_LIMITED] if limited else []
            mean = noise.power.mean(dim=2)
            level = noise_std(mean.double().cpu().numpy(), self.stft) / (PROFILE_MARGIN**0.5 if noise.known else 1)
            filtered = POST_FILTERS[self.settings.post_filter](estimate, observed, noise.power)
            restored = self.stft.inverse(filtered, segment.samples.shape[1])[None]
            record = self.record(fitted, network, segment)
            told = replace(
                record, noise_std=level, white_noise=noise.white, noise=self._seen(noise), notes=tuple(notes)
            )
            found.append((restored, told))
        return found

    def _seen(self, noise: Noise) -> tuple[tuple[float, ...], ...]:
        """Noise as power per Hz in a few bands and frames, mean over channels."""
        scale = 2 * self.stft.white_gain * self.rate * (PROFILE_MARGIN if noise.known else 1)
        bands = F.adaptive_avg_pool2d(noise.power.mean(dim=0, keepdim=True), _SEEN)[0] / scale
        return tuple(tuple(float(f"{power:.4g}") for power in band) for band in bands.tolist())

    def _fit(
        self, segments: Sequence[Segment], noises: Sequence[Noise], reports: Sequence[Report], seed: int
    ) -> list[tuple[Fitted, nn.Module | None]]:
        """The fits of segments that begin with the same weights, and the network, of which each has a copy."""
        setup, rules, visible = self.setup(seed), [], []
        for segment in segments:
            samples, hidden = setup.tensor(segment.samples), None
            if STOPPING_RULES[self.rule].needs == "hidden":
                samples, hidden = _hide(samples, self.settings.seed)
            visible.append(samples)
            rules.append(self.rule_for(segment, setup, hidden))
        objective = self.objective(torch.cat(visible), noises, setup)
        network = self.build(objective, setup, segments[0].weights)
        joined = side_by_side(network, len(segments)) if isinstance(network, PriorNetwork) else network
        tuned = segments[0].weights is not None
        fits = fit(joined, objective, rules, self.settings, self.dtype, setup.generator, reports, finetune=tuned)
        return [(each, network) for each in fits]

    def _limit(self, estimate: Tensor, observed: Tensor, noise: Noise) -> tuple[Tensor, bool]:
        """An estimate that is a recording with gains, both ``[C, 2, F, T]``, with more left of it.

        The second value is true where little was changed, for what seems to be noise may be the recording's own.
        """
        power, gain = observed.square().sum(dim=1), _gain(estimate, observed)
        if self.settings.attenuation_limit is None:
            gain, limited = protect(gain, power, noise, self.rate / self.stft.n_fft)
            return gain[:, None] * observed, limited
        return gain.clamp(min=10 ** (-self.settings.attenuation_limit / 20))[:, None] * observed, False

    def noises(self, segments: Sequence[Samples]) -> list[Noise]:
        """The noise of each segment ``[C, N]``, on the device."""
        # A new thread learns torch's number of threads only when it asks.
        with ThreadPoolExecutor(self.threads, initializer=torch.get_num_threads) as pool:
            return [noise.to(self.device) for noise in pool.map(self._noise, segments)]

    def _noise(self, samples: Samples) -> Noise:
        single = torch.from_numpy(samples).float()
        return estimate_noise(self.stft, single, self.rate, self.settings.noise_model, self.profile)


def _gain(estimate: Tensor, observed: Tensor) -> Tensor:
    """The gains ``[C, F, T]`` of a masked recording; both are ``[C, 2, F, T]``."""
    return (estimate.square().sum(dim=1) / observed.square().sum(dim=1).clamp(min=_TINY)).sqrt()


def _lets_noise_pass(estimate: Tensor, observed: Tensor, noise: Noise) -> bool:
    """Whether the bins of a masked recording that are weaker than its noise have passed."""
    quiet = observed.square().sum(dim=1) < noise.power
    return bool(quiet.any()) and float(_gain(estimate, observed)[quiet].mean()) > _PASSING


def _hide(samples: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Samples ``[C, N]`` with some replaced by the mean of their neighbours, and the sorted indices of these.

    They are drawn at random, no two of them neighbours, none at the ends.
    """
    candidates = np.arange(1, samples.shape[1] - 1, 2)
    count = min(len(candidates), round(samples.shape[1] * _HIDDEN_FRACTION))
    chosen = np.random.default_rng(seed).choice(candidates, count, replace=False)
    hidden, visible = torch.from_numpy(np.sort(chosen)).to(samples.device), samples.clone()
    visible[:, hidden] = (samples[:, hidden - 1] + samples[:, hidden + 1]) / 2
    return visible, hidden


def _profile(
    stft: STFT, recording: Recording, rate: int, given: tuple[float, float] | Recording | None
) -> Spectrum | None:
    """The noise spectrum ``[C, F]`` of a stretch, in seconds, or of a recording that holds nothing but noise."""
    if given is None:
        return None
    if isinstance(given, Recording):
        source, samples = given, given.read(0, given.length)
        if source.channels not in (1, recording.channels):
            raise InputError(
                f"--noise-profile has {count_channels(source.channels)}, the recording {recording.channels}; "
                "give as many, or one"
            )
    else:
        try:
            start, stop = map(float, given)
        except (TypeError, ValueError):
            raise SettingsError(
                "the noise profile is neither a recording nor (start, end) in seconds; give one"
            ) from None
        if not 0 <= start < stop:
            raise SettingsError(f"--noise-profile {start:g}:{stop:g} is not a stretch; give START:END in seconds")
        if stop * recording.rate > recording.length:
            length = recording.length / recording.rate
            raise InputError(f"--noise-profile ends at {stop:g} s, the recording at {length:.3f} s")
        source, samples = recording, recording.read(round(start * recording.rate), round(stop * recording.rate))
    piece = torch.from_numpy(resample(samples, source.rate, rate)).float()
    if piece.shape[1] < 2 * stft.n_fft:
        raise InputError(f"--noise-profile must be at least {2 * stft.n_fft / rate:.3f} s long to show a spectrum")
    if not piece.any():
        raise InputError("--noise-profile covers digital silence; choose a stretch where the noise can be heard")
    spectrum = profile_spectrum(stft, piece)
    return np.broadcast_to(spectrum, (recording.channels, spectrum.shape[1]))


def _repeat(report: Report, last: Iteration) -> Report:
    """A report that says the same, whatever it is told."""
    return lambda _: report(last)


def _wiener(estimate: Tensor, observed: Tensor, noise_power: Tensor) -> Tensor:
    """A Wiener filter on the recording, with the fitted estimate as its model of the sound.

    ``estimate`` and ``observed`` are ``[C, 2, F, T]``, ``noise_power`` is ``[C, F, T]``. A generated estimate is
    blurred where the recording is not; where it says that there is sound, the recording is more reliable.
    """
    power = estimate.square().sum(dim=1, keepdim=True)
    return observed * (power / (power + noise_power[:, None]))


#: Filters that follow a fit; to add one, write a function and give it a line.
POST_FILTERS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "none": lambda estimate, *_: estimate,
    "wiener": _wiener,
}
