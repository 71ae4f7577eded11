"""How tests call ``dap``, the recordings that they call it on, and what they look at after it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from dapcli.fit.optimizers import Adam
from tests.signals import RATE, Samples, clicks, tone

MAIN = "from dapcli.cli import main; main()"
TINY = ("--iterations", "2", "--base-channels", "4", "--device", "cpu")
GAPS = ((1600, 1840), (2800, 2920))
GIVEN = ("--gap", "0.2:0.23", "--gap", "2800n:2920n")
LEVEL = 0.2
LEVELS = 16
#: A command of every task on a recording of its kind.
COMMANDS: dict[str, tuple[str, ...]] = {
    "denoise": ("denoise", "brief.wav", "out.wav", "--finetune-iterations", "1", *TINY),
    "inpaint": ("inpaint", "gaps.wav", "out.wav", *GIVEN, *TINY),
    "declip": ("declip", "clipped.wav", "out.wav", *TINY),
    "dequantize": ("dequantize", "quantized.wav", "out.wav", *TINY),
    "separate": ("separate", "mix.wav", "out", "--prior", "conv", *TINY),
}
#: References for all commands of a kind.
SOURCES = ("--reference", "tone.wav", "--reference", "clicks.wav")


@dataclass(frozen=True)
class Run:
    """What one call of ``dap`` left: its exit code and what it printed."""

    code: int
    out: str
    err: str


Dap = Callable[..., Run]


def ok(run: Run) -> Run:
    assert run.code == 0, run.err
    return run


def assert_refused(run: Run, code: int, reason: str = "") -> None:
    """One line on stderr that says why, nothing on stdout."""
    assert run.code == code, run.err
    assert run.out == ""
    assert re.fullmatch(r"dap: [^\n]+\n", run.err), run.err
    assert "Traceback" not in run.err
    assert "internal error" not in run.err
    assert re.search(reason, run.err), run.err


def process(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Code that runs in a fresh process, in the current folder, with these arguments of ``dap``.

    It has one thread, which waits without turning round: other programs run too.
    """
    return subprocess.Popen(
        [sys.executable, "-B", "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
    )


def count_steps(monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None, after: int = 0) -> list[None]:
    """Count the steps of optimizers, and let all ``after`` so many raise an error if there is one."""
    step = Adam.step  # Muon takes one of Adam's for biases
    steps: list[None] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        steps.append(None)
        if error is not None and len(steps) > after:
            raise error
        return step(*arguments, **options)

    monkeypatch.setattr(Adam, "step", counted)
    return steps


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read(path: Path) -> Samples:
    # Not by its name, which need not be UTF-8.
    samples, _ = soundfile.read(io.BytesIO(path.read_bytes()), dtype="float64", always_2d=True)
    return np.asarray(samples.T)


def written(folder: Path) -> list[Path]:
    """The outputs of a command of :data:`COMMANDS`."""
    return [*folder.glob("out.wav"), *sorted(folder.glob("out/*.wav"))]


def record_of(path: Path) -> dict[str, Any]:
    """The record of an output, or of a folder of sources."""
    file = path / "separation.json" if path.is_dir() else path.with_name(f"{path.name}.json")
    record: dict[str, Any] = json.loads(file.read_text())
    return record


# Recordings


def sound(seconds: float = 0.5, channels: int = 1) -> Samples:
    """Harmonics of another pitch in every channel, [C, N], that are nowhere zero for long."""
    t = np.arange(round(seconds * RATE)) / RATE
    pitch = 220.0 * (1 + np.arange(channels))[:, None, None]
    k = np.arange(1, 4)[:, None]
    tones = (np.sin(2 * np.pi * pitch * k * t + k) / k).sum(axis=1)
    return np.asarray(0.2 * tones * (1.2 + np.sin(2 * np.pi * 3 * t)))


def quantized(samples: Samples) -> Samples:
    step = 2 / LEVELS
    return np.asarray((np.floor(samples / step) + 0.5) * step)


def missing(channels: int = 1, gaps: tuple[tuple[int, int], ...] = GAPS, length: int = 4000) -> np.ndarray:
    mask = np.zeros((channels, length), dtype=np.bool_)
    for start, stop in gaps:
        mask[:, start:stop] = True
    return mask


def write_recordings(folder: Path) -> None:
    """Recordings of every degradation, masks of gaps, mixtures and their sources, beside what is there."""

    def write(name: str, samples: Samples, subtype: str = "PCM_16") -> None:
        soundfile.write(folder / name, samples.T, RATE, subtype=subtype)

    clean, stereo, long = sound(), sound(channels=2), sound(3.0)
    write("whole.wav", clean)
    write("gaps.wav", np.where(missing(), 0, clean))
    write("gaps2.wav", np.where(missing(2), 0, stereo), "FLOAT")
    write("gaps3.flac", np.where(missing(2), 0, stereo), "PCM_24")
    one_sided = stereo.copy()
    one_sided[1, 1600:1840] = 0
    write("right.wav", one_sided)
    write("long_gaps.wav", np.where(missing(1, ((2_400, 2_500),), 24_000), 0, long))
    write("clipped.wav", np.clip(clean, -LEVEL, LEVEL))
    write("clipped2.wav", np.clip(stereo, -LEVEL, LEVEL), "FLOAT")
    write("high.wav", np.clip(5 * clean, -0.9, 0.9))
    write("quantized.wav", quantized(clean))
    write("quantized2.wav", quantized(stereo), "FLOAT")
    write("mask.wav", np.where(missing(), 0.0, 1.0))
    (folder / "mask.csv").write_text("start,end\n0.2,0.23\n0.35,0.365\n")

    steady, struck = tone(440, 0.5), clicks(0.5)
    stereo = np.concatenate([steady + struck, steady - struck])
    write("tone.wav", steady)
    write("clicks.wav", struck)
    write("mix.wav", steady + struck)
    write("mix2.flac", stereo, "PCM_24")
    write("mix4.wav", stereo, "PCM_U8")
    write("mix5.ogg", steady + struck, "VORBIS")
    write("long_mix.wav", tone(440, 3.0) + clicks(3.0))
    (folder / "mix.dat").write_bytes((folder / "mix.wav").read_bytes())
