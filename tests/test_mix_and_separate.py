"""The example that trains a network on two instruments hears them apart, and others that it does not know."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dapcli.audio import Audio, encode
from examples.mix_and_separate import main
from tests.signals import RATE, Samples, noise

TEXT = "step 50: no network"
SECONDS = np.arange(round(1.2 * RATE)) / RATE


def reed(pitch: float) -> Samples:
    """All partials, and a tremolo."""
    partials = sum(np.sin(2 * np.pi * pitch * k * SECONDS) / k for k in range(1, 8))
    return np.asarray((1 + 0.3 * np.sin(2 * np.pi * 5 * SECONDS)) * partials)


def pipe(pitch: float) -> Samples:
    """Odd partials, which decay."""
    return np.asarray(np.exp(-SECONDS) * sum(np.sin(2 * np.pi * pitch * k * SECONDS) / k for k in (1, 3, 5)))


def drum(beats: float) -> Samples:
    """So many strokes a second."""
    return np.asarray(np.exp(-40 * (SECONDS % (1 / beats))) * noise(SECONDS.size, seed=round(10 * beats)))


def record(folder: Path, play: Callable[[float], Samples], notes: list[float]) -> Path:
    folder.mkdir()
    for note in notes:
        (folder / f"{note:g}.wav").write_bytes(encode(Audio(0.1 * play(note), RATE)))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("instruments")
    record(folder / "reeds", reed, [180, 220, 260, 310, 370])
    record(folder / "drums", drum, [2, 3, 4, 5, 6])
    record(folder / "pipes", pipe, [240, 330])
    record(folder / "one", reed, [200])
    (folder / "text.pt").write_text(TEXT)
    return folder


def run(*arguments: object) -> int:
    return main([*map(str, arguments), "--device", "cpu"])


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Path:
    path = folder / "conv.pt"
    sizes = ("--prior", "conv", "--base-channels", 4, "--steps", 60)
    assert run("train", folder / "reeds", folder / "drums", path, *sizes) == 0
    return path


@pytest.mark.parametrize("unheard", [False, True])
def test_instruments_are_separated_also_those_it_has_never_heard(
    folder: Path, checkpoint: Path, tmp_path: Path, unheard: bool
) -> None:
    first = ("--first", folder / "pipes") if unheard else ()
    assert run("score", checkpoint, *first, "--mixtures", 2, "--output-dir", tmp_path / "results") == 0
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    before, after = (row["cells"] for row in results["table"])
    played = [Path(file).parent.name for file in results["units"][0]["files"]]
    assert played == ["pipes" if unheard else "reeds", "drums"]
    for metric in ("sdr_db_1", "sdr_db_2", "sir_db_1", "sir_db_2"):
        assert after[metric]["mean"] > before[metric]["mean"] + 6
    assert after["sar_db_1"]["mean"] > 6


def test_what_is_kept_for_validation_is_not_trained_on(tmp_path: Path) -> None:
    folders = [record(tmp_path / "reeds", reed, [180, 220]), record(tmp_path / "drums", drum, [2, 3])]
    networks = []
    for name in ("one.pt", "other.pt"):
        assert run("train", *folders, tmp_path / name, "--base-channels", 1, "--steps", 4) == 0
        saved = torch.load(tmp_path / name, weights_only=True)
        networks.append(saved["network"])
        for folder, (kept,) in zip(folders, saved["validation"], strict=True):
            assert Path(kept).parent == folder
            Path(kept).write_bytes(encode(Audio(noise(1, SECONDS.size), RATE)))  # which must not matter
    for name, weights in networks[0].items():
        assert torch.equal(weights, networks[1][name])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("train", "reeds", "drums", "text.pt"), 3),
        (("train", "one", "drums", "new.pt"), 3),
        (("train", "nothing", "drums", "new.pt"), 3),
        (("train", "reeds", "drums", "new.pt", "--prior", "unknown"), 2),
        (("train", "reeds", "drums", "new.pt", "--prior", "wave-unet"), 2),
        (("train", "reeds", "drums", "new.pt", "--optimizer", "unknown"), 2),
        (("score", "text.pt", "--output-dir", "new"), 3),
        (("score", "nothing.pt", "--output-dir", "new"), 3),
        (("score", "conv.pt", "conv.pt", "--output-dir", "new"), 2),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    folder: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
) -> None:
    monkeypatch.chdir(folder)
    assert run(*arguments) == code
    assert capsys.readouterr().err.count("\n") == 1
    assert (folder / "text.pt").read_text() == TEXT
    assert not (folder / "new").exists()
    assert not (folder / "new.pt").exists()
