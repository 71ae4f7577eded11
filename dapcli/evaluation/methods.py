"""Methods: what restores a degraded clip, and what it may know of the truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from dapcli.audio import Audio, Samples
from dapcli.baselines import BASELINES
from dapcli.errors import SettingsError
from dapcli.pipeline.result import Result
from dapcli.priors import NO_PRIOR, PRIORS
from dapcli.settings import PAPER_RATE, Settings
from dapcli.tasks import TASKS, load
from dapcli.tasks.check import check, usable_priors
from dapcli.tasks.problem import Problem

Oracle = Literal["none", "training", "noise", "reference"]


class Knowledge(NamedTuple):
    """What is said of a method that knows something: by the names of its files, by its own name, by its group."""

    suffix: str
    words: str
    heading: str


#: What a method knows besides the recording: nothing, as users do; only what it learned from other recordings; or the
#: truth about the clip, which no user has.
ORACLES: dict[Oracle, Knowledge] = {
    "none": Knowledge("", "", "blind"),
    "training": Knowledge("", " (trained)", "trained: learned from other recordings"),
    "noise": Knowledge(".oracle-noise", " (oracle noise)", "oracle noise"),
    "reference": Knowledge(".oracle", " (oracle)", "oracle: stopped by the reference"),
}
#: The baseline of every task that is the first row of its table.
UNTOUCHED = "input"


@dataclass(frozen=True)
class Estimate:
    """The sources ``[K, C, N]`` that a method makes of a recording; ``fit`` is as JSON can hold it."""

    samples: Samples
    fit: dict[str, Any] | None = None


@dataclass(frozen=True)
class Method(ABC):
    """A row of the table. Methods are sent to other processes, and therefore hold nothing but settings.

    ``name`` is what users and the table call it, ``oracle`` what it knows besides the recording.
    """

    task: str
    name: str
    settings: Settings
    device: str
    oracle: Oracle = "none"

    @abstractmethod
    def restore(self, problem: Problem[Any], truth: Samples | None) -> Estimate:
        """The estimate of a problem's references; ``truth``, them, is None for methods that must not know it."""


@dataclass(frozen=True)
class Network(Method):
    """dap with a prior: as users have it, or stopped where it is closest to the reference, as the papers report it."""

    def restore(self, problem: Problem[Any], truth: Samples | None) -> Estimate:
        """The estimate by the task's function; of an oracle's fit, only the choice of the iterate knows the truth."""
        task, recording = TASKS[self.task], problem.recording
        # One fit per clip, as in the papers, however long the clip.
        segment = max(self.settings.segment, recording.length / recording.rate)
        references = [] if truth is None else [Audio(reference, recording.rate) for reference in truth]
        result: Result = load(task.function)(
            recording,
            settings=replace(self.settings, segment=segment),
            device=self.device,
            references=references,
            **problem.arguments(task.arguments),
        )
        samples = result.estimates.read(0, recording.length)
        if not result.segments:  # there was nothing to fit to
            return Estimate(samples)
        (found,) = result.segments
        fit = {
            "parameters": found.parameters,
            "iterations": len(found.iterations),
            "best_iteration": found.best_iteration,
            "stopped_by": f"{found.rule}: {found.stopped_by}",
            "validation": found.validation,
            "loss": [each.loss for each in found.iterations],
            "pretraining_loss": [each.loss for each in result.pretraining],
        }
        if truth is not None:  # the rule's criterion is the squared error, relative to the truth's power
            errors = [each.criterion for each in found.iterations]
            defined = [truth.any() and 0 < error < np.inf for error in errors]
            snrs = [-10 * float(np.log10(e)) if d else None for e, d in zip(errors, defined, strict=True)]
            fit["snr_db"] = snrs
            if len(truth) == 1:
                # The peak of a reference over its root mean square, and what a root mean square of the STFT stands for.
                crest = 20 * float(np.log10(np.abs(truth).max() / np.sqrt(np.mean(truth**2)))) if truth.any() else 0.0
                fit["psnr_db"] = [None if snr is None else snr + crest for snr in snrs]
                scale = np.abs(problem.samples).max() * result.stft.white_gain**0.5
                left = [each.residual / scale for each in found.iterations]
                fit["input_psnr_db"] = [-20 * float(np.log10(each)) if each else None for each in left]
        return Estimate(samples, fit)


@dataclass(frozen=True)
class Peer(Method):
    """A baseline: blind, trained, or with the noise."""

    def restore(self, problem: Problem[Any], truth: Samples | None) -> Estimate:
        """The estimate of the baseline."""
        noise = None if truth is None else problem.samples - truth.sum(axis=0)
        problem = replace(problem, oracle_noise=noise, seed=self.settings.seed)
        return Estimate(BASELINES[self.task][self.name](problem))


def key(name: str, oracle: Oracle) -> str:
    """The name of a method's files."""
    return name + ORACLES[oracle].suffix


def label(name: str, oracle: Oracle) -> str:
    """The name of a method for people, with what it knows unless it is blind."""
    return name + ORACLES[oracle].words


def make_methods(
    task: str,
    priors: Sequence[str],
    baselines: Sequence[str],
    settings: Settings,
    device: str,
    *,
    oracle: bool,
    blind: bool = True,
) -> tuple[Method, ...]:
    """The rows of a table, the untouched input first; ``all`` stands for all priors, or baselines, that can be had.

    Priors are fitted as ``blind`` as users have them, with the ``oracle``'s stop, or both.

    Raises:
        SettingsError: A name is unknown, or given twice, or the settings do not suit the task.
        DeviceError: The device is not there.
    """
    methods: list[Method] = [Peer(task, UNTOUCHED, settings, device)]
    usable = usable_priors(TASKS[task], settings.estimator)
    for prior in _expand(priors, usable, (*PRIORS, NO_PRIOR), "prior"):
        chosen = replace(settings, prior=prior)
        if blind or prior == NO_PRIOR:
            methods.append(Network(task, prior, chosen, device))
        if oracle and prior != NO_PRIOR:  # which leaves nothing to choose
            methods.append(Network(task, prior, replace(chosen, stop="oracle"), device, "reference"))
    for method in methods[1:]:
        knows = method.oracle == "reference"
        check(TASKS[task], method.settings, PAPER_RATE, device=device, references=knows)
    offered = BASELINES[task]
    installed = [name for name, each in offered.items() if not each.missing]
    for name in _expand(baselines, installed, offered, "baseline"):
        if name != UNTOUCHED:
            methods.append(Peer(task, name, settings, device, "training" if offered[name].trained else "none"))
            if offered[name].oracle:
                methods.append(Peer(task, name, settings, device, "noise"))
    keys = [key(method.name, method.oracle) for method in methods]
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
