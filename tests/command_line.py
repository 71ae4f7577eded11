"""How tests call ``dap``, and what they look at after it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

#: Section "contract" of the design; keys may be added.
CONTRACT: dict[str, tuple[str, ...]] = {
    "task": (),
    "input": (),
    "output": (),
    "seed": (),
    "device": (),
    "dtype": (),
    "sample_rate": (),
    "channels": (),
    "samples": (),
    "stft": ("n_fft", "hop", "window_s", "hop_s"),
    "prior": ("name", "parameters", "receptive_field"),
    "fit": ("iterations", "best_iteration", "stopped_by", "seconds", "iterations_per_second", "loss"),
    "noise": ("std", "input_snr_db_estimated"),
    "post_filter": (),
    "gain": (),
    "metrics": (
        "snr_db",
        "psnr_db",
        "si_sdr_db",
        "spectral_snr_db",
        "envelope_distance",
        "pesq_wb",
        "pesq_nb",
        "stoi",
        "csig",
        "cbak",
        "covl",
    ),
    "metrics_input": ("snr_db", "pesq_wb"),
    "versions": ("dapcli", "torch", "torchaudio", "python"),
    "notes": (),
}


@dataclass(frozen=True)
class Run:
    """What one call of ``dap`` left: its exit code and what it printed."""

    code: int
    out: str
    err: str


Dap = Callable[..., Run]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read(path: Path) -> NDArray[np.float64]:
    # Not by its name, which need not be UTF-8.
    samples, _ = soundfile.read(io.BytesIO(path.read_bytes()), dtype="float64", always_2d=True)
    return np.asarray(samples.T)


def record_of(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return record


def assert_refused(run: Run, code: int, reason: str = "") -> None:
    """One line on stderr that says why, nothing on stdout."""
    assert run.code == code, run.err
    assert run.out == ""
    assert re.fullmatch(r"dap: [^\n]+\n", run.err), run.err
    assert "Traceback" not in run.err
    assert "internal error" not in run.err
    assert re.search(reason, run.err), run.err
