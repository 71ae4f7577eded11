"""The manual and the examples: what they tell their readers to type works, and what they show is there."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.command_line import TINY, Dap, ok

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GUIDES = sorted((DOCS / "guides").glob("*.md"))
#: Commands that fit, with what makes that short.
FITS = dict.fromkeys(("inpaint", "declip", "separate"), TINY) | {
    "denoise": (*TINY, "--finetune-iterations", "1"),
    "batch": (*TINY[:4], "--finetune-iterations", "1", "--jobs", "1"),
    "evaluate": ("--iterations", "2", "--device", "cpu", "--clips", "1"),
}

#: The stretch that a guide's commands speak of, where it is long.
NEEDED_S = {"dropout": 3.1, "tape": 2.5}


def example(name: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")


def shorten(folder: Path, seconds: float) -> None:
    for path in folder.glob("*.wav"):
        samples, rate = soundfile.read(path)
        soundfile.write(path, samples[: round(seconds * rate)], rate)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda each: each.stem)
def test_the_commands_of_a_guide_run_in_their_order(
    guide: Path, dap: Dap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```sh\n(.*?)^```", guide.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for line in "".join(blocks).replace("\\\n", "").splitlines():
        name, *arguments = shlex.split(line)
        if name == "python":
            example(Path(arguments[0]).name, *arguments[1:], monkeypatch=monkeypatch)
            shorten(Path("damaged"), NEEDED_S.get(guide.stem, 1.1))
        else:
            assert name == "dap"
            ok(dap(*arguments, *FITS.get(arguments[0], ())))


def test_pictures_and_sounds_are_there_and_small() -> None:
    shown = set()
    for page in DOCS.rglob("*.md"):
        for target in re.findall(r'(?:src="|!\[[^]]*\]\()([^")]+)', page.read_text(encoding="utf-8")):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"
            shown.add((page.parent / target).resolve())
    made = set((DOCS / "media").iterdir())
    assert made <= shown
    assert sum(path.stat().st_size for path in made) < 2_000_000


def test_messages_that_have_an_explanation_are_those_of_the_program() -> None:
    program = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "dapcli").rglob("*.py"))
    ours = (DOCS / "troubleshooting.md").read_text(encoding="utf-8").partition("## Files that are read")[2]
    messages = [part for title in re.findall("^### (.*)", ours, re.MULTILINE) for part in re.findall("`(.+?)`", title)]
    parts = [part.strip(" ;") for message in messages for part in message.split("…")]
    assert len(parts) > 15
    assert not [part for part in parts if part not in program]


# Those that others import have tests of their own.
def test_every_example_in_python_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example("python_api.py", "brief.wav", "a.flac", monkeypatch=monkeypatch)
    example("restore_api.py", "brief.wav", "b.wav", "0.1", "0.11", monkeypatch=monkeypatch)
    example("separate_api.py", "parts", monkeypatch=monkeypatch)
    example("make_speech.py", "clean.wav", ".", monkeypatch=monkeypatch)
    lengths = {name: soundfile.info(name).frames for name in ("a.flac", "b.wav", "parts/harmonic.wav")}
    assert lengths == {"a.flac": 3_200, "b.wav": 3_200, "parts/harmonic.wav": 32_000}


def test_the_notebook_runs_at_toy_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MPLBACKEND", "agg")
    cells = json.loads((ROOT / "examples" / "priors.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
            if "parameters" in cell["metadata"].get("tags", ()):
                names |= {"ITERATIONS": 2, "BASE_CHANNELS": 4, "SECONDS": 0.2}
    assert {len(curve) for curve in names["curves"].values()} == {2}
    assert names["blind"].audio.samples.shape == names["clean"].samples.shape
