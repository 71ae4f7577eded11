"""Long recordings on the command line: what an interrupted run leaves, and how the next one goes on from there."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import soundfile
import torch

from dapcli.cli import main
from tests.command_line import (
    MAIN,
    TINY,
    Dap,
    Run,
    assert_refused,
    count_steps,
    ok,
    process,
    read,
    record_of,
    spawn,
    tree,
)
from tests.signals import RATE

OPTIONS = (
    *("--segment", "1.5", "--hop", "0.03", "--prior", "conv", "--base-channels", "2"),
    *("--iterations", "2", "--finetune-iterations", "2", "--device", "cpu", "--quiet"),
)
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
    assert outputs(folder) == {"out.wav", "out.json"}
    assert (folder / "out.wav").read_bytes() == whole


@pytest.mark.parametrize("options", [(), ("--resume",)])
def test_an_uninterrupted_run_leaves_no_folder(
    options: tuple[str, ...], dap: Dap, folder: Path, restored: bytes
) -> None:
    assert dap(*LONG, *options) == Run(0, "", "")
    assert_done(folder, restored)
    segments = record_of(folder / "out.wav")["fit"]["segments"]
    assert (segments[0]["start_s"], segments[-1]["stop_s"], len(segments)) == (0, 5, 5)
    assert all(segment["stop_s"] - segment["start_s"] <= 1.5 for segment in segments)


@pytest.mark.parametrize("options", [("--resume",), ("--resume", "--overwrite")])
def test_resume_fits_what_is_missing_and_goes_on_to_the_same_file(
    options: tuple[str, ...], dap: Dap, interrupted: Path, restored: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = count_steps(monkeypatch)
    assert dap(*LONG, *options) == Run(0, "", "")
    assert len(steps) == 3 * 2
    assert_done(interrupted, restored)
    assert len(record_of(interrupted / "out.wav")["fit"]["segments"]) == 5


def test_resume_fits_a_damaged_segment_again(dap: Dap, interrupted: Path, restored: bytes) -> None:
    segment = interrupted / "out.wav.partial" / "segment-00001.npz"
    segment.write_bytes(segment.read_bytes()[:1000])
    (segment.parent / ".dap-1-0.part").write_bytes(b"half a segment")
    ok(dap(*LONG, "--resume"))
    assert_done(interrupted, restored)


def test_a_run_that_goes_on_can_be_interrupted_again(dap: Dap, interrupted: Path, restored: bytes) -> None:
    before = tree(interrupted)
    with pytest.MonkeyPatch.context() as patch:
        count_steps(patch, KeyboardInterrupt())
        assert_refused(dap(*LONG, "--resume"), 130, "2 of 5 segments")
    assert tree(interrupted) == before
    ok(dap(*LONG, "--resume"))
    assert_done(interrupted, restored)


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ("", 3, "out.wav.partial: was left by an interrupted run; add --resume .*--overwrite"),
        ("--resume --seed 5", 2, "another seed;"),
        ("--resume --base-channels 3 --hop 0.02", 2, "another base_channels, hop;"),
        ("--resume --noise-profile 0:0.19", 2, "another noise_profile;"),
        ("--resume changed", 2, "another input;"),
        ("--overwrite --prior nothing", 2, "unknown prior"),
        ("--overwrite --stop validation", 2, "--stop validation"),
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
    assert dap(*LONG, "--overwrite", "--seed", "5") == Run(0, "", "")
    assert outputs(interrupted) == {"out.wav", "out.json"}
    assert (interrupted / "out.wav").read_bytes() != restored
    assert dap(*LONG, "--overwrite") == Run(0, "", "")
    assert_done(interrupted, restored)


def test_an_error_keeps_finished_segments_too(dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count_steps(monkeypatch, torch.OutOfMemoryError("CUDA out of memory."), after=5)
    assert_refused(dap(*LONG), 4, "out of memory")
    assert (folder / "out.wav.partial" / "segment-00000.npz").exists()
    assert outputs(folder) == {"out.wav.partial"}


GAPS = ("--gap", "0.3:0.31", "--gap", "2.7:2.71")
#: A command of the other kinds of tasks, its folder of segments, and what may differ when it goes on, or may not.
OTHERS: dict[str, tuple[tuple[str, ...], str, tuple[tuple[str, ...], ...], str]] = {
    "inpaint": (
        ("inpaint", "long_gaps.wav", "out.wav", *GAPS),
        "out.wav.partial",
        (("--refit-known",), ("--gap", "0.5:0.51"), ("--seed", "9")),
        "another gaps;",
    ),
    "separate": (
        ("separate", "long_mix.wav", "out"),
        "out/separation.partial",
        (("--names", "a,b"), ("--types", "voice,percussive"), ("--seed", "9")),
        "another types;",
    ),
}


@pytest.mark.parametrize("task", OTHERS)
def test_every_kind_of_task_goes_on_with_what_decides_its_segments(task: str, dap: Dap, recordings: Path) -> None:
    command, partial, (free, deciding, seed), reason = OTHERS[task]
    command = (*command, "--segment", "1.5", "--quiet", *TINY)
    ok(dap(*command, *free))
    whole = {
        name: content for name, content in tree(recordings).items() if name.startswith("out") and ".json" not in name
    }
    with pytest.MonkeyPatch.context() as patch:
        count_steps(patch, KeyboardInterrupt(), after=2)  # in the second segment that is fitted
        assert_refused(dap(*command, "--overwrite"), 130, f"segments are kept in {partial}; .*--resume")
    before = tree(recordings)
    assert_refused(dap(*command, *deciding, "--resume", "--overwrite"), 2, reason)
    assert_refused(dap(*command, *seed, "--resume", "--overwrite"), 2, "another seed;")
    assert tree(recordings) == before
    ok(dap(*command, *free, "--resume", "--overwrite"))
    assert {name: tree(recordings)[name] for name in whole} == whole
    assert not (recordings / partial).exists()


# Signals, and a disk that is full


@pytest.mark.skipif(sys.platform == "win32", reason="signals are a matter of Unix")
@pytest.mark.parametrize(
    ("sent", "finished"), [("SIGINT", 2), ("SIGKILL", 2), ("SIGINT", 0)], ids=["Ctrl-C", "kill", "Ctrl-C early"]
)
def test_a_run_that_a_signal_ends_can_go_on(sent: str, finished: int, dap: Dap, folder: Path, restored: bytes) -> None:
    code = f"""
import signal
from dataclasses import replace
from dapcli.cli import main
from dapcli.tasks.denoise import Denoiser

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may have inherited that it is ignored
fit_segment, started = Denoiser.fit_segment, []

def slower(solver, *arguments):
    started.append(None)
    if len(started) > {finished}:  # this one does not end by itself
        solver = replace(solver, settings=replace(solver.settings, finetune_iterations=10**6))
        print("endless", flush=True)
    return fit_segment(solver, *arguments)

Denoiser.fit_segment = slower
main()
"""
    before = tree(folder)
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
        kept = f"{finished} of 5 segments are kept in out.wav.partial; repeat the command with --resume to go on"
        assert_refused(Run(running.returncode, "", err), 130, kept if finished else "interrupted; nothing was written")
    if not finished:
        assert tree(folder) == before
        return
    assert outputs(folder) == {"out.wav.partial"}
    assert len(list((folder / "out.wav.partial").glob("segment-*.npz"))) == finished
    assert not list(folder.rglob("*.part"))
    assert dap(*LONG, "--resume") == Run(0, "", "")
    assert_done(folder, restored)


def test_a_full_disk_is_reported_and_leaves_what_was_there(folder: Path) -> None:
    pytest.importorskip("resource", reason="limits on the size of files are a matter of Unix")
    code = """
import resource, signal
from dapcli.cli import main

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
main()
"""
    (folder / "out.json").write_text("old")
    before = tree(folder)
    run = spawn(code, "denoise", "noisy.wav", "out.wav", "--overwrite", *TINY)
    assert_refused(run, 3, "out.wav: cannot be written")
    assert tree(folder) == before


# Progress


def test_progress_is_shown_on_a_terminal_only(folder: Path) -> None:
    pty = pytest.importorskip("pty", reason="pseudo terminals are a matter of Unix")
    leader, follower = pty.openpty()
    shown = b""
    arguments = ("denoise", "noisy.wav", "out.wav", "--iterations", "4", "--base-channels", "4", "--device", "cpu")
    options = {"TERM": "xterm", "COLUMNS": "120"}
    with process(MAIN, *arguments, "--finetune-iterations", "1", stderr=follower, environment=options) as running:
        os.close(follower)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                chunk = os.read(leader, 4096)
            except OSError:  # how Linux says that the other end is closed
                break
            if not chunk:
                break
            shown += chunk
        out, _ = running.communicate(timeout=60)
    os.close(leader)
    assert (running.returncode, out) == (0, "")
    assert b"loss" in shown
    assert b"/5" in shown
