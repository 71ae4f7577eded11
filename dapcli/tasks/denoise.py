"""``denoise``: its function, its solver, and its problem on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dapcli.audio import Audio, Recording, Samples, open_audio, resample
from dapcli.audio.files import digest
from dapcli.audio.recording import check_recording, count_channels
from dapcli.audio.view import View
from dapcli.errors import InputError, SettingsError
from dapcli.fit import STOPPING_RULES, Iteration, StopContext, fit
from dapcli.objectives.alternating import Alternating
from dapcli.pipeline.result import Result
from dapcli.pipeline.run import OnStep, Pipeline
from dapcli.pipeline.solver import Report, Segment, SegmentFit, Solver, Weights
from dapcli.pipeline.store import Store
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
        objectives = [self.objective(setup.tensor(each), self.noise(each).every(stride), setup) for each in segments]
        objective = Alternating(objectives, self.settings.iterations, self.settings.seed)
        network = self.build(objective, setup)
        assert network is not None
        rule = STOPPING_RULES["fixed"](StopContext(setup.stft, setup.tensor(segments[0])))
        # What is wanted are the weights; their estimates are of different segments.
        settings = replace(self.settings, ema_decay=0.0)
        fit(network, objective, rule, settings, self.dtype, setup.generator, report)
        return {name: weights.cpu() for name, weights in network.state_dict().items()}

    def fit_segment(self, segment: Segment, report: Report) -> tuple[Tensor, SegmentFit]:
        """The estimate ``[1, C, N]`` of a segment without its noise, and its record."""
        samples, noise = self.setup().tensor(segment.samples), self.noise(segment.samples)
        visible, hidden = samples, None
        if STOPPING_RULES[self.rule].needs == "hidden":
            visible, hidden = _hide(samples, self.settings.seed)
        observed = self.stft.forward(samples)
        again = (self.settings.seed + 1) % 2**63
        notes: list[str] = []
        # A mask that lets the noise pass is fitted anew from other weights.
        for seed in (self.settings.seed, again):
            setup = self.setup(seed)
            objective = self.objective(visible, noise, setup)
            network, tuned = self.build(objective, setup, segment.weights), segment.weights is not None
            rule = self.rule_for(segment, setup, hidden)
            fitted = fit(network, objective, rule, self.settings, self.dtype, setup.generator, report, finetune=tuned)
            estimate = fitted.estimate[0]
            if self.objective.generates or not _lets_noise_pass(estimate, observed, noise):
                break
            notes = [_PASSED if notes else f"the fit let the noise pass; fitted again with seed {again}"]
            # Progress stays where it is, and a thread that is to stop still learns of it.
            segment, report = replace(segment, weights=None), _repeat(report, fitted.iterations[-1])
        if not self.objective.generates:
            estimate, limited = self._limit(estimate, observed, noise)
            notes += [_LIMITED] if limited else []
        mean = noise.power.mean(dim=2)
        level = noise_std(mean.double().cpu().numpy(), self.stft) / (PROFILE_MARGIN**0.5 if noise.known else 1)
        filtered = POST_FILTERS[self.settings.post_filter](estimate, observed, noise.power)
        restored = self.stft.inverse(filtered, samples.shape[1])[None]
        record = self.record(fitted, network, segment)
        return restored, replace(record, noise_std=level, white_noise=noise.white, notes=tuple(notes))

    def _limit(self, estimate: Tensor, observed: Tensor, noise: Noise) -> tuple[Tensor, bool]:
        """An estimate that is a recording with gains, both ``[C, 2, F, T]``, with more left of it.

        The second value is true where little was changed, for what seems to be noise may be the recording's own.
        """
        power, gain = observed.square().sum(dim=1), _gain(estimate, observed)
        if self.settings.attenuation_limit is None:
            gain, limited = protect(gain, power, noise, self.rate / self.stft.n_fft)
            return gain[:, None] * observed, limited
        return gain.clamp(min=10 ** (-self.settings.attenuation_limit / 20))[:, None] * observed, False

    def noise(self, samples: Samples) -> Noise:
        """The noise of samples ``[C, N]``, on the device."""
        model = self.settings.noise_model
        single = torch.from_numpy(samples).float()
        return estimate_noise(self.stft, single, self.rate, model, self.profile).to(self.device)


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
