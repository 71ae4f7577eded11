"""Settings, their presets and the table of tasks: what is refused before a fit, and that no line is wrong."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dapcli.errors import SettingsError
from dapcli.priors import NO_PRIOR
from dapcli.settings import Settings, choose_settings
from dapcli.tasks import TASKS
from dapcli.tasks.check import check

FIELDS = {each.name: each for each in fields(Settings)}
NUMBERS = [name for name, each in FIELDS.items() if "int" in str(each.type) or "float" in str(each.type)]
OWN = {each.name: each for task in TASKS.values() for each in fields(task.options) if each.metadata}
LIMITED = [(name, task) for name in FIELDS for task in TASKS if task not in (FIELDS[name].metadata["tasks"] or TASKS)]
ESTIMATORS = [(name, estimator) for name, task in TASKS.items() for estimator in task.estimators]


def checked(task: str, settings: Settings, **options: Any) -> dict[str, Any]:
    return check(TASKS[task], settings, 16_000, **{"device": "cpu", "references": True, **options})


def preset_of(task: str, estimator: str) -> Settings:
    return next(each for each in TASKS[task].presets.values() if each.estimator == estimator)


# Fields and their metadata


def test_every_option_has_a_help_and_every_number_limits() -> None:
    for each in (FIELDS | OWN).values():
        assert each.metadata["help"]
        assert each.metadata["panel"]
        assert set(each.metadata["tasks"]) <= TASKS.keys()
    for name in NUMBERS:
        assert any(math.isfinite(FIELDS[name].metadata[limit]) for limit in ("above", "least", "below")), name


@st.composite
def outside(draw: st.DrawFn) -> tuple[str, float]:
    """A field and a value that it must not have."""
    name = draw(st.sampled_from(NUMBERS))
    limits = FIELDS[name].metadata
    whole = "int" in str(FIELDS[name].type)
    distance = draw(st.integers(min_value=0) if whole else st.floats(min_value=0.0, allow_nan=False))
    values = [
        limits["above"] - distance,
        limits["least"] - distance - (1 if whole else 1e-6),
        limits["below"] + distance,
    ]
    # No limit is infinitely far away, and infinity is no number either.
    allowed = [each for each in values if not whole or math.isfinite(each)] + ([] if whole else [math.nan])
    return name, draw(st.sampled_from(allowed))


@given(outside())
def test_numbers_outside_their_limits_are_refused_by_the_name_of_the_option(case: tuple[str, float]) -> None:
    name, value = case
    with pytest.raises(SettingsError, match=f"--{name.replace('_', '-')} must be"):
        replace(Settings(), **{name: value})  # type: ignore[arg-type]


def test_the_least_values_are_allowed_unless_lengths_do_not_go_together() -> None:
    for name, least in ((name, FIELDS[name].metadata["least"]) for name in NUMBERS):
        assert not math.isfinite(least) or getattr(replace(Settings(), **{name: least}), name) == least
    for changes, named in (({"hop": 0.05}, "--hop"), ({"window": 1.2}, "--segment")):
        with pytest.raises(SettingsError, match=named):
            replace(Settings(), **changes)  # type: ignore[arg-type]


# The table of tasks


@pytest.mark.parametrize(("name", "task"), LIMITED)
def test_a_setting_of_other_tasks_is_refused(name: str, task: str) -> None:
    value = 24_000 if name == "rate" else 7 if name in NUMBERS else "another"
    settings = replace(TASKS[task].presets["quality"], **{name: value})  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=f"--{name.replace('_', '-')} is for denoise"):
        checked(task, settings)


@pytest.mark.parametrize(("task", "estimator"), ESTIMATORS)
def test_only_an_estimator_with_a_classical_estimate_does_without_a_network(task: str, estimator: str) -> None:
    settings = replace(preset_of(task, estimator), prior=NO_PRIOR)
    if estimator in ("ensemble", "ratio-mask"):
        assert checked(task, settings)["settings"] is settings
    else:
        with pytest.raises(SettingsError, match=f"--prior none.*--estimator {estimator}"):
            checked(task, settings)


# What is refused


@pytest.mark.parametrize(
    ("task", "changes", "reason"),
    [
        ("denoise", {"prior": "lstm"}, "unknown prior 'lstm'; choose one of conv"),
        ("denoise", {"estimator": "ensemble"}, "unknown estimator 'ensemble'; choose one of mask, generate"),
        ("denoise", {"optimizer": "sgd"}, "unknown optimizer"),
        ("denoise", {"window_shape": "kaiser"}, "unknown window shape 'kaiser'; choose one of hann, box"),
        ("denoise", {"precision": "float16"}, "unknown precision"),
        ("inpaint", {"estimator": "generate", "stop": "validation"}, "--stop validation.*validation error"),
    ],
)
def test_settings_that_do_not_suit_a_task_are_refused(task: str, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        checked(task, replace(TASKS[task].presets["quality"], **changes))


# Presets


def test_what_is_given_takes_the_place_of_the_preset_s_and_an_estimator_brings_its_own() -> None:
    presets = TASKS["denoise"].presets
    for preset, estimator, same in (("fast", "generate", "generate"), ("paper", "generate", "paper")):
        assert choose_settings(presets, preset, {"estimator": estimator}) == presets[same]
    assert choose_settings(presets, "fast", {"seed": None, "iterations": None}) == presets["fast"]
    assert choose_settings(presets, "fast", {"seed": 0, "fold": 1}) == replace(presets["fast"], seed=0, fold=1)
    with pytest.raises(SettingsError, match="choose one of quality, fast, generate, paper"):
        choose_settings(presets, "best", {})
    with pytest.raises(SettingsError, match="--iterations"):
        choose_settings(presets, "fast", {"iterations": 0})
