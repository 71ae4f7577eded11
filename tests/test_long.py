"""Long recordings on the command line: what an interrupted run leaves, and how the next one goes on from there."""

from __future__ import annotations

import io
import re
import signal
import sys
from pathlib import Path

import pytest
import soundfile

from dapcli.cli import main
from dapcli.fit import Iteration
from dapcli.pipeline.run import Progress
from dapcli.report.console import TimeLeft
from tests.command_line import TINY, Dap, Run, assert_refused, count_steps, ok, process, read, record_of, tree
from tests.signals import RATE

QUICK = ("--segment", "1.5", "--hop", "0.03", "--prior", "conv", *TINY, "--quiet")
OPTIONS = (*QUICK, "--finetune-iterations", "2")
LONG = ("denoise", "long.wav", "out.wav", *OPTIONS)


@pytest.fixture(scope="module")
def restored(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The output of an uninterrupted run."""
    output = tmp_path_factory.mktemp("whole") / "out.wav"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["dap", "denoise", str(clips / "long.wav"), str(output), *OPTIONS])
        with pytest.raises(SystemExit):
            main()
    return output.read_bytes()


@pytest.fixture
def interrupted(dap: Dap, folder: Path) -> Path:
    """The folder with what a run left that was interrupted after some of its segments."""
    before = tree(folder)
    with pytest.MonkeyPatch.context() as patch:
        count_steps(patch, KeyboardInterrupt(), after=7)  # two of pretraining, and two each of two segments
        assert_refused(dap(*LONG), 130, "2 of 5 segments are kept in out.wav.partial; .*--resume")
    names = {"run.json", "weights.npz", "segment-00000.npz", "segment-00001.npz"}
    assert set(tree(folder)) - set(before) == {f"out.wav.partial/{name}" for name in names}
    return folder


def outputs(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith(("out", ".dap"))}


def assert_done(folder: Path, whole: bytes) -> None:
    assert outputs(folder) == {"out.wav", "out.wav.json"}
    assert (folder / "out.wav").read_bytes() == whole


def test_an_uninterrupted_run_leaves_no_folder(dap: Dap, folder: Path, restored: bytes) -> None:
    assert dap(*LONG, "--resume") == Run(0, "", "")  # where there is nothing to go on with
    assert_done(folder, restored)
    segments = record_of(folder / "out.wav")["fit"]["segments"]
    assert (segments[0]["start_s"], segments[-1]["stop_s"], len(segments)) == (0, 5, 5)
    assert all(segment["stop_s"] - segment["start_s"] <= 1.5 for segment in segments)


def test_resume_fits_what_is_missing_and_goes_on_to_the_same_file(dap: Dap, interrupted: Path, restored: bytes) -> None:
    before = tree(interrupted)
    with pytest.MonkeyPatch.context() as patch:
        count_steps(patch, KeyboardInterrupt())
        assert_refused(dap(*LONG, "--resume"), 130, "2 of 5 segments")
    assert tree(interrupted) == before
    with pytest.MonkeyPatch.context() as patch:
        steps = count_steps(patch)
        assert dap(*LONG, "--resume", "--overwrite") == Run(0, "", "")
    assert len(steps) == 3 * 2
    assert_done(interrupted, restored)
    assert len(record_of(interrupted / "out.wav")["fit"]["segments"]) == 5


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ("", 3, "out.wav.partial: was left by an interrupted run; add --resume .*--overwrite"),
        ("--resume --base-channels 3 --hop 0.02", 2, "another base_channels, hop;"),
        ("--resume --noise-profile 0:0.19", 2, "another noise_profile;"),
        ("--resume changed", 2, "another input;"),
        ("--overwrite --prior nothing", 2, "unknown prior"),
        ("--overwrite --stop oracle", 2, "--reference"),
    ],
)
def test_what_an_interrupted_run_left_is_not_lost_to_a_command_that_does_not_fit(
    arguments: str, code: int, reason: str, dap: Dap, interrupted: Path, no_fit: None
) -> None:
    if "changed" in arguments:
        soundfile.write(interrupted / "long.wav", read(interrupted / "long.wav").T / 2, RATE)
    before = tree(interrupted)
    assert_refused(dap(*LONG, *arguments.removesuffix("changed").split()), code, reason)
    assert tree(interrupted) == before


def test_overwrite_starts_again(dap: Dap, interrupted: Path, restored: bytes) -> None:
    assert dap(*LONG, "--overwrite") == Run(0, "", "")
    assert_done(interrupted, restored)


GENERATE = "inpaint long_gaps.wav out.wav --estimator generate --gap 0.3:0.31 --gap 2.7:2.71"


@pytest.mark.parametrize(
    ("command", "partial", "free", "deciding"),
    [
        (GENERATE, "out.wav", "--refit-known", "--gap 0.5:0.51"),
        ("separate long_mix.wav out", "out/separation", "--names a,b", "--types voice,percussive"),
    ],
    ids=["inpaint", "separate"],
)
def test_every_kind_of_task_goes_on_with_what_decides_its_segments(
    command: str, partial: str, free: str, deciding: str, dap: Dap, recordings: Path
) -> None:
    call = (*command.split(), *QUICK, "--overwrite")
    ok(dap(*call, *free.split()))
    whole = {name: content for name, content in tree(recordings).items() if re.match(r"out.*wav$", name)}
    with pytest.MonkeyPatch.context() as patch:
        count_steps(patch, KeyboardInterrupt(), after=2)  # in the second segment that is fitted
        assert_refused(dap(*call), 130, f"segments are kept in {partial}.partial; .*--resume")
    before = tree(recordings)
    assert_refused(dap(*call, *deciding.split(), "--resume"), 2, f"another {deciding.split()[0].strip('-')}s?;")
    assert tree(recordings) == before
    ok(dap(*call, *free.split(), "--resume"))
    assert {name: tree(recordings)[name] for name in whole} == whole
    assert not (recordings / f"{partial}.partial").exists()


# Signals


@pytest.mark.skipif(sys.platform == "win32", reason="signals are a matter of Unix")
@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_a_run_that_a_signal_ends_can_go_on(sent: str, dap: Dap, folder: Path, restored: bytes) -> None:
    code = """
import signal
from dataclasses import replace
from dapcli.cli import main
from dapcli.fit import Iteration
from dapcli.pipeline.run import Progress
from dapcli.report.console import TimeLeft
from dapcli.tasks.denoise import Denoiser

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may have inherited that it is ignored
fit_segments, started = Denoiser.fit_segments, []

def slower(solver, *arguments):
    started.append(None)
    if len(started) > 2:  # this one does not end by itself
        solver = replace(solver, settings=replace(solver.settings, finetune_iterations=10**6))
        print("endless", flush=True)
    return fit_segments(solver, *arguments)

Denoiser.fit_segments = slower
main()
"""
    with process(code, *LONG) as running:
        assert running.stdout is not None
        try:
            assert running.stdout.readline() == "endless\n"
            running.send_signal(getattr(signal, sent))
            _, err = running.communicate(timeout=60)
        finally:
            running.kill()
    if sent == "SIGKILL":
        assert running.returncode == -signal.SIGKILL
    else:
        kept = "2 of 5 segments are kept in out.wav.partial; repeat the command with --resume to go on"
        assert_refused(Run(running.returncode, "", err), 128 + getattr(signal, sent), kept)
    # The kernel has ended the claims of a killed run, and whoever claims the files next removes theirs.
    assert {name for name in outputs(folder) if not name.endswith(".lock")} == {"out.wav.partial"}
    assert len(list((folder / "out.wav.partial").glob("segment-*.npz"))) == 2
    assert not list(folder.rglob("*.part"))
    assert dap(*LONG, "--resume") == Run(0, "", "")
    assert_done(folder, restored)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are a matter of Unix")
def test_ctrl_c_during_an_import_is_one_line(folder: Path) -> None:
    code = """
import builtins, os, signal, sys
from dapcli.__main__ import main

signal.signal(signal.SIGINT, signal.default_int_handler)
original = builtins.__import__

def interrupt(name, *arguments):
    if name == module:
        builtins.__import__ = original
        os.kill(os.getpid(), signal.SIGINT)
    return original(name, *arguments)

module = sys.argv.pop()
builtins.__import__ = interrupt
main()
"""
    for module in ("typer", "torch"):
        with process(code, *LONG, module) as running:
            _, err = running.communicate()
        assert_refused(Run(running.returncode, "", err), 130, "nothing was written")
    assert outputs(folder) == set()


# Progress


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_only(terminal: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "argv", ["dap", "denoise", "brief.wav", "out.wav", "--finetune-iterations", "1", *TINY])
    for name, value in {"TERM": "xterm", "COLUMNS": "120"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        main()
    assert "out.wav.json" in stream.getvalue()
    assert all((text in stream.getvalue()) == terminal for text in ("loss", "/3"))


@pytest.mark.parametrize(("segments", "pretraining"), [(1, 0), (5, 0), (5, 10)])
def test_the_time_left_is_true_where_preparing_takes_longer_than_fitting(
    segments: int, pretraining: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("dapcli.report.console.monotonic", lambda: now)
    time_left, total, slow = TimeLeft(), pretraining + 10 * segments, not pretraining
    found = []
    for done in range(1, total + 1):
        now += 1 + 50 * (done == 1 or (slow and done % 10 == 1))
        segment = None if done <= pretraining else (done - pretraining - 1) // 10
        progress = Progress(Iteration(done, 0.0, 0.0, 0.0), segment, segments, done, total, 0.0)
        left = time_left.after(progress)
        others = segments - (segment or 0) - 1 if slow else 0
        if left is not None and not (slow and done % 10):
            found.append((left, (total - done) + 50 * others))
    estimates, true = zip(*found, strict=True)
    assert estimates == pytest.approx(true)
    assert len(found) == (segments if slow else total - 1)


def test_the_time_left_is_true_where_segments_take_longer_than_the_pretraining(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("dapcli.report.console.monotonic", lambda: now)
    time_left = TimeLeft()
    for done in range(1, 51):
        now += 1 if done <= 10 else 3
        segment = None if done <= 10 else (done - 11) // 10
        left = time_left.after(Progress(Iteration(done, 0.0, 0.0, 0.0), segment, 4, done, 50, 0.0))
        if done > 23:
            assert left == pytest.approx(3 * (50 - done))
