"""What this machine is, how fast it fits, and how long a recording will take."""

from __future__ import annotations

import math
import os
import platform
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dapcli
from dapcli.audio import Audio, Recording, resample
from dapcli.errors import DeviceError
from dapcli.fit import choose_dtype, find_device
from dapcli.pipeline.run import PRETRAINED_SEGMENTS, Progress, choose_parallel
from dapcli.pipeline.segments import plan
from dapcli.settings import PAPER_RATE, Settings
from dapcli.tasks import TASKS
from dapcli.tasks.check import check
from dapcli.tasks.denoise import COARSENESS, Denoiser, denoise

#: What is measured where there is no recording: one second of mono at the papers' rate.
USUAL_SHAPE = (1, PAPER_RATE, PAPER_RATE)
# The first iterations allocate memory and choose kernels.
_WARM_UP = 2


@dataclass(frozen=True)
class Speed:
    """The speed of one prior on one device: ``seconds`` per iteration, None with a ``note`` where it cannot run."""

    prior: str
    device: str
    dtype: str
    seconds: float | None
    note: str = ""


def describe_machine() -> dict[str, Any]:
    """Versions, processor, cores, and the devices that fits can run on."""
    cuda = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "dapcli": dapcli.__version__,
        "python": platform.python_version(),
        "torch": version("torch"),
        "torchaudio": version("torchaudio"),
        "cuda": torch.version.cuda if cuda else None,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": {
            "cpu": f"computes in {_type_name(choose_dtype('auto', torch.device('cpu')))}",
            **{f"cuda:{index}": f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for index, gpu in enumerate(cuda)},
            **({"mps": "Apple GPU"} if torch.backends.mps.is_available() else {}),
        },
    }


def measure_speed(settings: Settings, device: str, seconds: float, shape: tuple[int, int, int] = USUAL_SHAPE) -> Speed:
    """Fit noise of a ``shape`` (channels, samples, rate in Hz) for some ``seconds``, and take the time.

    Raises:
        DeviceError: The device is not there.
        SettingsError: A setting is unknown.
    """
    channels, length, rate = shape
    where = find_device(device)
    name = _type_name(choose_dtype(settings.precision, where))
    samples = np.random.default_rng(0).standard_normal((channels, length))
    times: list[float] = []

    def watch(_: Progress) -> None:
        times.append(time.perf_counter())
        if len(times) > _WARM_UP and times[-1] - times[0] > seconds:
            raise _EnoughError

    # No rule may end it, and one segment is all that is measured.
    endless = replace(
        settings,
        iterations=10**9,
        finetune_iterations=0,
        stop="fixed",
        segment=max(settings.segment, 2 * length / rate),
    )
    try:
        denoise(Audio(0.1 * samples, rate), endless, device=device, parallel=1, on_step=watch)
    except _EnoughError:
        times = times[_WARM_UP - 1 :]
        return Speed(settings.prior, device, name, (times[-1] - times[0]) / (len(times) - 1))
    except DeviceError as error:  # its memory does not suffice
        return Speed(settings.prior, device, name, None, str(error))
    raise AssertionError("a billion iterations do not end")


def segment_shape(recording: Recording, settings: Settings) -> tuple[int, int, int]:
    """Channels, samples and rate (Hz) of the segments that a recording is fitted in."""
    start, stop = plan(recording, settings)[0]
    return recording.channels, stop - start, recording.rate


def estimate_seconds(recording: Recording, settings: Settings, device: str, seconds_per_iteration: float) -> float:
    """How long the fits of a recording will take, given the time of one iteration on one of its segments.

    The noise of a segment is estimated for that, and timed.
    """
    solver = Denoiser(**check(TASKS["denoise"], settings, recording.rate, device=device))
    pretraining, each = solver.iterations
    segments = plan(recording, settings)
    samples = resample(recording.read(*segments[0]), recording.rate, solver.rate)
    started = time.perf_counter()
    solver.noises([samples])
    preparation = time.perf_counter() - started
    pretrained = math.ceil(min(len(segments), PRETRAINED_SEGMENTS) / solver.threads) * preparation if pretraining else 0
    in_turn = math.ceil(len(segments) / choose_parallel(solver))
    iterations = pretraining / COARSENESS + each * in_turn
    return pretrained + in_turn * preparation + iterations * seconds_per_iteration


class _EnoughError(Exception):
    """Ends a fit whose speed is known."""


def _type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _processor() -> str:
    """The processor's name, which Python itself does not know on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
