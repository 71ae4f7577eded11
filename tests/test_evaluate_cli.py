"""``dap evaluate``, end to end: what it writes, how it goes on after it was killed, and how it refuses."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from dapcli.evaluation import run as run_module
from dapcli.evaluation.unit import restore_unit
from dapcli.metrics import score, score_sources
from tests.command_line import Dap, Run, assert_refused, read, tree

pytestmark = pytest.mark.usefixtures("one_thread")

MAIN = "from dapcli.cli import main; main()"
RATE = 8_000
CHEAP = ("--baseline", "wiener", "--duration", "0.4")
FIT = ("--preset", "fast", "--iterations", "2", "--device", "cpu")


def tone(pitch: float, seconds: float = 0.6) -> NDArray[np.float64]:
    t = np.arange(round(seconds * RATE)) / RATE
    return np.asarray(0.2 * sum(np.sin(2 * np.pi * k * pitch * t) / k for k in range(1, 5)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with clean clips and others in it, in place of the one that ``dap`` is usually tested in."""
    for kind, pitches in {"clean": (150, 210, 330), "other": (420, 550, 610)}.items():
        (tmp_path / kind).mkdir()
        for pitch in pitches:
            soundfile.write(tmp_path / kind / f"{kind}{pitch}.wav", tone(pitch), RATE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluate(dap: Dap, *arguments: str, code: int = 0) -> Run:
    run = dap("evaluate", *arguments, "--output-dir", "out")
    assert run.code == code, run.err
    return run


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "out" / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def results_of(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "out" / "results.json").read_text())
    return results


# What it writes


def test_the_table_can_be_recomputed_from_the_written_audio(dap: Dap, folder: Path) -> None:
    evaluate(dap, "denoise", "clean", "--clips", "2", "--prior", "conv", *FIT, *CHEAP)
    rows = rows_of(folder)
    methods = {(row["method"], row["told"]) for row in rows}
    assert methods == {
        ("input", "nothing"),
        ("conv", "nothing"),
        ("conv", "reference"),
        ("wiener", "nothing"),
        ("wiener", "noise"),
    }
    assert len(rows) == 2 * len(methods)
    suffix = {"nothing": "", "noise": ".told", "reference": ".oracle"}
    for row in rows:
        audio = folder / "out" / "audio" / row["clip"]
        estimate = read(audio / f"{row['method']}{suffix[row['told']]}.wav")
        values, _ = score(read(audio / "reference.wav"), estimate, RATE)
        assert {name: float(row[name]) if row[name] else None for name in values} == pytest.approx(values)

    for cells in results_of(folder)["table"]:
        own = [float(row["snr_db"]) for row in rows if (row["method"], row["told"]) == (cells["method"], cells["told"])]
        assert cells["cells"]["snr_db"]["mean"] == pytest.approx(np.mean(own))
        assert cells["cells"]["snr_db"]["std"] == pytest.approx(np.std(own, ddof=1))
        assert f"{np.mean(own):.2f} ± {np.std(own, ddof=1):.2f}" in (folder / "out" / "results.md").read_text()


def test_separated_sources_are_written_in_the_order_of_the_references(dap: Dap, folder: Path) -> None:
    methods = ["--baseline", "hpss", "--baseline", "mixture", "--prior", "conv", "--iterations", "1", "--no-oracle"]
    evaluate(dap, "separate", "clean", "other", "--duration", "0.4", *methods)
    assert {row["method"] for row in rows_of(folder)} == {"input", "hpss", "conv"}
    for row in rows_of(folder):
        audio = folder / "out" / "audio" / row["clip"]
        references, estimates = (
            np.stack([read(audio / f"{name}_{number}.wav") for number in (1, 2)])
            for name in ("reference", row["method"])
        )
        np.testing.assert_allclose(read(audio / "input.wav"), references.sum(axis=0), atol=1e-6)
        scores = score_sources(references, estimates, RATE, fixed_order=True)
        for number, (values, _) in enumerate(scores.sources, 1):
            for name, value in values.items():
                written = row[f"{name}_{number}"]
                assert (float(written) if written else None) == pytest.approx(value)
    written = (folder / "out" / "results.md").read_text()
    assert "SDR 1 (dB)" in written
    assert "separate, mixture (rms 0.1, kinds harmonic and percussive)" in written


@pytest.mark.parametrize("task", ["inpaint", "declip", "dequantize"])
def test_every_method_gets_the_same_damaged_clip(task: str, dap: Dap, folder: Path) -> None:
    evaluate(dap, task, "clean", "--duration", "0.55", "--clips", "1", "--no-oracle", *FIT)
    rows = rows_of(folder)
    assert {row["told"] for row in rows} == {"nothing"}
    assert {"input", "exp-dense"} < {row["method"] for row in rows}
    (clip,) = {row["clip"] for row in rows}
    damaged = read(folder / "out" / "audio" / clip / "input.wav")
    reference = read(folder / "out" / "audio" / clip / "reference.wav")
    assert not np.array_equal(damaged, reference)
    if task == "inpaint":
        assert {row["gaps_snr_db"] for row in rows if row["method"] == "input"} == {"0.0"}


def test_json_is_the_same_as_the_file_and_alone(dap: Dap, folder: Path) -> None:
    run = evaluate(dap, "denoise", "clean", *CHEAP, "--json", "--quiet")
    assert run.out == (folder / "out" / "results.json").read_text()
    assert run.err == ""
    assert "NaN" not in run.out
    results = json.loads(run.out)
    assert results["protocol"] == {"name": "gaussian", "noise_std": 0.1}
    assert {each["verdict"] for each in results["differences"]} == {"open"}  # of three clips


class Links(HTMLParser):
    """What a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.files: list[str] = []
        self.players = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.players += tag == "audio"
        self.files += [unquote(value) for name, value in attrs if name in ("src", "href") and value and value[0] != "#"]


def test_the_page_refers_to_what_is_there_and_to_nothing_else(dap: Dap, folder: Path) -> None:
    (folder / "clean" / "clean150.wav").rename(folder / "clean" / "50 % <b>&.wav")
    evaluate(dap, "denoise", "clean", "--prior", "conv", *FIT, *CHEAP)
    page = (folder / "out" / "index.html").read_text()
    links = Links(page)
    assert links.players == 3 * (1 + 5)  # the reference and all methods
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    for name in links.files:
        if not name.startswith("data:"):
            assert (folder / "out" / name).is_file(), name
    assert "50 % &lt;b&gt;&amp;.wav" in page
    assert page.count("blind stop") >= 1
    assert len(list((folder / "out").glob("boxes_*.svg"))) >= 4


def test_pairs_are_restored_whole_as_they_are(dap: Dap, folder: Path) -> None:
    (folder / "noisy").mkdir()
    for number, path in enumerate(sorted((folder / "clean").iterdir())):
        clean, _ = soundfile.read(path)
        noise = 0.05 * np.random.default_rng(number).standard_normal(len(clean))
        soundfile.write(folder / "noisy" / f"{path.stem}.flac", clean + noise, RATE)
    arguments = ("denoise", "--noisy", "noisy", "--clean", "clean", "--baseline", "wiener")
    evaluate(dap, *arguments, "--clips", "2")
    before = tree(folder / "out" / "units")
    run = evaluate(dap, *arguments)
    assert before.items() < tree(folder / "out" / "units").items()
    assert "denoise, pairs: 3 clips, seed 0" in run.err
    results = results_of(folder)
    assert (results["protocol"], results["duration_s"]) == ({"name": "pairs"}, None)
    assert len(results["units"]) == 3 * 3  # of the noise the filter is told, too
    for unit in results["units"]:
        sides = [read(Path(file)) for file in unit["files"]]
        audio = folder / "out" / "audio" / unit["clip"]
        for side, name in zip(sides, ("reference", "input"), strict=True):
            np.testing.assert_allclose(read(audio / f"{name}.wav"), side, atol=1e-7)
        if unit["method"] == "input":
            assert unit["metrics"]["snr_db"] == pytest.approx(score(sides[0], sides[1], RATE)[0]["snr_db"])
    page = (folder / "out" / "index.html").read_text()
    assert all(f"clean{pitch}.wav, clean{pitch}.flac" in page for pitch in (150, 210, 330))
    columns = (folder / "out" / "results.md").read_text().splitlines()[4]
    assert all(title in columns for title in ("PESQ NB", "PESQ WB", "SNR (dB)", "STOI", "CSIG", "CBAK", "COVL"))
    assert_refused(dap("evaluate", *arguments, "--duration", "0.4", "--output-dir", "out"), 2, "duration_s")


# Going on


def test_a_finished_run_computes_nothing_again(dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate(dap, "denoise", "clean", *CHEAP)
    before = tree(folder / "out")

    def never(*_: object) -> None:
        raise AssertionError("a unit was done again")

    monkeypatch.setattr(run_module, "restore_unit", never)
    evaluate(dap, "denoise", "clean", *CHEAP)
    assert tree(folder / "out") == before


def test_methods_and_clips_can_be_added(dap: Dap, folder: Path) -> None:
    evaluate(dap, "denoise", "clean", *CHEAP, "--clips", "2")
    before = tree(folder / "out" / "units")
    evaluate(dap, "denoise", "clean", *CHEAP, "--baseline", "scipy-wiener")
    after = tree(folder / "out" / "units")
    assert after.items() > before.items()
    assert len(rows_of(folder)) == 3 * 4


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_killed_run_goes_on_where_it_was(jobs: str, dap: Dap, folder: Path) -> None:
    arguments = ("denoise", "clean", "--clips", "2", "--prior", "conv", "--no-oracle", *FIT, *CHEAP)
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "evaluate", *arguments, "--jobs", jobs, "--output-dir", "out"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    units = folder / "out" / "units"
    deadline = time.monotonic() + 60
    while not list(units.glob("*/*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    while subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True, check=False).returncode == 0:
        assert time.monotonic() < deadline, "its processes go on without it"
        time.sleep(0.05)
    finished = {path: path.stat().st_mtime_ns for path in units.glob("*/*.json")}
    assert 0 < len(finished) < 8

    evaluate(dap, *arguments)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    resumed = [{**row, "seconds": ""} for row in rows_of(folder)]
    assert len(resumed) == 8
    assert not list((folder / "out").rglob("*.part"))
    if jobs == "2":  # and what several processes made is what one makes
        evaluate(dap, *arguments, "--overwrite")
        assert [{**row, "seconds": ""} for row in rows_of(folder)] == resumed


def test_ctrl_c_keeps_what_is_finished(folder: Path, dap: Dap, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = restore_unit
    calls = []

    def interrupted(*arguments: Any) -> str | None:
        calls.append(arguments)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(run_module, "restore_unit", interrupted)
    run = evaluate(dap, "denoise", "clean", *CHEAP, code=130)
    assert "repeat the command to go on" in run.err
    assert len(list((folder / "out" / "units").glob("*/*.json"))) == 2


# Refusals and failures


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("denoise", "nothing"), 3, "no such file or folder"),
        (("denoise", "empty"), 3, "no audio files"),
        (("denoise", "clean", "out"), 3, "where results go"),
        (("denoise", "clean", "--duration", "5"), 3, "no clip is 5 s long"),
        (("denoise", "clean", "--duration", "0.1"), 2, "--duration"),
        (("denoise", "clean", "--duration", "nan"), 2, "--duration"),
        (("denoise", "clean", "--duration", "inf"), 2, "--duration"),
        (("denoise", "clean", "--prior", "conv", "--prior", "conv"), 2, "'conv'.*name each once"),
        (("denoise", "clean", "--prior", "conf"), 2, "unknown prior 'conf'"),
        (("denoise", "clean", "--baseline", "demucs"), 2, "unknown baseline 'demucs'"),
        (("denoise", "clean", "--protocol", "environmental"), 2, "--noise"),
        (("denoise", "clean", "--noise", "empty"), 3, "no audio files"),
        (("denoise", "clean", "--snr", "9:5", "--noise", "other"), 2, "--snr"),
        (("denoise", "clean", "--gap", "0.1"), 2, "--gap"),
        (("denoise", "clean", "--duration", "0.5", "--device", "cuda:9"), 4, "cuda"),
        (("denoise", "clean", "--preset", "best"), 2, "unknown preset"),
        (("inpaint", "clean", "--duration", "0.5"), 2, "--gap"),
        (("separate", "clean"), 2, "two"),
        (("separate", "clean", "other", "--kinds", "harmonic,drums"), 2, "unknown kind"),
        (("separate", "clean", "other", "--kinds", "harmonic"), 2, "name the kind of each"),
        (("denoise", "clean", "--kinds", "harmonic,voice"), 2, "--kinds"),
        (("repair", "clean"), 2, "unknown task"),
        (("denoise",), 2, "missing CLEAN"),
        (("denoise", "--noisy", "other"), 2, "give both"),
        (("denoise", "clean", "--noisy", "other"), 2, "give both"),
        (("denoise", "--clean", "clean"), 2, "give both"),
        (("denoise", "clean", "--noisy", "other", "--clean", "clean"), 2, "leave one out"),
        (("denoise", "--noisy", "other", "--clean", "clean"), 3, "other420.wav: no clean file is called other420"),
        (("denoise", "--noisy", "empty", "--clean", "clean"), 3, "no audio files"),
        (("denoise", "--noisy", "clean", "--clean", "clean", "--noise-std", "1"), 2, "--noise-std, --noisy"),
        (("inpaint", "--noisy", "clean", "--clean", "clean"), 2, "--noisy: no protocol of inpaint has that"),
        (("denoise", "clean", "--protocol", "pairs"), 2, "--noisy and --clean"),
    ],
)
def test_refusals_say_why_and_write_nothing(
    arguments: tuple[str, ...], code: int, reason: str, dap: Dap, folder: Path
) -> None:
    (folder / "empty").mkdir()
    assert_refused(dap("evaluate", *arguments, "--output-dir", "out"), code, reason)
    assert not (folder / "out").exists()


def test_a_folder_of_another_run_is_refused(dap: Dap, folder: Path) -> None:
    evaluate(dap, "denoise", "clean", *CHEAP)
    before = tree(folder / "out")
    assert_refused(
        dap("evaluate", "denoise", "clean", *CHEAP, "--seed", "1", "--output-dir", "out"), 2, "seed 0 in place of 1"
    )
    assert_refused(dap("evaluate", "denoise", "clean", *CHEAP, "--output-dir", "other"), 3, "not of an evaluation")
    assert_refused(dap("evaluate", "denoise", "clean", *CHEAP, "--output-dir", "a/b"), 3, "create it first")
    assert tree(folder / "out") == before
    evaluate(dap, "denoise", "clean", *CHEAP, "--seed", "1", "--overwrite")
    assert results_of(folder)["seed"] == 1


def test_what_fails_is_reported_and_tried_again(dap: Dap, folder: Path) -> None:
    soundfile.write(folder / "clean" / "silent.wav", np.zeros(RATE), RATE)
    (folder / "clean" / "text.wav").write_text("no audio")
    soundfile.write(folder / "clean" / "short.wav", tone(200, 0.2), RATE)
    arguments = ("declip", "clean", "--baseline", "cubic-spline", "--duration", "0.4")
    for _ in range(2):
        run = evaluate(dap, *arguments, code=5)
        assert "failed: silent" in run.err
        assert "the clip is silent" in run.err
        assert "text.wav" in run.err
        assert "1 clip shorter than 0.4 s skipped" in run.err
        assert re.search(r"^dap: 2 of 8 results failed; 1 file cannot be read", run.err, re.MULTILINE)
        results = results_of(folder)
        assert {each["method"] for each in results["failures"]} == {"input", "cubic-spline"}
        assert results["skipped"] == 1
        assert len(rows_of(folder)) == 3 * 2
    (folder / "clean" / "silent.wav").unlink()
    (folder / "clean" / "text.wav").unlink()
    evaluate(dap, *arguments)


def test_noise_that_is_shorter_than_a_clip_is_looped_and_said_so(dap: Dap, folder: Path) -> None:
    (folder / "noise").mkdir()
    soundfile.write(folder / "noise" / "hum.wav", 0.1 * np.random.default_rng(0).standard_normal(RATE // 4), RATE)
    run = evaluate(dap, "denoise", "clean", *CHEAP, "--noise", "noise", "--snr", "6")
    assert "noise looped: hum.wav" in run.err
    snr = [float(row["snr_db"]) for row in rows_of(folder) if row["method"] == "input"]
    assert snr == pytest.approx([6.0] * 3, abs=1e-3)
