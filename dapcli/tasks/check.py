"""What is wrong with settings before a fit begins, and what they stand for."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch

from dapcli.errors import InputError, SettingsError
from dapcli.fit import OPTIMIZERS, STOPPING_RULES, check_rule, choose_dtype, find_device
from dapcli.priors import NO_PRIOR, PRIORS
from dapcli.settings import MAX_RATE, MIN_RATE, Settings, look_up
from dapcli.signal.stft import STFT, WINDOWS
from dapcli.tasks import TASKS, Task, load


def check(
    task: Task,
    settings: Settings,
    rate: int,
    *,
    device: str,
    parallel: int | None = None,
    references: bool = False,
) -> dict[str, Any]:
    """Check settings for a task, and return what they stand for: the fields of a :class:`~dapcli.pipeline.Solver`.

    ``rate`` is that of the recording in Hz, ``device`` and ``parallel`` are as for :func:`dapcli.denoise`. A stopping
    rule can go by clean references if ``references`` is true.

    Raises:
        InputError: dap does not work at the rate.
        SettingsError: A name is unknown, or a setting has no effect here.
        DeviceError: The device is not there.
    """
    if not isinstance(settings, Settings):
        raise SettingsError(f"settings are {settings!r}; give Settings, such as TASKS['denoise'].presets['fast']")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InputError(f"the recording's rate is {rate} Hz, outside {MIN_RATE} to {MAX_RATE} Hz; resample it first")
    look_up(settings.estimator, task.estimators, "estimator")
    estimator = task.estimators[settings.estimator]
    objective = load(estimator.objective)
    if settings.prior == NO_PRIOR:
        if not objective.validates:
            raise SettingsError(
                f"--prior none needs a classical estimate, and --estimator {settings.estimator} has none"
            )
    else:
        look_up(settings.prior, PRIORS, "prior")
        if settings.prior not in usable_priors(task, settings.estimator):
            raise SettingsError(
                f"--prior {settings.prior} makes waveforms, of which --estimator {settings.estimator} has no use; "
                "choose another of either"
            )
    look_up(settings.window_shape, WINDOWS, "window shape")
    look_up(settings.optimizer, OPTIMIZERS, "optimizer")
    rule, reason = (estimator.stop, estimator.reason) if settings.stop == "auto" else (settings.stop, "asked for")
    look_up(rule, ("auto", *STOPPING_RULES), "stopping rule")
    # Samples can be hidden from a fit where it tells sound from noise.
    noisy = "noise_profile" in task.arguments
    given = {"validation": objective.validates, "reference": references, "hidden": noisy}
    check_rule(rule, [need for need, is_given in given.items() if is_given])
    _refuse_unused(task, settings)
    if parallel is not None and not (isinstance(parallel, int) and parallel >= 1):
        raise SettingsError("--parallel must be a whole number, at least 1")
    where = find_device(device)
    working_rate = settings.rate or rate
    return {
        "settings": settings,
        "stft": STFT.for_rate(working_rate, settings.window, settings.hop, settings.window_shape),
        "rate": working_rate,
        "device": where,
        "threads": torch.get_num_threads(),
        "dtype": choose_dtype(settings.precision, where),
        "objective": objective,
        "rule": rule,
        "rule_reason": reason,
    }


def usable_priors(task: Task, estimator: str) -> list[str]:
    """The priors that an estimator of a task can be used with.

    Raises:
        SettingsError: The task has no such estimator.
    """
    look_up(estimator, task.estimators, "estimator")
    waveforms = load(task.estimators[estimator].objective).waveforms
    return [name for name, prior in PRIORS.items() if waveforms or not prior.waveform]


def _refuse_unused(task: Task, settings: Settings) -> None:
    """Raise ``SettingsError`` where a setting has a value of its own, and no effect."""
    if settings.prior != "dilated" and settings.dilation != Settings.dilation:
        raise SettingsError("--dilation belongs to --prior dilated; the other priors have their own")
    if settings.prior != NO_PRIOR and PRIORS[settings.prior].waveform and settings.fold > 1:
        raise SettingsError(f"--fold is for spectrograms, and --prior {settings.prior} makes waveforms; leave it out")
    for each in fields(Settings):
        usual = {getattr(preset, each.name) for preset in task.presets.values()}
        if getattr(settings, each.name) in usual:
            continue
        tasks, estimators = each.metadata["tasks"], each.metadata["estimators"]
        flag = f"--{each.name.replace('_', '-')}"
        if tasks and task not in [TASKS[name] for name in tasks]:
            raise SettingsError(f"{flag} is for {' and '.join(tasks)}; leave it out")
        if estimators and settings.estimator not in estimators:
            raise SettingsError(f"{flag} is for --estimator {' or '.join(estimators)}; leave it out")
