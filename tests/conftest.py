"""Synthetic recordings that the tests share."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tests.command_line import Dap, Run, write_recordings

NOISE_STD = 0.05
QUIET_STRETCH_S = 0.2


def _clean(seconds: float, rate: int, channels: int = 1) -> NDArray[np.float64]:
    """Harmonics of another pitch in every channel that begin after a quiet stretch: [C, N]."""
    t = np.arange(round(seconds * rate)) / rate
    pitch = 220.0 * (1 + np.arange(channels))[:, None, None]
    k = np.arange(1, 6)[:, None]
    tone = (np.sin(2 * np.pi * pitch * k * t + k) / k).sum(axis=1)
    return np.asarray(0.15 * tone * (t > QUIET_STRETCH_S) * (1.2 + np.sin(2 * np.pi * 3 * t)))


def _noisy(seconds: float, rate: int, channels: int = 1) -> NDArray[np.float64]:
    clean = _clean(seconds, rate, channels)
    return clean + NOISE_STD * np.random.default_rng(0).standard_normal(clean.shape)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of recordings; noisy.wav and its clean reference clean.wav are 0.5 s of mono 16-bit PCM at 16 kHz.

    The noise is white with standard deviation ``NOISE_STD``, and alone for the first ``QUIET_STRETCH_S`` seconds.
    Read only: a test that writes takes a copy.
    """
    folder = tmp_path_factory.mktemp("clips")

    def write(name: str, samples: NDArray[np.float64], rate: int = 16_000, subtype: str = "PCM_16") -> bytes:
        soundfile.write(folder / name, samples.T, rate, subtype=subtype)
        return (folder / name).read_bytes()

    noisy = _noisy(0.5, 16_000)
    data = write("noisy.wav", noisy)
    write("clean.wav", _clean(0.5, 16_000))
    write("stereo.flac", _noisy(0.4, 44_100, 2), 44_100, "PCM_24")
    write("float.wav", _noisy(0.4, 48_000), 48_000, "FLOAT")
    write("studio.wav", _noisy(0.1, 96_000), 96_000)
    write("long.wav", _noisy(5.0, 8_000), 8_000)
    write("short.wav", noisy[:, 4000:4100])  # a tenth of a window
    write("brief.wav", noisy[:, 4000:7200])
    write("zeros.wav", np.zeros((1, 8_000)))

    write("empty.wav", noisy[:, :0])
    write("one.wav", noisy[:, :1])
    write("nan.wav", np.where(noisy == noisy.max(), np.nan, noisy), subtype="FLOAT")
    write("longer.wav", np.concatenate([noisy, noisy], axis=1))
    (folder / "text.wav").write_text("This is not a recording.\n" * 20)
    (folder / "cut_header.wav").write_bytes(data[:30])
    return folder


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Networks and equations as small as those of the tests are slower on several threads."""
    import torch

    torch.set_num_threads(1)
    threadpool_limits(1)


@pytest.fixture
def folder(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the recordings, which is the current folder."""
    copy = tmp_path / "clips"
    shutil.copytree(clips, copy)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def recordings(folder: Path) -> Path:
    """The folder, with recordings for every task."""
    write_recordings(folder)
    return folder


@pytest.fixture
def dap(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Dap:
    """``dap`` in this process, in the folder of recordings."""

    from dapcli.cli import main

    def call(*arguments: str) -> Run:
        monkeypatch.setattr(sys, "argv", ["dap", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capfd.readouterr()
        code = caught.value.code
        return Run(code if isinstance(code, int) else int(code is not None), out, err)

    return call


@pytest.fixture
def no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every fit fail that starts although something is wrong."""
    from dapcli.fit.optimizers import Adam

    def step(self: object) -> None:
        raise AssertionError("a fit has started")

    monkeypatch.setattr(Adam, "step", step)
