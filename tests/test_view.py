"""What fits see of a recording: every task has the same result at any level, and channels that are equal stay equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dapcli import TASKS, Audio, denoise, restore, separate
from dapcli.signal.clipping import detect_clipping
from dapcli.signal.gaps import Gaps
from dapcli.signal.missing import Missing
from dapcli.signal.quantization import detect_quantization
from tests.signals import RATE, Samples, clicks, noise, snr_db, tone

#: A task and a preset for each of its estimators.
CASES = [
    (name, preset)
    for name, task in TASKS.items()
    for preset in ("fast", "generate", "double-dip")
    if preset in task.presets
]
EVERY_TASK = pytest.mark.parametrize(("task", "preset"), CASES)
GAPS = ((1_000, 1_040),)


def observed(task: str, channels: int = 1) -> Samples:
    """A recording ``[C, N]`` as the task is for, of another pitch in every channel."""
    tones = np.concatenate([tone(330.0 * number, 0.3) for number in range(1, channels + 1)])
    made: dict[str, Callable[[], Samples]] = {
        "denoise": lambda: tones + noise(*tones.shape, std=0.05),
        "inpaint": lambda: np.where(Gaps((GAPS,) * channels).mask(0, tones.shape[1]), 0.0, tones),
        "declip": lambda: np.clip(tones, -0.2, 0.25),
        "dequantize": lambda: np.round(8 * tones) / 8,
        "separate": lambda: tones + clicks(0.3),
    }
    return made[task]()


def solved(task: str, preset: str, samples: Samples) -> Samples:
    """The estimates ``[K, C, N]``; what is known of the recording is detected but for its gaps."""
    recording = Audio(samples, RATE)
    small: dict[str, Any] = {"prior": "conv", "base_channels": 2, "iterations": 2, "hop": 0.016}
    settings = replace(TASKS[task].presets[preset], **small, finetune_iterations=int(task == "denoise"))
    if task == "denoise":
        result = denoise(recording, settings, device="cpu")
    elif task == "separate":
        result = separate(recording, settings=settings, device="cpu")
    else:
        found: dict[str, Callable[[Audio], Any]] = {
            "inpaint": lambda audio: Missing(Gaps((GAPS,) * audio.channels)),
            "declip": detect_clipping,
            "dequantize": detect_quantization,
        }
        result = restore(recording, found[task](recording), settings, device="cpu")
    return result.estimates.read(0, recording.length)


@EVERY_TASK
def test_the_result_is_the_same_at_any_level(task: str, preset: str) -> None:
    samples = observed(task)
    usual = solved(task, preset, samples)
    np.testing.assert_array_equal(solved(task, preset, 2.0**-13 * samples), 2.0**-13 * usual)
    # Others round, and the papers' estimators paint at the level that they are given, to a factor of two.
    for gain in (1e-4, 1e4):
        assert snr_db(usual, solved(task, preset, gain * samples) / gain) > (30 if preset == "fast" else 5)


@EVERY_TASK
def test_equal_channels_stay_equal_up_to_their_sign_and_silent_ones_silent(task: str, preset: str) -> None:
    one, other = observed(task, 2)
    # It is not clipped alike upside down.
    sign = 1 if task == "declip" else -1
    found = solved(task, preset, np.stack([np.zeros_like(one), one, other, one, sign * one]))
    pair = solved(task, preset, np.stack([one, other]))
    np.testing.assert_array_equal(found[:, [1, 2]], pair)
    np.testing.assert_array_equal(found[:, 3], found[:, 1])
    np.testing.assert_array_equal(found[:, 4], sign * found[:, 1])
    assert not found[:, 0].any()
    assert not np.signbit(found[:, 0]).any()
