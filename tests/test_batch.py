"""``dap batch``, end to end: many files, some of them bad, killed and repeated; and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import GAPS, MAIN, TINY, Dap, assert_refused, ok, process, read, tree

TINIER = ("--finetune-iterations", "1", *TINY)


def lines_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The lines of a batch.json by the names of the inputs."""
    found = json.loads((folder / "batch.json").read_text())["files"]
    return {Path(line["input"]).name: line for line in found}


def statuses(folder: Path) -> dict[str, str]:
    return {name: line["status"] for name, line in lines_of(folder).items()}


@pytest.fixture
def noisy(folder: Path) -> Path:
    """A folder ``in`` of two good recordings and four others."""
    (folder / "in" / "deep" / "er").mkdir(parents=True)
    for name, source in {
        "a good.wav": "brief",
        "deep/er/UPPER.WAV": "brief",
        "text.wav": "text",
        "deep/nan.wav": "nan",
        "one.wav": "one",
    }.items():
        shutil.copy(folder / f"{source}.wav", folder / "in" / name)
    (folder / "in" / "empty.flac").touch()
    (folder / "in" / "notes.txt").write_text("not looked at")
    return folder


def test_a_bad_file_stops_no_other_and_what_is_done_is_not_done_again(dap: Dap, noisy: Path) -> None:
    call = ("batch", "denoise", "in", "--output-dir", "out", "--jobs", "1", *TINIER)
    run = dap(*call)
    assert run.code == 5
    for name in ("text.wav", "deep/nan.wav", "one.wav", "empty.flac"):
        assert f"failed: in/{name}: " in run.err
    out = noisy / "out"
    assert {name for name in tree(out) if not name.endswith(".json")} == {"a good.wav", "deep/er/UPPER.WAV"}
    failed = dict.fromkeys(("empty.flac", "nan.wav", "one.wav", "text.wav"), "failed")
    assert statuses(out) == {"a good.wav": "done", "UPPER.WAV": "done", **failed}
    ok(dap("denoise", "in/a good.wav", "single.wav", *TINIER))
    assert (noisy / "single.wav").read_bytes() == (out / "a good.wav").read_bytes()

    for path in ("text.wav", "deep/nan.wav", "one.wav", "empty.flac"):
        (noisy / "in" / path).unlink()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.[wW]*")}
    run = ok(dap(*call, "--json", "--quiet"))
    assert (run.out, run.err) == ((out / "batch.json").read_text(), "")
    assert statuses(out) == {"a good.wav": "kept", "UPPER.WAV": "kept"}
    shutil.copy(noisy / "noisy.wav", noisy / "in" / "a good.wav")  # another content
    (noisy / "in" / "deep" / "er" / "UPPER.WAV").touch()  # the same
    ok(dap(*call))
    assert statuses(out) == {"a good.wav": "done", "UPPER.WAV": "kept"}
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.[wW]*")}
    assert {path.name for path in before if before[path] != after[path]} == {"a good.wav", "a good.wav.json"}
    ok(dap(*call, "--seed", "1"))
    assert statuses(out) == {"a good.wav": "done", "UPPER.WAV": "done"}


def test_a_manifest_has_options_for_every_file(dap: Dap, recordings: Path) -> None:
    (recordings / "lists").mkdir()
    shutil.move(recordings / "mask.csv", recordings / "lists")
    (recordings / "lists" / "all.csv").write_text(
        "path,gap,mask,output,keep-known,reference\n"
        "../gaps.wav,0.2:0.23;2800n:2920n,,,,../whole.wav\n"
        "../gaps.wav,,mask.csv,by/mask.flac,,\n"
        "../gaps.wav,0.2:0.23,,refit.wav,false,\n"
        "../text.wav,0.2:0.23,,,,\n"
    )
    run = dap("batch", "inpaint", "lists/all.csv", "--output-dir", "out", "--suffix", "_full", *TINY, "--report")
    assert run.code == 5
    out = recordings / "out"
    outputs = {line["output"]: line for line in json.loads((out / "batch.json").read_text())["files"]}
    assert [line["status"] for line in outputs.values()] == ["done", "done", "done", "failed"], run.err
    assert list(outputs) == ["out/gaps_full.wav", "out/by/mask.flac", "out/refit.wav", "out/text_full.wav"]
    assert (
        outputs["out/gaps_full.wav"]["metrics"]["gaps_snr_db"]
        > outputs["out/gaps_full.wav"]["metrics_input"]["gaps_snr_db"]
    )
    for name in ("gaps_full.wav", "by/mask.flac"):
        record = json.loads((out / f"{name}.json").read_text())
        assert record["degradation"]["intervals"] == [list(gap) for gap in GAPS]
        assert (out / f"{name}.html").exists()
    known = read(recordings / "gaps.wav")[:, :1600]
    assert (read(out / "gaps_full.wav")[:, :1600] == known).all()
    assert not (read(out / "refit.wav")[:, :1600] == known).all()


def test_sources_get_a_folder_for_each_mixture(dap: Dap, recordings: Path) -> None:
    for folder in ("first", "second"):
        (recordings / "truth" / folder).mkdir(parents=True)
    shutil.copy(recordings / "tone.wav", recordings / "truth" / "first" / "mix.wav")
    shutil.copy(recordings / "clicks.wav", recordings / "truth" / "second" / "mix.wav")
    references = ("--reference", "truth/first", "--reference", "truth/second")
    command = (
        "batch",
        "separate",
        "mi[x].wav",
        "--output-dir",
        "out",
        "--names",
        "a,b",
        "--format",
        "flac",
        "--suffix",
        "!",
    )
    ok(dap(*command, *references, "--prior", "conv", *TINY))
    assert set(tree(recordings / "out" / "mix!")) == {"a.flac", "b.flac", "separation.json"}
    assert lines_of(recordings / "out")["mix.wav"]["metrics"]["sdr_db"] is not None


def test_files_of_others_are_not_replaced(dap: Dap, folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "brief.wav").write_text("precious")
    call = ("batch", "denoise", "brief.wav", "--output-dir", "out", *TINIER)
    assert dap(*call).code == 5
    assert "already exists" in lines_of(folder / "out")["brief.wav"]["error"]
    assert (folder / "out" / "brief.wav").read_text() == "precious"
    ok(dap(*call, "--overwrite"))
    assert read(folder / "out" / "brief.wav").size


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ("denoise brief.wav sub/brief.wav", 3, "brief.wav and sub/brief.wav would both become out/brief.wav"),
        ("denoise brief.wav stereo.flac --format wav sub/stereo.wav", 3, "would both become out/stereo.wav"),
        ("denoise out", 3, "is where results go"),
        ("denoise nothing", 3, "no such file or folder"),
        ("denoise no*.aif", 3, "no such file or folder"),
        ("denoise hollow", 3, "no audio files"),
        ("denoise gone.csv", 3, "gone.csv: line 3: no such file"),
        ("denoise columns.csv", 3, "columns are file, seed; one of them must be path"),
        ("denoise option.csv", 2, "option.csv: line 2: no option 'sed' of denoise"),
        ("denoise cell.csv", 2, "cell.csv: line 2: seed 'x'"),
        ("denoise above.csv", 3, "above.csv: line 2: output ../up.wav is not below"),
        ("denoise brief.wav --noise-profile 0:", 2, "--noise-profile"),
        ("denoise brief.wav --suffix x --seed -1", 2, "--seed"),
        ("inpaint brief.wav", 3, "nothing says which samples are missing"),
        ("denoise brief.wav --prior conf", 2, "unknown prior 'conf'"),
        ("denoise brief.wav --device cuda:9", 4, "cuda:9 is not there"),
        ("denoise", 2, "Missing argument 'IN...'"),
        ("repair brief.wav", 2, "No such command"),
    ],
)
def test_refusals_say_why_and_write_nothing(arguments: str, code: int, reason: str, dap: Dap, folder: Path) -> None:
    for name in ("sub", "hollow"):
        (folder / name).mkdir()
    for name in ("brief.wav", "stereo.wav"):
        shutil.copy(folder / "noisy.wav", folder / "sub" / name)
    for name, rows in {
        "gone": "path\nbrief.wav\nlost.wav",
        "columns": "file,seed\nbrief.wav,1",
        "option": "path,sed\nbrief.wav,1",
        "cell": "path,seed\nbrief.wav,x",
        "above": "path,output\nbrief.wav,../up.wav",
    }.items():
        (folder / f"{name}.csv").write_text(rows)
    before = tree(folder)
    assert_refused(
        dap("batch", *arguments.split(), *([] if arguments == "denoise" else ["--output-dir", "out"])), code, reason
    )
    assert tree(folder) == before
    assert not (folder / "out").exists()


def test_an_output_folder_in_the_input_folder_is_no_input(dap: Dap, folder: Path) -> None:
    (folder / "in").mkdir()
    shutil.copy(folder / "brief.wav", folder / "in")
    call = ("batch", "denoise", "in", "--output-dir", "in/out", *TINIER)
    ok(dap(*call))
    ok(dap(*call))
    assert statuses(folder / "in" / "out") == {"brief.wav": "kept"}


# Killed


def wait_for(done: Any, running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not done() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert done(), running.communicate()


def children(parent: int) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(parent), "-f", "spawn_main"], capture_output=True, text=True, check=False
    )
    return [int(each) for each in found.stdout.split()]


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_batch_goes_on_after_it_was_interrupted_killed_and_a_worker_was_killed(dap: Dap, folder: Path) -> None:
    (folder / "in").mkdir()
    for number in range(10):
        shutil.copy(folder / "brief.wav", folder / "in" / f"{number}.wav")
    call = ("batch", "denoise", "in", "--output-dir", "out", *TINIER)

    def records(least: int = 0) -> list[Path]:
        found = sorted((folder / "out").glob("*.wav.json"))
        return found if len(found) >= least else []

    for count, number in ((1, signal.SIGINT), (4, signal.SIGKILL)):
        with process(MAIN, *call, "--jobs", "2") as running:
            wait_for(partial(records, count), running)
            running.send_signal(number)
            error = running.communicate()[1]
        if number == signal.SIGINT:
            assert running.returncode == 130
            assert re.fullmatch(r"dap: interrupted; \d of 10 recordings are finished in out; .* go on\n", error)
            assert not list((folder / "out").glob(".dap-*"))
    kept = {path: path.stat().st_mtime_ns for path in records()}
    assert len(kept) < 10
    with process(MAIN, *call, "--jobs", "2") as running:
        wait_for(partial(records, len(kept) + 1), running)
        os.kill(children(running.pid)[-1], signal.SIGKILL)
        assert running.wait() == 0, running.communicate()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    expected = {f"{number}.wav{end}" for number in range(10) for end in ("", ".json")} | {"batch.json"}
    assert set(tree(folder / "out")) == expected  # nothing half-written
    assert sorted(statuses(folder / "out").values()) == ["done"] * (10 - len(kept)) + ["kept"] * len(kept)
    ok(dap("denoise", "brief.wav", "single.wav", *TINIER))
    assert {path.read_bytes() for path in (folder / "out").glob("*.wav")} == {(folder / "single.wav").read_bytes()}
