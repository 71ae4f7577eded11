"""What is said of a machine, and of the time that a recording will take."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest

from dapcli import TASKS, Audio, Progress, Settings, denoise
from dapcli.errors import DeviceError, SettingsError
from dapcli.tasks import speed
from tests.signals import noise

SMALL = Settings(prior="conv", base_channels=2, segment=1.5, hop=0.016, iterations=4, finetune_iterations=2)


@pytest.mark.parametrize(("seconds", "finetune"), [(1.0, 2), (4.0, 2), (4.0, 0)])
def test_an_estimate_counts_the_iterations_that_a_restoration_runs(seconds: float, finetune: int) -> None:
    settings = replace(SMALL, finetune_iterations=finetune)
    recording = Audio(noise(1, round(8_000 * seconds)), 8_000)
    seen: list[Progress] = []
    result = denoise(recording, settings, device="cpu", parallel=1, on_step=seen.append)
    pretraining = [progress for progress in seen if progress.segment is None]
    assert result.pretraining == tuple(progress.iteration for progress in pretraining)
    # The network is pretrained on every second frame.
    expected = len(seen) - len(pretraining) / 2
    assert speed.estimate_seconds(recording, settings, "cpu", 100.0) / 100 == pytest.approx(expected, abs=0.1)
    assert len(seen) == seen[-1].total


@pytest.mark.parametrize("preset", ["fast", "generate"])
def test_speed_is_measured_where_no_rule_stops_a_fit(preset: str) -> None:
    tiny = replace(TASKS["denoise"].presets[preset], base_channels=2)
    measured = speed.measure_speed(tiny, "cpu", 0.05, (2, 4_000, 8_000))
    assert 0 < (measured.seconds or 0) < 60
    assert (measured.prior, measured.device) == ("exp-dense", "cpu")


def test_a_segment_has_the_shape_that_is_fitted_and_a_machine_versions_cores_and_a_cpu() -> None:
    assert speed.segment_shape(Audio(np.zeros((2, 4_000)), 8_000), SMALL) == (2, 4_000, 8_000)
    channels, length, rate = speed.segment_shape(Audio(np.zeros((3, 80_000)), 8_000), SMALL)
    assert (channels, rate) == (3, 8_000)
    assert length <= 1.5 * 8_000
    machine = speed.describe_machine()
    assert {"dapcli", "python", "torch", "torchaudio", "cores", "threads", "processor"} <= machine.keys()
    assert "computes in" in machine["devices"]["cpu"]


def test_what_is_not_there_is_refused_and_what_does_not_fit_into_memory_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    for settings, device in ((SMALL, "cuda:99"), (replace(SMALL, prior="lstm"), "cpu")):
        with pytest.raises((DeviceError, SettingsError)):
            speed.measure_speed(settings, device, 0.1)
    monkeypatch.setattr(speed, "denoise", Mock(side_effect=DeviceError("out of memory")))
    measured = speed.measure_speed(SMALL, "cpu", 0.1)
    assert (measured.seconds, measured.note) == (None, "out of memory")
