"""How tests call ``dap``, the recordings that they call it on, and what they look at after it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tests.signals import RATE, Samples, clicks, tone

#: Section "contract" of the design; keys may be added.
CONTRACT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("task", "input", "output", "seed", "device", "dtype", "sample_rate", "channels", "samples"), ()),
    **dict.fromkeys(("post_filter", "gain", "notes"), ()),
    "stft": ("n_fft", "hop", "window_s", "hop_s"),
    "prior": ("name", "parameters", "receptive_field"),
    "fit": ("iterations", "best_iteration", "stopped_by", "seconds", "iterations_per_second", "loss", "validation"),
    "noise": ("std", "input_snr_db_estimated"),
    "metrics": (
        *("snr_db", "psnr_db", "si_sdr_db", "spectral_snr_db", "envelope_distance", "pesq_wb", "pesq_nb", "stoi"),
        *("csig", "cbak", "covl"),
    ),
    "metrics_input": ("snr_db", "pesq_wb"),
    "versions": ("dapcli", "torch", "torchaudio", "python"),
}
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


def process(
    code: str, *arguments: str, stderr: int = subprocess.PIPE, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Code that runs in a fresh process, in the current folder, with these arguments of ``dap``.

    Its threads wait without turning round, and there is one of them unless said otherwise: other programs run too.
    """
    patient = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(
        [sys.executable, "-B", "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env={**os.environ, **patient, **(environment or {})},
    )


def spawn(code: str, *arguments: str, **environment: str) -> Run:
    """What such a process leaves when it has ended."""
    with process(code, *arguments, environment=environment) as running:
        out, err = running.communicate(timeout=120)
    return Run(running.returncode, out, err)


def count_steps(monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None, after: int = 0) -> list[None]:
    """Count the steps of optimizers, and let all ``after`` so many raise an error if there is one."""
    step = torch.optim.Adam.step  # Muon takes one of Adam's for biases
    steps: list[None] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        steps.append(None)
        if error is not None and len(steps) > after:
            raise error
        return step(*arguments, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", counted)
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
    file = path / "separation.json" if path.is_dir() else path.with_suffix(".json")
    record: dict[str, Any] = json.loads(file.read_text())
    return record


def assert_contract(record: dict[str, Any]) -> None:
    for key, parts in CONTRACT.items():
        assert key in record
        assert set(parts) <= set(record[key] if parts else ())


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

    def write(name: str, samples: Samples, subtype: str = "PCM_16", rate: int = RATE) -> None:
        soundfile.write(folder / name, samples.T, rate, subtype=subtype)

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
    mask = np.where(missing(), 0.0, 1.0)
    write("mask.wav", mask)
    write("short_mask.wav", mask[:, :3999])
    write("fast_mask.wav", mask, rate=16_000)
    write("no_mask.wav", np.ones((1, 4000)))
    write("nothing_mask.wav", np.zeros((1, 4000)))
    (folder / "mask.csv").write_text("start,end\n0.2,0.23\n0.35,0.365\n")
    (folder / "merging.csv").write_text("0.2,0.22\n0.21,0.23\n0.35,0.365\n")
    (folder / "empty.csv").write_text("# nothing\n")

    steady, struck = tone(440, 0.5), clicks(0.5)
    stereo = np.concatenate([steady + struck, steady - struck])
    write("tone.wav", steady)
    write("clicks.wav", struck)
    write("mix.wav", steady + struck)
    write("mix2.flac", stereo, "PCM_24")
    write("mix3.wav", stereo, "FLOAT")
    write("mix4.wav", stereo, "PCM_U8")
    write("mix5.ogg", steady + struck, "VORBIS")
    write("loud.wav", 4 * (steady + struck), "FLOAT")
    write("short_clicks.wav", struck[:, :-1])
    write("fast_clicks.wav", struck, rate=16_000)
    write("long_mix.wav", tone(440, 3.0) + clicks(3.0))
    (folder / "mix.dat").write_bytes((folder / "mix.wav").read_bytes())
