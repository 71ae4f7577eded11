"""``dap evaluate``, end to end: what it writes, how it goes on after it was killed, and how it refuses."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile

from dapcli.audio import Audio
from dapcli.baselines import BASELINES, Baseline
from dapcli.evaluation import run as run_module
from dapcli.evaluation.protocols import PROTOCOLS, Case, Protocol, make_case
from dapcli.evaluation.run import restore_unit
from dapcli.metrics import METRICS, score, score_sources
from dapcli.settings import option
from dapcli.tasks import TASKS
from tests.command_line import MAIN, Dap, Run, assert_refused, read, tree
from tests.signals import RATE, noise, tone

CHEAP = ("--baseline", "wiener", "--duration", "0.4")
FIT = ("--preset", "fast", "--iterations", "2", "--device", "cpu")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with clean clips and others in it."""
    for kind, pitches in {"clean": (150, 210, 330), "other": (420, 550, 610)}.items():
        (tmp_path / kind).mkdir()
        for pitch in pitches:
            soundfile.write(tmp_path / kind / f"{kind}{pitch}.wav", (tone(pitch, 0.6) + tone(2 * pitch, 0.6))[0], RATE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluate(dap: Dap, *arguments: str, code: int = 0) -> Run:
    run = dap("evaluate", *arguments, "--output-dir", "out")
    assert run.code == code, run.err
    return run


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "out" / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def results_of(folder: Path) -> Any:
    return json.loads((folder / "out" / "results.json").read_text())


# What it writes


def test_the_table_can_be_recomputed_from_the_written_audio(dap: Dap, folder: Path) -> None:
    run = evaluate(dap, "denoise", "clean", "--clips", "2", "--prior", "conv", *FIT, *CHEAP, "--json", "--quiet")
    assert (run.out, run.err) == ((folder / "out" / "results.json").read_text(), "")
    assert "NaN" not in run.out
    results, rows = json.loads(run.out), rows_of(folder)
    assert results["protocol"] == {"name": "gaussian", "noise_std": 0.1}
    assert {each["verdict"] for each in results["differences"]} == {"open"}  # of two clips
    suffixes = {"none": "", "noise": ".oracle-noise", "reference": ".oracle"}
    names = ["input none", "conv none", "conv reference", "wiener none", "wiener noise"]
    assert sorted(f"{row['method']} {row['oracle']}" for row in rows) == sorted(2 * names)
    for row in rows:
        audio = folder / "out" / "audio" / row["clip"]
        estimate = read(audio / f"{row['method']}{suffixes[row['oracle']]}.wav")
        values, _ = score(read(audio / "reference.wav"), estimate, RATE)
        assert {name: float(row[name]) if row[name] else None for name in values} == pytest.approx(values)
    for row in results["table"]:
        same = [each for each in rows if (each["method"], each["oracle"]) == (row["method"], row["oracle"])]
        own = [float(each["snr_db"]) for each in same]
        assert row["cells"]["snr_db"]["mean"] == pytest.approx(np.mean(own))
        assert row["cells"]["snr_db"]["std"] == pytest.approx(np.std(own, ddof=1))
        assert f"{np.mean(own):.2f} ± {np.std(own, ddof=1):.2f}" in (folder / "out" / "results.md").read_text()


def test_curves_are_of_what_the_oracle_kept(dap: Dap, folder: Path) -> None:
    for index in range(2):
        soundfile.write(folder / f"{index}.wav", 0.1 * noise(8_000, seed=index) + tone(150, 1.0)[0], 16_000)
    settings = ("--preset", "harmonic-paper", "--iterations", "5", "--base-channels", "2", "--hop", "0.016")
    methods = ("--prior", "conv7", "--prior", "wave-unet", "--curves", "--device", "cpu")
    evaluate(dap, "denoise", "0.wav", "1.wav", "--duration", "0.4", *settings, *methods)
    units = [json.loads(path.read_text()) for path in (folder / "out" / "units").glob("*/*.oracle.json")]
    assert sorted(unit["method"] for unit in units) == ["conv7"] * 2 + ["wave-unet"] * 2
    assert {row["oracle"] for row in rows_of(folder) if row["method"] != "input"} == {"reference"}
    for unit in units:
        fit, audio = unit["fit"], folder / "out" / "audio" / unit["clip"]
        kept = fit["best_iteration"] - 1
        for quantity in ("snr_db", "psnr_db"):
            assert fit[quantity][kept] == pytest.approx(unit["metrics"][quantity], abs=1e-3)
        against_input, _ = score(read(audio / "input.wav"), read(audio / f"{unit['method']}.oracle.wav"), 16_000)
        assert fit["input_psnr_db"][kept] == pytest.approx(against_input["psnr_db"], abs=1e-3)
    with (folder / "out" / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["prior"], int(row["iteration"])) for row in rows] == [
        (prior, iteration) for prior in ("conv7", "wave-unet") for iteration in range(1, 6)
    ]
    for quantity in ("snr_db", "psnr_db", "input_psnr_db"):
        expected = np.mean([unit["fit"][quantity] for unit in units if unit["method"] == "conv7"], axis=0)
        np.testing.assert_allclose([float(row[quantity]) for row in rows[:5]], expected)
    svg = (folder / "out" / "curves.svg").read_text()
    assert svg in (folder / "out" / "index.html").read_text()
    assert {"conv7", "wave-unet"} <= set(re.findall("<!-- (.*?) -->", svg))
    best = max(float(row["snr_db"]) for row in rows[:5])
    assert f"| conv7 | {float(rows[4]['snr_db']):.2f} | {best:.2f} |" in (folder / "out" / "results.md").read_text()


def test_the_protocol_of_the_paper_is_at_its_rate_with_its_settings(dap: Dap, folder: Path) -> None:
    for task, protocol in (("denoise", "gaussian"), ("inpaint", "frames"), ("separate", "mixture")):
        sources = ("clean", "other") if task == "separate" else ("clean",)
        evaluate(dap, task, *sources, "--protocol", "paper", "--duration", "0.58", "--baseline", "input", "--overwrite")
        results, settings = results_of(folder), TASKS[task].presets["paper"]
        assert (results["protocol"]["name"], results["rate"]) == (protocol, 16_000)
        assert (results["settings"]["iterations"], results["settings"]["hop"]) == (settings.iterations, settings.hop)
        (audio, *_) = (folder / "out" / "audio").glob("*/input*.wav")
        assert soundfile.info(audio).samplerate == 16_000


def test_separated_sources_are_written_in_the_order_of_the_references(dap: Dap, folder: Path) -> None:
    methods = ("--baseline", "hpss", "--baseline", "input", "--prior", "conv", "--no-oracle")
    evaluate(dap, "separate", "clean", "other", "--duration", "0.4", "--clips", "2", *methods, *FIT)
    assert {row["method"] for row in rows_of(folder)} == {"input", "hpss", "conv"}
    for row in rows_of(folder):
        audio = folder / "out" / "audio" / row["clip"]
        names = ("reference", row["method"])
        references, estimates = (np.stack([read(audio / f"{name}_{k}.wav") for k in (1, 2)]) for name in names)
        np.testing.assert_allclose(read(audio / "input.wav"), references.sum(axis=0), atol=1e-6)
        scores = score_sources(references, estimates, RATE, fixed_order=True)
        for number, (values, _) in enumerate(scores.sources, 1):
            written = {name: row[f"{name}_{number}"] for name in values}
            assert {name: float(each) if each else None for name, each in written.items()} == pytest.approx(values)


@pytest.mark.parametrize("task", ["inpaint", "declip", "dequantize"])
def test_every_method_gets_the_same_degraded_clip(task: str, dap: Dap, folder: Path) -> None:
    evaluate(dap, task, "clean", "--duration", "0.55", "--clips", "1", "--no-oracle", *FIT)
    rows = rows_of(folder)
    assert {row["oracle"] for row in rows} == {"none"}
    assert {"input", "exp-dense"} < {row["method"] for row in rows}
    (clip,) = {row["clip"] for row in rows}
    observed, reference = (read(folder / "out" / "audio" / clip / f"{name}.wav") for name in ("input", "reference"))
    assert not np.array_equal(observed, reference)
    if task == "inpaint":
        assert {row["gaps_snr_db"] for row in rows if row["method"] == "input"} == {"0.0"}


def test_the_page_refers_to_what_is_there_and_to_nothing_else(dap: Dap, folder: Path) -> None:
    path = (folder / "clean" / "clean150.wav").rename(folder / "50 % <b>&.wav")
    evaluate(dap, "denoise", str(path), "--prior", "conv", *FIT, *CHEAP)
    page = (folder / "out" / "index.html").read_text()
    assert page.count("<audio") == 1 + 5  # the reference and all methods
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    names = re.findall(r"""<[^>]* (?:src|href)=["']?([^"'#][^"'>]*)""", page)
    assert len(names) > 2 * (1 + 5)
    for name in names:
        assert name.startswith("data:") or (folder / "out" / unquote(unescape(name))).is_file(), name
    assert "50 % &lt;b&gt;&amp;.wav" in page
    assert len(list((folder / "out").glob("boxes_*.svg"))) >= 4


def test_pairs_are_restored_whole_as_they_are(dap: Dap, folder: Path) -> None:
    (folder / "noisy").mkdir()
    for path in (folder / "clean").iterdir():
        clean, _ = soundfile.read(path)
        soundfile.write(folder / "noisy" / f"{path.stem}.flac", clean + noise(len(clean), std=0.05), RATE)
    arguments = ("denoise", "--noisy", "noisy", "--clean", "clean", "--baseline", "wiener")
    evaluate(dap, *arguments)
    results = results_of(folder)
    assert len(results["units"]) == 3 * 3  # the filter is also handed the noise
    for unit in results["units"]:
        audio = folder / "out" / "audio" / unit["clip"]
        for file, name in zip(unit["files"], ("reference", "input"), strict=True):
            np.testing.assert_allclose(read(audio / f"{name}.wav"), read(Path(file)), atol=1e-7)
    assert_refused(dap("evaluate", *arguments, "--duration", "0.4", "--output-dir", "out"), 2, "duration_s")


# What can be added


@dataclass(frozen=True)
class Scaled(Protocol):
    """Another level, which is no noise, but makes a table of denoising."""

    name = "scaled"
    task = "denoise"

    factor: float = option(0.5, "Of the level.", above=0)

    def degrade(self, clips: Sequence[Audio], rng: np.random.Generator) -> Case:
        (clean,) = clips
        return make_case(clean.samples[None], self.factor * clean.samples, clean.rate)


def test_a_metric_a_baseline_and_a_protocol_are_a_line_each(
    dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS, "level", lambda _, estimate, __: float(np.sqrt(np.mean(estimate**2))))
    monkeypatch.setitem(BASELINES["denoise"], "doubled", Baseline(lambda problem: 2 * problem.samples))
    monkeypatch.setitem(PROTOCOLS, "scaled", Scaled)
    arguments = ("denoise", "clean", "--duration", "0.4", "--factor", "0.25", "--baseline", "doubled")
    evaluate(dap, *arguments)
    results = results_of(folder)
    assert results["protocol"] == {"name": "scaled", "factor": 0.25}
    for unit in results["units"]:
        reference = read(folder / "out" / "audio" / unit["clip"] / "reference.wav")
        factor = 0.25 if unit["method"] == "input" else 0.5
        assert unit["metrics"]["level"] == pytest.approx(factor * np.sqrt(np.mean(reference**2)))
    assert {unit["method"] for unit in results["units"]} == {"input", "doubled"}
    assert_refused(dap("evaluate", *arguments, "--protocol", "gaussian", "--output-dir", "out"), 2, "--factor")


# Going on


def test_a_finished_run_computes_nothing_again_and_methods_and_clips_can_be_added(
    dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a unit was done again")

    evaluate(dap, "denoise", "clean", *CHEAP, "--clips", "2")
    before = tree(folder / "out")
    with monkeypatch.context() as patched:
        patched.setattr(run_module, "restore_unit", never)
        evaluate(dap, "denoise", "clean", *CHEAP, "--clips", "2")
    assert tree(folder / "out") == before
    before = tree(folder / "out" / "units")
    evaluate(dap, "denoise", "clean", *CHEAP, "--baseline", "scipy-wiener")
    assert tree(folder / "out" / "units").items() > before.items()
    assert len(rows_of(folder)) == 3 * 4


def test_a_killed_run_of_two_processes_goes_on_where_it_was_in_one(dap: Dap, folder: Path) -> None:
    methods = ("--prior", "conv", "--baseline", "input", "--no-oracle")
    arguments = ("denoise", "clean", "--duration", "0.4", *methods, *FIT)
    command = [sys.executable, "-c", MAIN, "evaluate", *arguments, "--jobs", "2", "--output-dir", "out"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
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
    assert 0 < len(finished) < 6

    evaluate(dap, *arguments)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert not list((folder / "out").rglob("*.part"))
    resumed = [{**row, "seconds": ""} for row in rows_of(folder)]
    evaluate(dap, *arguments, "--overwrite")
    assert [{**row, "seconds": ""} for row in rows_of(folder)] == resumed
    assert len(resumed) == 6


def test_ctrl_c_keeps_what_is_finished(folder: Path, dap: Dap, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def interrupted(*arguments: Any) -> str | None:
        calls.append(arguments)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return restore_unit(*arguments)

    monkeypatch.setattr(run_module, "restore_unit", interrupted)
    run = evaluate(dap, "denoise", "clean", *CHEAP, code=130)
    assert "repeat the command to go on" in run.err
    assert len(list((folder / "out" / "units").glob("*/*.json"))) == 2


# Refusals and failures


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ("denoise nothing", 3, "no such file or folder"),
        ("denoise empty", 3, "no audio files"),
        ("denoise clean out", 3, "where results go"),
        ("denoise clean --duration 5", 3, "no clip is 5 s long"),
        ("denoise clean --prior conf", 2, "unknown prior 'conf'"),
        ("denoise clean --baseline demucs", 2, "unknown baseline 'demucs'"),
        ("denoise clean --protocol environmental", 2, "--noise"),
        ("denoise clean --snr 9:5 --noise other", 2, "--snr"),
        ("denoise clean --noise-std 0", 2, "--noise-std must be above 0"),
        ("denoise clean --duration 0.5 --device cuda:9", 4, "cuda"),
        ("denoise clean --protocol gaussian --snr 5:9", 2, "--protocol gaussian has no use for it"),
        ("denoise clean --curves --no-oracle", 2, "--curves"),
        ("separate clean other --curves", 2, "--curves"),
        ("separate clean", 2, "two"),
        ("separate clean other --types harmonic", 2, "name the type of each"),
        ("repair clean", 2, "unknown task"),
        ("denoise", 2, "missing CLEAN"),
        ("denoise clean --noisy other", 2, "give both"),
        ("denoise --noisy clean --clean clean --noise-std 1", 2, "--noise-std, --noisy"),
        ("denoise clean --protocol pairs", 2, "--noisy.*--clean"),
    ],
)
def test_refusals_say_why_and_write_nothing(arguments: str, code: int, reason: str, dap: Dap, folder: Path) -> None:
    (folder / "empty").mkdir()
    assert_refused(dap("evaluate", *arguments.split(), "--output-dir", "out"), code, reason)
    assert not (folder / "out").exists()


def test_a_folder_of_another_run_is_refused_and_of_other_files_never_touched(dap: Dap, folder: Path) -> None:
    evaluate(dap, "denoise", "clean", *CHEAP, "--clips", "1")
    (folder / "out" / "mine.txt").write_text("keep")
    before = tree(folder)
    for options, target, code, reason in (
        (("--seed", "1"), "out", 2, "seed 0 in place of 1"),
        (("--preset", "fast"), "out", 2, r"settings\.iterations 40 in place of 30"),
        (("--overwrite",), "other", 3, "not of an evaluation"),
        ((), "a/b", 3, "create it first"),
        ((), "clean/clean150.wav", 3, "is a file"),
    ):
        assert_refused(dap("evaluate", "denoise", "clean", *CHEAP, *options, "--output-dir", target), code, reason)
    assert tree(folder) == before
    evaluate(dap, "denoise", "clean", *CHEAP, "--seed", "1", "--clips", "1", "--overwrite")
    assert results_of(folder)["seed"] == 1
    assert (folder / "out" / "mine.txt").exists()


def test_what_fails_is_reported_and_tried_again(dap: Dap, folder: Path) -> None:
    soundfile.write(folder / "clean" / "silent.wav", np.zeros(RATE), RATE)
    (folder / "clean" / "text.wav").write_text("no audio")
    soundfile.write(folder / "clean" / "short.wav", tone(200, 0.2)[0], RATE)
    arguments = ("declip", "clean", "--baseline", "cubic-spline", "--duration", "0.4")
    for _ in range(2):
        run = evaluate(dap, *arguments, code=5)
        for reason in ("failed: silent", "the clip is silent", "text.wav", "1 clip shorter than 0.4 s skipped"):
            assert reason in run.err
        assert re.search(r"^dap: 2 of 8 results failed; 1 file cannot be read", run.err, re.MULTILINE)
        results = results_of(folder)
        assert {each["method"] for each in results["failures"]} == {"input", "cubic-spline"}
        assert results["skipped"] == 1
        assert len(rows_of(folder)) == 3 * 2


def test_noise_comes_from_files(dap: Dap, folder: Path) -> None:
    (folder / "noise").mkdir()
    soundfile.write(folder / "noise" / "hum.wav", noise(RATE // 4), RATE)
    run = evaluate(dap, "denoise", "clean", *CHEAP, "--noise", "noise", "--snr", "6", "--profile", "0.2")
    assert "noise looped: hum.wav" in run.err
    snr = [float(row["snr_db"]) for row in rows_of(folder) if row["method"] == "input"]
    assert snr == pytest.approx([6.0] * 3, abs=1e-3)
