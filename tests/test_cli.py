"""The command line, end to end: what all tasks share, what is refused, and the commands that only print."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from typer.main import get_command

import dapcli
from dapcli.audio.files import claim
from dapcli.cli import main, make_app
from dapcli.fit import OPTIMIZERS
from dapcli.metrics import METRICS
from dapcli.priors import NO_PRIOR, PRIORS
from dapcli.settings import Settings
from dapcli.signal.noise import NOISE_MODELS
from dapcli.tasks import TASKS
from dapcli.tasks.check import usable_priors
from dapcli.tasks.denoise import POST_FILTERS
from tests.command_line import (
    COMMANDS,
    MAIN,
    SOURCES,
    TINY,
    Dap,
    Run,
    assert_refused,
    count_steps,
    ok,
    process,
    read,
    record_of,
    tree,
    written,
)
from tests.signals import snr_db

#: Section "contract" of the design; keys may be added.
CONTRACT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("task", "input", "output", "seed", "device", "dtype", "sample_rate", "channels", "samples"), ()),
    **dict.fromkeys(("post_filter", "gain", "notes"), ()),
    "stft": ("n_fft", "hop", "window", "window_s", "hop_s"),
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
DENOISE = COMMANDS["denoise"]
OUTPUTS = {name: "out" if task.options.folder else "out.wav" for name, task in TASKS.items()}


# What all tasks do


@pytest.mark.parametrize("task", TASKS)
def test_a_task_writes_its_outputs_and_a_record_and_tells_people_on_stderr(
    task: str, dap: Dap, recordings: Path
) -> None:
    before = tree(recordings)
    run = ok(dap(*COMMANDS[task]))
    new = {"out.wav", "out.wav.json"}
    if task == "separate":
        new = {"out/harmonic.wav", "out/percussive.wav", "out/separation.json"}
    assert set(tree(recordings)) - set(before) == new
    assert tree(recordings).items() >= before.items()
    assert run.out == ""
    assert all(name in run.err for name in (task, *new))

    record = record_of(recordings / OUTPUTS[task])
    for key, parts in CONTRACT.items():
        assert set(parts) <= set(record[key] if parts else ())
    assert (record["task"], record["input"], record["output"]) == (task, COMMANDS[task][1], OUTPUTS[task])
    assert (record["device"], record["seed"], record["gain"]) == ("cpu", 0, 1)
    assert record["fit"]["stopped_by"]
    assert record["fit"]["iterations"] == 2 + (task == "denoise")
    assert record["stft"]["window_s"] == pytest.approx(record["stft"]["n_fft"] / record["sample_rate"])
    assert record["versions"]["dapcli"] == dapcli.__version__
    assert record["notes"]["metrics"] == "no --reference was given"
    assert set(record["metrics"].values()) == {None}
    if task != "denoise":
        assert set(record["noise"].values()) == {None}


@pytest.mark.parametrize("task", TASKS)
def test_json_prints_the_record_and_a_report_is_one_page(task: str, dap: Dap, recordings: Path) -> None:
    reference = {"denoise": ("--reference", "brief.wav"), "separate": SOURCES}.get(task, ("--reference", "whole.wav"))
    run = ok(dap(*COMMANDS[task], *reference, "--json", "--report", "page.html"))
    assert json.loads(run.out) == record_of(recordings / OUTPUTS[task])  # one object; a second would be an error
    page = (recordings / "page.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert len(re.findall("<audio", page)) == (5 if task == "separate" else 4)


# Where a network has found nothing the classical estimate is kept, which has no seed.
@pytest.mark.parametrize(
    ("task", "estimator"), [("denoise", "mask"), ("inpaint", "generate"), ("separate", "double-dip")]
)
def test_same_seed_makes_bit_identical_files_and_another_seed_does_not(
    task: str, estimator: str, dap: Dap, recordings: Path
) -> None:
    outputs = []
    for seed in ("3", "3", "4"):
        ok(dap(*COMMANDS[task], "--seed", seed, "--overwrite", "--quiet", "--estimator", estimator))
        torch.rand(1)  # what else draws random numbers in this process must not matter
        outputs.append([path.read_bytes() for path in written(recordings)])
    assert outputs[0] == outputs[1]
    assert outputs[0] != outputs[2]


def test_two_threads_make_the_same_file_each_time(folder: Path) -> None:
    code = """
import sys, torch
from dapcli.cli import main
torch.set_num_threads(2)
for sys.argv[3] in ("a.wav", "b.wav"):
    try:
        main()
    except SystemExit:
        pass
"""
    with process(code, "denoise", "brief.wav", "", "--quiet", *TINY) as running:
        assert running.communicate() == ("", "")
    assert (folder / "a.wav").read_bytes() == (folder / "b.wav").read_bytes()


CHOICES = [
    *((task, f"--preset {name}") for task in TASKS for name in TASKS[task].presets),
    *(("denoise", f"--prior {name}") for name in usable_priors(TASKS["denoise"], "mask")),
    *((task, "--prior wave-unet --estimator generate") for task in ("denoise", "declip")),
    *((task, f"--prior {NO_PRIOR}") for task in ("inpaint", "separate")),
    *(("denoise", f"--post-filter {name}") for name in POST_FILTERS),
    *(("denoise", f"--optimizer {name}") for name in OPTIMIZERS),
    *(("denoise", f"--noise-model {name}") for name in NOISE_MODELS),
    *((task, "--precision bfloat16") for task in TASKS),
    *(("denoise", f"--stop held-out --estimator {name}") for name in TASKS["denoise"].estimators),
    *((task, f"--stop {stop}") for task in ("dequantize", "separate") for stop in ("validation", "fixed")),
    *((task, "--stop oracle --estimator generate") for task in ("denoise", "declip")),
    ("separate", "--stop oracle --estimator double-dip"),
]


@pytest.mark.parametrize(("task", "options"), CHOICES)
def test_every_choice_runs_and_is_recorded(task: str, options: str, dap: Dap, recordings: Path) -> None:
    references = SOURCES if task == "separate" else ("--reference", COMMANDS[task][1])
    ok(dap(*COMMANDS[task], *(references if "oracle" in options else ()), *options.split()))
    record = record_of(recordings / OUTPUTS[task])
    chosen = dict(zip(options.replace("--", "").split()[::2], options.split()[1::2], strict=True))
    for name, value in chosen.items():
        if name == "preset":
            name, value = "estimator", TASKS[task].presets[value].estimator
        assert record["settings"][name.replace("-", "_")] == value
    assert record["fit"]["stopped_by"].startswith(chosen.get("stop", ""))
    assert bool(record["fit"]["iterations"]) == (chosen.get("prior") != NO_PRIOR)
    assert all(np.isfinite(read(path)).all() for path in written(recordings))


def test_every_option_of_the_settings_reaches_the_fit(dap: Dap, folder: Path) -> None:
    values = (
        "fold=3 attenuation_limit=12.5 learning_rate=0.02 recorruption_scale=0.6 ema_decay=0.8 window=0.03 hop=0.01 "
        "segment=2.0 rate=8000 window_shape=box dilation=5 prior=dilated seed=7 iterations=3 finetune_iterations=0 "
        "base_channels=2 input_noise=0.0 precision=float32 optimizer=adam stop=fixed estimator=mask "
        "noise_model=steady post_filter=none"
    )
    given = dict(value.split("=") for value in values.split())
    assert given.keys() == {each.name for each in fields(Settings)}
    options = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", value)]
    ok(dap("denoise", "brief.wav", "out.wav", *options, "--device", "cpu"))
    record = record_of(folder / "out.wav")
    assert {name: str(value) for name, value in record["settings"].items()} == given
    assert (record["sample_rate"], record["working_rate"], record["samples"]) == (16_000, 8_000, 3_200)


def test_every_command_has_every_option_of_its_own_once() -> None:
    command: Any = get_command(make_app())
    assert set(command.commands) == {*TASKS, "batch", "evaluate", "score", "priors", "doctor"}
    batch = command.commands.pop("batch").commands
    assert set(batch) == set(TASKS)
    for name, each in (*command.commands.items(), *batch.items()):
        flags = [flag for option in each.params for flag in (*option.opts, *option.secondary_opts)]
        assert set(Counter(flags).values()) == {1}
        assert len({option.name for option in each.params}) == len(each.params)
        known = {f"--{each.name.replace('_', '-')}" for each in fields(Settings) if name in each.metadata["tasks"]}
        others = {f"--{each.name.replace('_', '-')}" for each in fields(Settings) if each.metadata["tasks"]} - known
        assert name not in TASKS or (known <= set(flags) and not others & set(flags))


def test_the_help_of_every_command_has_examples_with_options_that_it_knows() -> None:
    group = get_command(make_app())
    commands = dict(group.commands)  # type: ignore[attr-defined]
    commands |= {f"batch {name}": each for name, each in commands.pop("batch").commands.items()}
    for name, command in commands.items():
        lines = command.epilog.splitlines()[1:]
        flags = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
        assert lines
        for line in lines:
            assert line.startswith(f"dap {name}")
            assert len(line) <= 78
            used = {word for word in line.split() if word.startswith("-")}
            # Those of evaluate's protocols are there once somebody types its name.
            assert used <= flags | ({"--noise", "--noisy"} if name == "evaluate" else set())


@pytest.mark.parametrize("task", ["denoise", "evaluate", "score"])
def test_help_fits_80_columns(task: str, dap: Dap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = ok(dap(task, "--help")).out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


# Recordings of every kind


@pytest.mark.parametrize(
    ("source", "output", "subtype"),
    [
        ("stereo.flac", "out.aiff", "PCM_24"),
        ("float.wav", "out.wav", "FLOAT"),
        ("brief.wav", "out.ogg", "VORBIS"),
        ("short.wav", "out.wav", "PCM_16"),
        ("zeros.wav", "out.wav", "PCM_16"),
    ],
)
def test_the_output_has_the_rate_channels_subtype_and_length_of_the_input(
    source: str, output: str, subtype: str, dap: Dap, folder: Path
) -> None:
    ok(dap("denoise", source, output, *TINY))
    before, after = soundfile.info(folder / source), soundfile.info(folder / output)
    assert (after.samplerate, after.channels, after.frames) == (before.samplerate, before.channels, before.frames)
    assert (after.format, after.subtype) == (Path(output).suffix[1:].upper(), subtype)
    assert np.isfinite(read(folder / output)).all()


@pytest.mark.parametrize("name", ["a take [red] here.wav", "x[/b].wav", "ναός.wav", "latin-\udce9.wav"])
def test_any_file_name_is_read_written_and_printed(name: str, dap: Dap, folder: Path) -> None:
    try:
        shutil.copy(folder / "brief.wav", folder / name)
    except OSError:
        pytest.skip("this file system does not take the name")
    (folder / "sub").mkdir()
    run = ok(dap("denoise", name, f"sub/{name}", "--json", *TINY))
    assert read(folder / "sub" / name).shape == read(folder / name).shape
    assert json.loads(run.out)["input"] == name
    assert record_of(folder / "sub" / name)["output"] == f"sub/{name}"
    assert f"output: sub/{name}\n".encode(errors="replace").decode() in run.err


def test_outputs_of_one_stem_have_a_record_each(dap: Dap, folder: Path) -> None:
    for output in ("out.wav", "out.flac"):
        ok(dap("denoise", "brief.wav", output, *TINY))
    assert [record_of(folder / output)["output"] for output in ("out.wav", "out.flac")] == ["out.wav", "out.flac"]


def test_reference_gives_metrics_and_a_noise_profile_the_noise(dap: Dap, folder: Path) -> None:
    quiet = read(folder / "noisy.wav")[:, :3040]
    soundfile.write(folder / "noise.wav", quiet.T, 16_000)
    ok(dap("denoise", "noisy.wav", "out.wav", "--reference", "clean.wav", "--noise-profile", "noise.wav", *TINY))
    record = record_of(folder / "out.wav")
    assert record["noise"]["std"] == pytest.approx(quiet.std(), rel=0.1)
    clean = read(folder / "clean.wav")
    for key, name in [("metrics", "out.wav"), ("metrics_input", "noisy.wav")]:
        assert record[key]["snr_db"] == pytest.approx(snr_db(clean, read(folder / name)), abs=0.01)
        assert set(record[key]) == set(METRICS)
        for metric, value in record[key].items():
            assert value is not None or f"{key}.{metric}" in record["notes"]


# What is refused: what follows dap, the exit code, and the reason

BAD: dict[str, list[tuple[str, int, str]]] = {
    "denoise": [
        # Recordings
        ("cut_header.wav out.wav", 3, "cannot be read as audio"),
        ("nan.wav out.wav", 3, "NaN"),
        ("noisy.wav out.wav --reference longer.wav", 3, "must match"),
        ("noisy.wav out.wav --reference clean.wav --reference brief.wav", 2, "2 were given for 1"),
        # Places to write to
        ("noisy.wav noisy.wav --overwrite", 3, "is an input"),
        ("noisy.wav link.wav --overwrite", 3, "is an input"),
        ("noisy.wav clean.wav --overwrite --noise-profile clean.wav", 3, "is an input"),
        ("noisy.wav taken_record.wav", 3, "taken_record.wav.json: already exists"),
        ("noisy.wav out.wav --report noisy.wav --overwrite", 3, "is an input"),
        (f"noisy.wav {'n' * 247}.wav", 3, "cannot be written"),  # the record's name is a letter too long
        ("noisy.wav out.txt", 2, "unknown audio extension"),
        ("studio.wav out.mp3", 2, "another extension"),
        ("- out.wav", 3, "pipe"),
        ("noisy.wav -", 2, "pipe"),
        ("noisy.wav .", 3, "is a folder"),
        # Options
        ("-take.wav out.wav", 2, r"\./-take\.wav"),
        ("noisy.wav out.wav --stop oracle", 2, "--reference"),
        ("noisy.wav out.wav --nothing", 2, "No such option"),
        ("noisy.wav out.wav --noise-profile 0.1", 2, "START:END"),
        ("noisy.wav out.wav --noise-profile 0.3:0.6", 3, "ends at"),
        ("noisy.wav out.wav --prior wave-unet", 2, "makes waveforms.*--estimator mask"),
        ("noisy.wav out.wav --prior wave-unet --estimator generate --fold 2", 2, "--fold is for spectrograms"),
        ("noisy.wav out.wav --device cuda:99", 4, "is not there.*--device auto"),
    ],
    "inpaint": [
        ("gaps.wav out.wav", 3, "--gap START:END.*--mask.*--detect"),
        ("whole.wav out.wav --detect", 3, "no gaps were detected.*--gap"),
        ("clipped.wav out.wav --detect --min-gap 0.0003", 3, "no gaps were detected.*as clipping makes.*--gap"),
        ("gaps.wav out.wav --gap 0.2:0.3 --detect", 2, "--gap and --detect"),
        ("gaps.wav out.wav --gap 0.2:0.3 --min-gap 0.01", 2, "--min-gap.*--detect"),
        ("gaps.wav mask.wav --mask mask.wav --overwrite", 3, "is an input"),
    ],
    "declip": [
        ("whole.wav out.wav", 3, "no clipping was detected.*--level"),
        ("clipped.wav out.wav --level 0.5", 3, "no sample reaches"),
        ("quantized.wav out.wav", 3, "dap dequantize.*--level"),
    ],
    "dequantize": [
        ("whole.wav out.wav", 3, "was detected.*--levels"),
        ("quantized.wav out.wav --levels 10", 3, "off the 10 levels"),
    ],
    "separate": [
        ("mix.wav out --types harmonic,voice --sources 3", 2, "--types has 2.*--sources 3"),
        ("mix.wav out --names piano", 2, "--names has 1 for 2 sources"),
        ("mix.wav out --names piano,../drums", 2, "not a plain file name"),
        ("mix.wav out --names Separation,drums", 2, "name of the record"),
        ("mix.wav out --no-consistent", 2, "--estimator double-dip"),
        ("mix.wav out --reference tone.wav", 2, "1 were given for 2"),
        ("mix.wav out --reference tone.wav --reference tone.wav", 2, "one file twice"),
        ("mix.wav out --prior wave-unet --estimator double-dip", 2, "makes waveforms"),
        ("mix.wav out --fixed-order", 2, "--fixed-order.*--reference"),
        ("mix.dat out", 2, "unknown audio extension '.dat'.*--format"),
        ("zeros.wav out", 3, "silent"),
        ("mix.wav missing/out", 3, "missing: no such folder; create it first"),
        ("mix.wav tone.wav", 3, "tone.wav: is not a folder"),
        ("mix.wav . --names tone,drums", 3, "tone.wav: already exists"),
        (f"mix.wav . --names tone,drums --overwrite {' '.join(SOURCES)}", 3, "tone.wav: is an input"),
        ("mix.wav out --report out/separation.json", 3, "different files"),
    ],
    "score": [
        ("clean.wav longer.wav", 3, "longer.wav.*must match"),
        ("clean.wav noisy.wav missing.wav --json", 3, "no such file"),
    ],
    "priors": [("--preset nothing", 2, "unknown preset")],
    "doctor": [("missing.wav", 3, "no such file"), ("--seconds nan", 2, "--seconds")],
    "nothing": [("", 2, "nothing")],
}
LINES = [(f"{command} {rest}".strip(), code, why) for command, lines in BAD.items() for rest, code, why in lines]


@pytest.mark.usefixtures("no_fit")
@pytest.mark.parametrize(("line", "code", "reason"), LINES, ids=[line[0][:70] for line in LINES])
def test_bad_input_is_one_line_and_nothing_is_written(
    line: str, code: int, reason: str, dap: Dap, recordings: Path
) -> None:
    (recordings / "link.wav").symlink_to(recordings / "noisy.wav")
    (recordings / "taken_record.wav.json").write_text("taken")
    before = tree(recordings)
    assert_refused(dap(*line.split(" ")), code, reason)
    assert tree(recordings) == before
    assert not (recordings / "out").exists()


def test_a_recording_that_is_no_audio_is_refused_without_waiting_for_torch(folder: Path) -> None:
    code = """
import sys
from pathlib import Path
from dapcli.cli import main
from dapcli.audio.files import claim
for arguments in (["missing.wav", "out.wav"], ["noisy.wav", "noisy.wav"], ["noisy.wav", "a.wav"]):
    sys.argv = ["dap", "denoise", *arguments]
    try:
        with claim(Path("a.wav")):
            main()
    except SystemExit as exit_:
        print(exit_.code)
print("torch" in sys.modules)
"""
    with process(code) as running:
        assert running.communicate()[0] == "3\n3\n3\nFalse\n"


@pytest.mark.parametrize(
    ("claimed", "arguments"),
    [
        ("out.wav", "denoise brief.wav ../clips/out.wav --overwrite --resume"),
        ("page.html", "denoise brief.wav out.wav --report page.html"),
        ("out", "separate mix.wav ./out"),
        ("out", "evaluate denoise brief.wav --duration 0.2 --baseline input --output-dir out"),
    ],
)
def test_two_runs_do_not_write_one_file(claimed: str, arguments: str, dap: Dap, recordings: Path, no_fit: None) -> None:
    if claimed == "out":
        (recordings / "out").mkdir()
    with claim(recordings / claimed):
        before = tree(recordings)
        assert_refused(dap(*arguments.split()), 3, f"{claimed} is being written by another run")
        assert tree(recordings) == before


@pytest.mark.parametrize(
    ("arguments", "megabytes"),
    [
        ("long.wav out.wav", 0.24),
        ("long.wav out.wav --segment 6", 0.08),
        ("long.wav out.flac --segment 6", 0.04),
        ("long.wav out.wav --segment 6 --report out.html", 0.92),
    ],
)
def test_a_disk_that_would_fill_is_refused_before_the_fit(
    arguments: str, megabytes: float, dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dapcli.pipeline.store.Store.begin", refuse)
    for free, code, reason in ((0.9, 3, "MB are free.*make room"), (1.1, 130, "interrupted")):
        usage = shutil._ntuple_diskusage(10**9, 0, int(megabytes * 1e6 * free))
        monkeypatch.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
        assert_refused(dap("denoise", *arguments.split(), *TINY), code, reason)
    assert not list(folder.glob("out*"))


def test_a_name_of_250_bytes_is_no_obstacle(dap: Dap, folder: Path) -> None:
    name = f"{'x' * 246}.wav"
    shutil.copy(folder / "long.wav", folder / name)
    (folder / "sub").mkdir()
    call = ("denoise", name, f"sub/{name}", "--segment", "2", "--finetune-iterations", "1", *TINY, "--quiet")
    with pytest.MonkeyPatch.context() as patch:
        count_steps(patch, KeyboardInterrupt(), after=4)
        assert_refused(dap(*call), 130, "--resume")
    ok(dap(*call, "--resume"))
    assert set(tree(folder / "sub")) == {name, f"{name}.json"}


def test_a_fit_that_fails_names_the_options_that_help(dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(folder)
    assert_refused(dap(*DENOISE, "--learning-rate", "1e30", "--iterations", "9"), 2, "--learning-rate")
    count_steps(monkeypatch, torch.OutOfMemoryError("CUDA out of memory.\nMore lines."))
    assert_refused(dap(*DENOISE), 4, "--segment.*--base-channels")
    assert tree(folder) == before


def test_an_error_of_dap_itself_is_one_line_and_a_traceback_with_debug_only(
    dap: Dap, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_steps(monkeypatch, ZeroDivisionError("a surprise"))
    run = dap(*DENOISE)
    assert run.code == 1
    assert re.fullmatch(r"dap: internal error: ZeroDivisionError: a surprise[^\n]*--debug[^\n]*\n", run.err)
    for arguments, error in (([], ZeroDivisionError), (["--reference", "missing.wav"], dapcli.errors.InputError)):
        monkeypatch.setattr(sys, "argv", ["dap", *DENOISE, *arguments, "--debug"])
        with pytest.raises(error):
            main()


# The commands that print


def test_score_has_every_metric_or_a_note_for_every_estimate(dap: Dap, folder: Path) -> None:
    shutil.copy(folder / "noisy.wav", folder / "take[red].wav")
    estimates = ("take[red].wav", "clean.wav")
    scores = json.loads(ok(dap("score", "clean.wav", *estimates, "--json")).out)
    assert tuple(scores) == estimates
    for entry in scores.values():
        assert set(entry["metrics"]) == set(METRICS)
        assert {name for name, value in entry["metrics"].items() if value is None} == set(entry["notes"])
    snr = snr_db(read(folder / "clean.wav"), read(folder / "noisy.wav"))
    assert scores["take[red].wav"]["metrics"]["snr_db"] == pytest.approx(snr)
    run = ok(dap("score", "clean.wav", *estimates))
    assert run.err == ""
    header, *rows = run.out.splitlines()
    assert header.split() == ["metric", *estimates]
    row = next(row for row in rows if row.startswith("SNR (dB)"))
    assert float(row.split()[2]) == pytest.approx(snr, abs=0.01)


def test_a_current_folder_that_is_gone_is_one_line(dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "gone").mkdir()
    monkeypatch.chdir(folder / "gone")
    (folder / "gone").rmdir()
    assert_refused(dap("denoise", str(folder / "noisy.wav"), str(folder / "out.wav")), 3, "current folder")


def test_an_inverted_reference_is_noted(dap: Dap, folder: Path) -> None:
    soundfile.write(folder / "inverted.wav", -read(folder / "clean.wav").T, 16_000)
    assert "looks inverted" in ok(dap("score", "inverted.wav", "noisy.wav")).out
    run = ok(dap("denoise", "noisy.wav", "out.wav", "--reference", "inverted.wav", *TINY))
    note = record_of(folder / "out.wav")["notes"]["alignment_1"]
    assert "looks inverted" in note
    assert note in run.err


def test_what_is_wrong_in_files_is_told_by_every_command(dap: Dap, folder: Path) -> None:
    data = (folder / "clean.wav").read_bytes()
    (folder / "cut.wav").write_bytes(data[:-2])
    (folder / "half.wav").write_bytes(data[: len(data) // 2])
    scores = json.loads(ok(dap("score", "cut.wav", "cut.wav", "--json")).out)
    assert [key for key, note in scores["cut.wav"]["notes"].items() if "truncated" in note] == ["input_1", "input_2"]
    assert "truncated" in ok(dap("score", "cut.wav", "cut.wav")).out
    doctor = ("doctor", "cut.wav", "--seconds", "0.1", "--prior", "conv", "--preset", "fast", "--json")
    assert len(json.loads(ok(dap(*doctor)).out)["notes"]) == 1
    run = ok(dap("denoise", "cut.wav", "out.wav", "--finetune-iterations", "1", *TINY))
    assert record_of(folder / "out.wav")["notes"]["input_1"] in run.err
    assert_refused(dap("score", "half.wav", "half.wav"), 3, "--accept-truncated")
    ok(dap("score", "half.wav", "half.wav", "--accept-truncated"))
    assert_refused(dap("denoise", "half.wav", "half_out.wav", *TINY), 3, "--accept-truncated")
    ok(dap("denoise", "half.wav", "half_out.wav", "--accept-truncated", "--finetune-iterations", "1", *TINY))


def test_a_recording_that_must_not_be_read_is_an_unusable_input(
    dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(Path, "open", denied)
    assert_refused(dap("score", "clean.wav", "clean.wav"), 3, "clean.wav: .*Permission denied")


def test_priors_know_the_size_of_the_released_network(dap: Dap) -> None:
    priors = json.loads(ok(dap("priors", "--json", "--preset", "paper")).out)
    assert list(priors) == list(PRIORS)
    assert priors["ddunet"]["parameters"] == 1_092_912
    assert all(entry["gflop_per_iteration"] > 0 for entry in priors.values())


def test_the_version_is_printed_and_without_a_command_the_help(dap: Dap) -> None:
    assert dap("--version") == Run(0, f"dap {dapcli.__version__}\n", "")
    run = dap()
    assert (run.code, "denoise" in run.out + run.err, "dap:" in run.err) == (2, True, False)


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    with process(MAIN, "score", "clean.wav", "clean.wav", "--json") as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        err = running.stderr.read()
    assert (bool(running.returncode), err) == (True, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("command", ["--help", "score clean.wav clean.wav", "denoise brief.wav out.wav --json --quiet"])
def test_a_stdout_that_refuses_is_one_line_and_files_are_written(command: str, folder: Path) -> None:
    with Path("/dev/full").open("w") as full:
        line = [sys.executable, "-c", MAIN, *command.split(), *(TINY if "out" in command else ())]
        run = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert_refused(Run(run.returncode, "", run.stderr), 3, "^dap: stdout")
    assert all((folder / name).exists() == ("out" in command) for name in ("out.wav", "out.wav.json"))


@pytest.mark.parametrize(("words", "completed"), [("dap den", "denoise"), ("dap evaluate --snr", "--snr")])
def test_a_shell_can_ask_for_completions(words: str, completed: str, monkeypatch: pytest.MonkeyPatch, dap: Dap) -> None:
    count = str(len(words.split()) - 1)
    for name, value in {"_DAP_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": count}.items():
        monkeypatch.setenv(name, value)
    assert dap().out.split() == [completed]
