"""What dap doctor says of a machine, and of the time that a recording will take."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dapcli import Audio, Progress, Settings, denoise, speed
from dapcli.cli import app
from dapcli.errors import DeviceError, SettingsError
from dapcli.priors import PRIORS
from dapcli.settings import PRESETS

SMALL = Settings(width=2, segment=1.5, iterations=4, refinement=2)


@pytest.mark.parametrize(("seconds", "refinement"), [(1.0, 2), (4.0, 2), (4.0, 0)])
def test_an_estimate_counts_the_iterations_that_a_restoration_runs(seconds: float, refinement: int) -> None:
    settings = replace(SMALL, refinement=refinement)
    recording = Audio(0.1 * np.random.default_rng(0).standard_normal((1, round(8_000 * seconds))), 8_000)
    seen: list[Progress] = []
    denoise(recording, settings, device="cpu", parallel=1, on_step=seen.append)
    learning = [progress for progress in seen if progress.segment is None]
    # The network learns on every second frame.
    assert speed.estimate_seconds(recording, settings, 1.0) == len(seen) - len(learning) / 2
    assert len(seen) == seen[-1].total


@pytest.mark.parametrize("preset", PRESETS)
def test_speed_is_measured_where_no_rule_stops_a_fit(preset: str) -> None:
    measured = speed.measure_speed(replace(PRESETS[preset], width=2), "cpu", 0.05, (2, 4_000, 8_000))
    assert measured.seconds is not None
    assert 0 < measured.seconds < 60
    assert (measured.prior, measured.device) == ("exp-dense", "cpu")


def test_a_segment_has_the_shape_that_is_fitted() -> None:
    assert speed.segment_shape(Audio(np.zeros((2, 4_000)), 8_000), SMALL) == (2, 4_000, 8_000)
    channels, length, rate = speed.segment_shape(Audio(np.zeros((3, 80_000)), 8_000), SMALL)
    assert (channels, rate) == (3, 8_000)
    assert length <= 1.5 * 8_000


def test_doctor_prints_every_prior_and_the_estimate(clips: Path) -> None:
    arguments = ["doctor", str(clips / "brief.wav"), "--preset", "fast", "--seconds", "0.1", "--device", "cpu"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    assert all(name in result.stdout for name in (*PRIORS, "torchaudio", "cores", "estimate"))


def test_doctor_as_json_is_one_object_on_stdout() -> None:
    arguments = ["doctor", "--json", "--seconds", "0.1", "--device", "cpu", "--prior", "conv"]
    result = CliRunner().invoke(app, arguments)
    found = json.loads(result.stdout)
    assert {"dapcli", "python", "torch", "torchaudio", "cores", "devices", "speed"} <= set(found)
    assert [(row["prior"], row["estimate"]) for row in found["speed"]] == [("conv", None)]
    assert found["speed"][0]["seconds"] > 0


@pytest.mark.parametrize(
    ("option", "error"), [(("--device", "cuda:99"), DeviceError), (("--prior", "lstm"), SettingsError)]
)
def test_doctor_refuses_what_is_not_there(option: tuple[str, str], error: type[Exception]) -> None:
    assert isinstance(CliRunner().invoke(app, ["doctor", "--seconds", "0.1", *option]).exception, error)


def test_a_prior_that_does_not_fit_into_memory_is_noted_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DeviceError("out of memory")

    monkeypatch.setattr(speed, "denoise", fail)
    measured = speed.measure_speed(SMALL, "cpu", 0.1)
    assert (measured.seconds, measured.note) == (None, "out of memory")
