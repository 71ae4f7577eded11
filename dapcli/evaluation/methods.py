"""Methods: what restores a damaged clip, and what it may know of the truth."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import numpy as np

from dapcli.audio import Audio, Samples
from dapcli.baselines import BASELINES, Baseline, Observed, noise_power
from dapcli.errors import SettingsError
from dapcli.evaluation.cases import Known, Truth
from dapcli.pipeline.result import Result
from dapcli.priors import PRIORS
from dapcli.settings import Settings
from dapcli.tasks._api_restore import denoise, repair
from dapcli.tasks._api_separation import separate

#: What a method knows besides the recording: nothing, as users do; nothing but what it learned from other recordings;
#: or the truth about the clip, its noise or its reference, which no user has.
Told = Literal["nothing", "training", "noise", "reference"]
#: Who is handed the truth.
KNOWING: tuple[Told, ...] = ("noise", "reference")

# Baselines that return what they are given, each under the name that its task has for it; here it is the first row.
_UNTOUCHED = ("input", "silence", "mixture")


@dataclass(frozen=True)
class Estimate:
    """What a method makes of a recording: ``[K, C, N]`` with K sources; ``fit`` is as JSON can hold it."""

    samples: Samples
    fit: dict[str, Any] | None = None


class Method(Protocol):
    """A row of the table. Methods are sent to other processes, and therefore hold nothing but settings."""

    @property
    def name(self) -> str:
        """What it is called, by users and in the table."""
        ...

    @property
    def told(self) -> Told:
        """What it knows besides the recording."""
        ...

    def restore(self, known: Known, truth: Truth | None) -> Estimate:
        """The estimate of what was damaged; ``truth`` is None for methods that are not told it."""
        ...


@dataclass(frozen=True)
class Untouched:
    """The damaged recording itself: what every method has to beat."""

    name: str = "input"
    told: Told = "nothing"

    def restore(self, known: Known, truth: Truth | None) -> Estimate:
        """The recording, for every source."""
        del truth
        return Estimate(np.stack([known.recording.samples] * known.sources))


@dataclass(frozen=True)
class Blind:
    """dap with a prior, as users have it."""

    name: str
    settings: Settings
    device: str
    told: Told = "nothing"

    def restore(self, known: Known, truth: Truth | None) -> Estimate:
        """What dap restores without a reference."""
        del truth
        samples, result = _fit(known, self.settings, self.device, None)
        return Estimate(samples, _describe(result))


@dataclass(frozen=True)
class Oracle:
    """dap with a prior, stopped where the estimate is closest to the reference: what the papers report."""

    name: str
    settings: Settings
    device: str
    told: Told = "reference"

    def restore(self, known: Known, truth: Truth | None) -> Estimate:
        """The same fit as the blind one's; only the choice of the iterate knows the reference."""
        assert truth is not None
        samples, result = _fit(known, replace(self.settings, stop="oracle"), self.device, truth.references)
        fit = _describe(result)
        if fit is not None:
            # The rule's criterion is the mean squared error.
            power = float(np.mean(truth.references**2))
            fit["snr_db"] = [_decibels(power, step.criterion) for step in result.segments[0].steps]
        return Estimate(samples, fit)


@dataclass(frozen=True)
class Peer:
    """A baseline: blind, trained, or told the noise spectrum."""

    task: str
    name: str
    seed: int
    told: Told = "nothing"

    def restore(self, known: Known, truth: Truth | None) -> Estimate:
        """What the baseline makes of the recording."""
        recording = known.recording
        noise = None if truth is None else truth.noise
        observed = Observed(
            recording.samples,
            recording.rate,
            known.degradation,
            None if noise is None else noise_power(noise, recording.rate),
            known.kinds,
            self.seed,
        )
        return Estimate(BASELINES[self.task][self.name](observed))


def key(name: str, told: str) -> str:
    """What a method's files are called."""
    return name + {"nothing": "", "training": "", "noise": ".told", "reference": ".oracle"}[told]


def label(name: str, told: str) -> str:
    """What people read of a method: its name and, unless it is blind, that it is not."""
    return name + {"nothing": "", "training": " (trained)", "noise": " (told)", "reference": " (oracle)"}[told]


def make_methods(
    task: str, priors: Sequence[str], baselines: Sequence[str], settings: Settings, device: str, *, oracle: bool
) -> tuple[Method, ...]:
    """The rows of a table, the untouched input first; ``all`` stands for all priors, or all baselines of the task.

    Raises:
        SettingsError: A name is unknown, or given twice.
    """
    methods: list[Method] = [Untouched()]
    for prior in _expand(priors, PRIORS, PRIORS, "prior"):
        chosen = replace(settings, prior=prior)
        methods.append(Blind(prior, chosen, device))
        if oracle:
            methods.append(Oracle(prior, chosen, device))
    offered = BASELINES[task]
    for name in _expand(baselines, _installed(offered), offered, "baseline"):
        if name in _UNTOUCHED:
            continue
        methods.append(Peer(task, name, settings.seed, told="training" if offered[name].trained else "nothing"))
        if offered[name].told:
            methods.append(Peer(task, name, settings.seed, told="noise"))
    keys = [key(method.name, method.told) for method in methods]
    for each in keys:
        if keys.count(each) > 1:
            raise SettingsError(f"two methods are called {each!r}; name each once, and all alone")
    return tuple(methods)


def _expand(names: Sequence[str], every: Iterable[str], registry: Collection[str], kind: str) -> list[str]:
    """Names, with ``every`` of the registry in place of ``all``."""
    for name in names:
        if name != "all" and name not in registry:
            raise SettingsError(f"unknown {kind} {name!r}; choose one of {', '.join(('all', *registry))}")
    return [each for name in names for each in (every if name == "all" else [name])]


def _installed(baselines: Mapping[str, Baseline]) -> list[str]:
    return [name for name, each in baselines.items() if all(find_spec(package) for package in each.packages)]


def _fit(known: Known, settings: Settings, device: str, references: Samples | None) -> tuple[Samples, Result]:
    """The estimate ``[K, C, N]`` and how it came about."""
    # One fit per clip, as in the papers, however long the clip.
    seconds = known.recording.length / known.recording.rate
    settings = replace(settings, segment=max(settings.segment, seconds))
    clean = None if references is None else [Audio(reference, known.recording.rate) for reference in references]
    if known.kinds:
        separation = separate(known.recording, known.kinds, settings, device=device, references=clean)
        return np.stack([source.samples for source in separation.audio]), separation.result
    reference = clean[0] if clean else None
    if known.degradation is None:
        result = denoise(known.recording, settings, device=device, reference=reference)
    else:
        result = repair(known.recording, known.degradation, settings, device=device, reference=reference)
    return result.audio.samples[None], result


def _describe(result: Result) -> dict[str, Any] | None:
    """The fit as JSON can hold it; None where there was nothing to fit to."""
    if not result.segments:
        return None
    (fit,) = result.segments
    return {
        "parameters": fit.parameters,
        "iterations": len(fit.steps),
        "best_iteration": fit.best_iteration,
        "stopped_by": f"{fit.rule}: {fit.stopped_by}",
        "loss": [step.loss for step in fit.steps],
        "learning_loss": [step.loss for step in result.learning],
    }


def _decibels(power: float, error: float) -> float | None:
    return 10 * float(np.log10(power / error)) if power > 0 and error > 0 else None
