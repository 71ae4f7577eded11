"""The command line, end to end: what all tasks share, what is refused, and the commands that only print."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections import Counter
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.main import get_command

import dapcli
from dapcli.cli import main, make_app
from dapcli.errors import DeviceError
from dapcli.fit import OPTIMIZERS, STOPPING_RULES
from dapcli.metrics import METRICS
from dapcli.priors import NO_PRIOR, PRIORS
from dapcli.settings import Settings
from dapcli.signal.noise import NOISE_MODELS
from dapcli.tasks import TASKS
from dapcli.tasks.denoise import POST_FILTERS
from tests.command_line import (
    COMMANDS,
    MAIN,
    SOURCES,
    TINY,
    Dap,
    Run,
    assert_contract,
    assert_refused,
    count_steps,
    ok,
    process,
    read,
    record_of,
    spawn,
    tree,
    written,
)

DENOISE = COMMANDS["denoise"]
OUTPUTS = {name: "out" if task.options.folder else "out.wav" for name, task in TASKS.items()}


# What all tasks do


@pytest.mark.parametrize("task", TASKS)
def test_a_task_writes_its_outputs_and_a_record_and_tells_people_on_stderr(
    task: str, dap: Dap, recordings: Path
) -> None:
    before = tree(recordings)
    run = ok(dap(*COMMANDS[task]))
    sources = ("harmonic.wav", "percussive.wav", "separation.json")
    new = {f"out/{name}" for name in sources} if task == "separate" else {"out.wav", "out.json"}
    assert set(tree(recordings)) - set(before) == new
    assert tree(recordings).items() >= before.items()
    assert run.out == ""
    assert all(name in run.err for name in (task, *new))

    record = record_of(recordings / OUTPUTS[task])
    assert_contract(record)
    assert (record["task"], record["input"], record["output"]) == (task, COMMANDS[task][1], OUTPUTS[task])
    assert (record["device"], record["seed"], record["gain"]) == ("cpu", 0, 1)
    assert record["fit"]["stopped_by"]
    assert record["fit"]["iterations"] == 2 + (task == "denoise")
    assert record["stft"]["window_s"] == pytest.approx(record["stft"]["n_fft"] / record["sample_rate"])
    assert record["versions"]["dapcli"] == dapcli.__version__
    assert record["notes"]["metrics"] == "no --reference was given"
    assert set(record["metrics"].values()) == {None}
    if task != "denoise":
        assert record["noise"] == {"std": None, "input_snr_db_estimated": None, "white": None}
        assert "noise" not in run.err


@pytest.mark.parametrize("task", TASKS)
def test_json_prints_the_record_and_a_report_is_one_page(task: str, dap: Dap, recordings: Path) -> None:
    reference = {"denoise": ("--reference", "brief.wav"), "separate": SOURCES}.get(task, ("--reference", "whole.wav"))
    run = ok(dap(*COMMANDS[task], *reference, "--json", "--report", "page.html"))
    assert json.loads(run.out) == record_of(recordings / OUTPUTS[task])  # one object; a second would be an error
    assert "NaN" not in run.out
    assert "SNR" in run.err
    page = (recordings / "page.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert len(re.findall("<audio", page)) == (5 if task == "separate" else 3)


@pytest.mark.parametrize(("options", "prints"), [(("--quiet",), False), (("-q", "--json"), True)])
def test_quiet_leaves_nothing_but_what_was_asked_for(options: tuple[str, ...], prints: bool, dap: Dap) -> None:
    run = ok(dap(*DENOISE, *options))
    assert run.err == ""
    assert bool(run.out) == prints
    assert not prints or json.loads(run.out)["task"] == "denoise"


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


def test_a_fresh_process_on_two_threads_makes_the_same_file_each_time(folder: Path) -> None:
    for name in ("a.wav", "b.wav"):
        run = spawn(MAIN, "denoise", "noisy.wav", name, "--quiet", *TINY, OMP_NUM_THREADS="2")
        assert run == Run(0, "", "")
    assert (folder / "a.wav").read_bytes() == (folder / "b.wav").read_bytes()


@pytest.mark.parametrize(("task", "preset"), [(task, preset) for task in TASKS for preset in TASKS[task].presets])
def test_every_preset_runs(task: str, preset: str, dap: Dap, recordings: Path) -> None:
    ok(dap(*COMMANDS[task], "--preset", preset))
    settings = record_of(recordings / OUTPUTS[task])["settings"]
    for name in ("estimator", "learning_rate", "hop", "ema_decay", "post_filter"):
        assert settings[name] == getattr(TASKS[task].presets[preset], name)


@pytest.mark.parametrize("stop", ["auto", *STOPPING_RULES])
@pytest.mark.parametrize(
    ("task", "estimator"),
    [(task, name) for task in ("denoise", "dequantize", "separate") for name in TASKS[task].estimators],
)
def test_every_rule_runs_with_every_estimator_or_is_refused_before_the_fit(
    task: str, estimator: str, stop: str, dap: Dap, recordings: Path
) -> None:
    command = (*COMMANDS[task], "--estimator", estimator, "--stop", stop)
    validates = estimator in ("ensemble", "ratio-mask")
    if (stop == "held-out" and task != "denoise") or (stop == "validation" and not validates):
        assert_refused(dap(*command), 2, f"--stop {stop}")
        return
    references = SOURCES if task == "separate" else ("--reference", command[1])
    ok(dap(*command, *references, "--finetune-iterations" if task == "denoise" else "--iterations", "1"))
    record = record_of(recordings / OUTPUTS[task])
    assert record["settings"]["estimator"] == estimator
    rule = TASKS[task].estimators[estimator].stop if stop == "auto" else stop
    assert record["fit"]["stopped_by"].split(":")[0] == rule
    assert np.isfinite(record["fit"]["loss"])


@pytest.mark.parametrize(
    ("task", "option", "name"),
    [
        *(("denoise", "prior", name) for name in PRIORS),
        *((task, "prior", NO_PRIOR) for task in ("inpaint", "separate")),
        *(("denoise", "post_filter", name) for name in POST_FILTERS),
        *(("denoise", "optimizer", name) for name in OPTIMIZERS),
        *(("denoise", "noise_model", name) for name in NOISE_MODELS),
        *((task, "precision", name) for task in TASKS for name in ("float32", "bfloat16")),
    ],
)
def test_every_registered_name_runs_and_is_recorded(
    task: str, option: str, name: str, dap: Dap, recordings: Path
) -> None:
    ok(dap(*COMMANDS[task], f"--{option.replace('_', '-')}", name))
    record = record_of(recordings / OUTPUTS[task])
    assert record["settings"][option] == name
    assert bool(record["fit"]["iterations"]) == ((option, name) != ("prior", NO_PRIOR))
    assert all(np.isfinite(read(path)).all() for path in written(recordings))


def test_every_option_of_the_settings_reaches_the_fit(dap: Dap, folder: Path) -> None:
    values = (
        "fold=3 attenuation_limit=12.5 learning_rate=0.02 recorruption_scale=0.6 ema_decay=0.8 window=0.03 hop=0.01 "
        "segment=2.0 rate=8000 dilation=5 prior=dilated seed=7 iterations=3 finetune_iterations=0 base_channels=2 "
        "input_noise=0.2 precision=float32 optimizer=adam stop=fixed estimator=mask noise_model=steady post_filter=none"
    )
    given = dict(value.split("=") for value in values.split())
    assert given.keys() == {each.name for each in fields(Settings)}
    options = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", value)]
    ok(dap("denoise", "brief.wav", "out.wav", *options, "--device", "cpu"))
    recorded = record_of(folder / "out.wav")["settings"]
    assert {name: str(value) for name, value in recorded.items()} == given


def test_every_command_has_every_option_once_and_shows_all_in_its_help(dap: Dap) -> None:
    command = get_command(make_app())
    assert set(command.commands) == {*TASKS, "evaluate", "score", "priors", "doctor"}  # type: ignore[attr-defined]
    for name, each in command.commands.items():  # type: ignore[attr-defined]
        flags = [flag for option in each.params for flag in (*option.opts, *option.secondary_opts)]
        assert set(Counter(flags).values()) == {1}
        assert len({option.name for option in each.params}) == len(each.params)
        shown = ok(dap(name, "--help")).out
        assert all(flag[:20] in shown for flag in flags if flag.startswith("--"))
        known = {f"--{each.name.replace('_', '-')}" for each in fields(Settings) if name in each.metadata["tasks"]}
        others = {f"--{each.name.replace('_', '-')}" for each in fields(Settings) if each.metadata["tasks"]} - known
        assert name not in TASKS or (known <= set(flags) and not others & set(flags))


def test_overwrite_replaces_the_output_and_its_record(dap: Dap, folder: Path) -> None:
    (folder / "out.wav").write_text("old")
    (folder / "out.json").write_text("old")
    ok(dap(*DENOISE, "--overwrite"))
    assert soundfile.info(folder / "out.wav").frames == 3_200
    assert record_of(folder / "out.wav")["task"] == "denoise"


# Recordings of every kind


@pytest.mark.parametrize(
    ("source", "output", "subtype"),
    [
        ("noisy.wav", "out.wav", "PCM_16"),
        ("stereo.flac", "out.flac", "PCM_24"),
        ("stereo.flac", "out.aiff", "PCM_24"),
        ("float.wav", "out.wav", "FLOAT"),
        ("float.wav", "out.flac", "PCM_24"),
        ("noisy.wav", "out.ogg", "VORBIS"),
        ("noisy.wav", "out.mp3", "MPEG_LAYER_III"),
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
    assert record_of(folder / output)["samples"] == before.frames
    assert np.isfinite(read(folder / output)).all()


def test_another_working_rate_leaves_the_output_at_the_rate_of_the_input(dap: Dap, folder: Path) -> None:
    ok(dap("denoise", "cd.wav", "out.wav", "--rate", "16000", *TINY))
    record = record_of(folder / "out.wav")
    assert (record["sample_rate"], record["working_rate"]) == (22_050, 16_000)
    before, after = soundfile.info(folder / "cd.wav"), soundfile.info(folder / "out.wav")
    assert (after.samplerate, after.frames) == (before.samplerate, before.frames)


def test_peaks_past_full_scale_are_lowered_and_reported(dap: Dap, folder: Path) -> None:
    run = ok(dap("denoise", "hot.wav", "out.flac", *TINY))
    gain = record_of(folder / "out.flac")["gain"]
    assert gain < 1
    assert "full scale" in run.err
    peak = np.abs(read(folder / "out.flac")).max()
    assert peak == pytest.approx(1, abs=1e-4)
    ok(dap("denoise", "hot.wav", "kept.wav", *TINY))
    assert record_of(folder / "kept.wav")["gain"] == 1
    assert np.abs(read(folder / "kept.wav")).max() == pytest.approx(peak / gain, rel=1e-3)


@pytest.mark.parametrize("name", ["a take [red] here.wav", "x[/b].wav", "ναός.wav", "latin-\udce9.wav"])
def test_any_file_name_is_read_written_and_printed(name: str, dap: Dap, folder: Path) -> None:
    (folder / "sub").mkdir()
    try:
        shutil.copy(folder / "brief.wav", folder / name)
    except OSError:
        pytest.skip("this file system does not take the name")
    run = ok(dap("denoise", name, f"sub/{name}", "--json", *TINY))
    assert read(folder / "sub" / name).shape == read(folder / name).shape
    assert json.loads(run.out)["input"] == name
    assert record_of(folder / "sub" / name)["output"] == f"sub/{name}"
    assert f"output: sub/{name}\n".encode(errors="replace").decode() in run.err


def test_reference_gives_metrics_of_the_output_and_of_the_input(dap: Dap, folder: Path) -> None:
    run = ok(dap("denoise", "noisy.wav", "out.wav", "--reference", "clean.wav", *TINY))
    record = record_of(folder / "out.wav")
    clean = read(folder / "clean.wav")
    for key, name in [("metrics", "out.wav"), ("metrics_input", "noisy.wav")]:
        error = read(folder / name) - clean
        snr = 10 * np.log10((clean**2).sum() / (error**2).sum())
        assert record[key]["snr_db"] == pytest.approx(snr, abs=0.01)
        assert set(record[key]) == set(METRICS)
        for metric, value in record[key].items():
            assert value is not None or f"{key}.{metric}" in record["notes"]
    assert "SNR (dB)" in run.err


@pytest.mark.parametrize("form", ["stretch", "file"])
def test_noise_profile_measures_the_noise_there(form: str, dap: Dap, folder: Path) -> None:
    quiet = read(folder / "noisy.wav")[:, : round(0.19 * 16_000)]
    soundfile.write(folder / "noise.wav", quiet.T, 16_000)
    profile = "0:0.19" if form == "stretch" else "noise.wav"
    ok(dap("denoise", "noisy.wav", "out.wav", "--noise-profile", profile, *TINY))
    assert record_of(folder / "out.wav")["noise"]["std"] == pytest.approx(quiet.std(), rel=0.1)


def test_an_early_stop_is_recorded(dap: Dap, recordings: Path) -> None:
    ok(dap(*COMMANDS["dequantize"], "--iterations", "300", "--learning-rate", "0.02"))
    fit = record_of(recordings / "out.wav")["fit"]
    assert 1 <= fit["best_iteration"] < fit["iterations"] < 300
    assert fit["stopped_by"].startswith("validation: no better iterate")


# What is refused: what follows dap, the exit code, and the reason

BAD: dict[str, list[tuple[str, int, str]]] = {
    "denoise": [
        # Recordings
        ("missing.wav out.wav", 3, "no such file"),
        (". out.wav", 3, "folder"),
        ("text.wav out.wav", 3, "cannot be read as audio"),
        ("zero_bytes.wav out.wav", 3, "cannot be read as audio"),
        ("cut_header.wav out.wav", 3, "cannot be read as audio"),
        ("cut_data.wav out.wav", 3, "truncated"),
        ("empty.wav out.wav", 3, "no samples"),
        ("one.wav out.wav", 3, "one sample"),
        ("nan.wav out.wav", 3, "NaN"),
        ("noisy.wav out.wav --reference missing.wav", 3, "no such file"),
        ("noisy.wav out.wav --reference longer.wav", 3, "must match"),
        ("noisy.wav out.wav --reference other_rate.wav", 3, "must match"),
        ("noisy.wav out.wav --reference clean.wav --reference brief.wav", 2, "2 were given for 1"),
        # Places to write to
        ("noisy.wav noisy.wav", 3, "noisy.wav"),
        ("noisy.wav noisy.wav --overwrite", 3, "is an input"),
        ("noisy.wav link.wav", 3, "link.wav"),
        ("noisy.wav link.wav --overwrite", 3, "is an input"),
        ("link.wav noisy.wav --overwrite", 3, "is an input"),
        ("noisy.wav clean.wav --overwrite --reference clean.wav", 3, "is an input"),
        ("noisy.wav clean.wav --overwrite --noise-profile clean.wav", 3, "is an input"),
        ("noisy.wav missing/out.wav", 3, "no such folder"),
        ("noisy.wav taken.wav", 3, "already exists"),
        ("noisy.wav taken_record.wav", 3, "taken_record.json: already exists"),
        ("noisy.wav folder.wav --overwrite", 3, "is a folder"),
        ("noisy.wav out.wav --report text.wav", 3, "already exists"),
        ("noisy.wav out.wav --report out.wav", 3, "different files"),
        ("noisy.wav out.wav --report out.json", 3, "different files"),
        ("noisy.wav out.wav --report noisy.wav --overwrite", 3, "is an input"),
        (f"noisy.wav {'n' * 300}.wav", 3, "cannot be written"),
        (f"noisy.wav {'n' * 251}.wav", 3, "cannot be written"),  # the record's name is a letter too long
        ("noisy.wav out", 2, "unknown audio extension"),
        ("noisy.wav out.txt", 2, "unknown audio extension"),
        ("noisy.wav .", 2, "unknown audio extension"),
        ("studio.wav out.mp3", 2, "another extension"),
        ("noisy.wav out.sd2", 2, "unknown audio extension"),  # whose other file would already be there
        # Options
        ("noisy.wav out.wav --prior nothing", 2, "unknown prior 'nothing'.*exp-dense"),
        ("noisy.wav out.wav --preset nothing", 2, "unknown preset.*quality"),
        ("noisy.wav out.wav --estimator nothing", 2, "unknown estimator.*mask"),
        ("noisy.wav out.wav --stop nothing", 2, "unknown stopping rule.*auto"),
        ("noisy.wav out.wav --stop oracle", 2, "--reference"),
        ("noisy.wav out.wav --dilation 8", 2, "--prior dilated"),
        ("noisy.wav out.wav --nothing", 2, "No such option"),
        ("noisy.wav out.wav --iterations many", 2, "iterations"),
        ("noisy.wav out.wav --seed -1", 2, "seed"),
        ("noisy.wav out.wav --parallel 0", 2, "parallel"),
        ("noisy.wav", 2, "OUT"),
        ("noisy.wav out.wav more.wav", 2, "more.wav"),
        # Noise profiles
        ("noisy.wav out.wav --noise-profile 0.1", 2, "START:END"),
        ("noisy.wav out.wav --noise-profile 0.3:0.1", 2, "START:END"),
        ("noisy.wav out.wav --noise-profile 0.3:0.6", 3, "ends at"),
        # Devices
        ("noisy.wav out.wav --device nothing", 2, "unknown device"),
        ("noisy.wav out.wav --device cuda:99", 4, "is not there.*--device auto"),
    ],
    "inpaint": [
        ("gaps.wav out.wav", 3, "--gap START:END.*--mask.*--detect"),
        ("whole.wav out.wav --detect", 3, "no gaps were detected.*--gap"),
        ("clipped.wav out.wav --detect --min-gap 0.0003", 3, "no gaps were detected.*as clipping makes.*--gap"),
        ("gaps.wav out.wav --gap 0.2:0.3 --detect", 2, "--gap and --detect"),
        ("gaps.wav out.wav --gap 0.2:0.3 --min-gap 0.01", 2, "--min-gap.*--detect"),
        ("gaps.wav out.wav --detect --min-gap nan", 2, "--min-gap"),
        ("gaps.wav out.wav --gap 0.4:0.6", 3, "outside the recording"),
        ("gaps.wav out.wav --gap 0:0.5", 3, "nothing is left"),
        ("gaps.wav out.wav --mask empty.csv", 3, "nothing is missing"),
        ("gaps.wav out.wav --mask nothing_mask.wav", 3, "nothing is left"),
        ("gaps.wav out.wav --mask short_mask.wav", 3, "same rate and length"),
        ("gaps.wav mask.csv --mask mask.csv --overwrite", 2, "unknown audio extension"),
        ("gaps.wav mask.wav --mask mask.wav --overwrite", 3, "is an input"),
    ],
    "declip": [
        ("whole.wav out.wav", 3, "no clipping was detected.*--level"),
        ("clipped.wav out.wav --level 0.5", 3, "no sample reaches"),
        ("clipped.wav out.wav --level nan", 2, "--level"),
        ("quantized.wav out.wav", 3, "dap dequantize.*--level"),
        ("clipped.wav clipped.wav --overwrite", 3, "is an input"),
        ("clipped.wav out.wav --reference gaps3.flac", 3, "must match"),
        ("clipped.wav out.wav --estimator mask", 2, "unknown estimator.*ensemble"),
        ("clipped.wav out.wav --rate 16000", 2, "No such option"),
        ("clipped.wav out.wav --post-filter wiener", 2, "No such option"),
    ],
    "dequantize": [
        ("whole.wav out.wav", 3, "was detected.*--levels"),
        ("quantized.wav out.wav --levels 10", 3, "off the 10 levels"),
        ("missing.wav out.wav", 3, "no such file"),
    ],
    "separate": [
        ("mix.wav out --sources 5", 2, "--sources"),
        ("mix.wav out --types harmonic,piano", 2, "unknown.*'piano'.*percussive"),
        ("mix.wav out --types harmonic,voice --sources 3", 2, "--types has 2.*--sources 3"),
        ("mix.wav out --types harmonic,voice --estimator double-dip", 2, "--types"),
        ("mix.wav out --names piano", 2, "--names has 1 for 2 sources"),
        ("mix.wav out --names piano,../drums", 2, "not a plain file name"),
        ("mix.wav out --names Separation,drums", 2, "name of the record"),
        ("mix.wav out --no-consistent", 2, "--estimator double-dip"),
        ("mix.wav out --reference tone.wav", 2, "1 were given for 2"),
        ("mix.wav out --reference tone.wav --reference clicks.wav --sources 3", 2, "2 were given for 3"),
        ("mix.wav out --reference tone.wav --reference tone.wav", 2, "one file twice"),
        ("mix.wav out --reference tone.wav --reference short_clicks.wav", 3, "short_clicks.wav.*must match"),
        ("mix.wav out --reference tone.wav --reference none.wav", 3, "none.wav: no such file"),
        ("mix.wav out --fixed-order", 2, "--fixed-order.*--reference"),
        ("mix.wav out --estimator nothing", 2, "unknown estimator 'nothing'.*ratio-mask"),
        ("mix.wav out --post-filter wiener", 2, "No such option"),
        ("mix.wav out --format xyz", 2, "unknown audio extension '.xyz'"),
        ("mix.dat out", 2, "unknown audio extension '.dat'"),
        ("zeros.wav out", 3, "silent"),
        ("mix.wav missing/out", 3, "missing: no such folder; create it first"),
        ("mix.wav tone.wav", 3, "tone.wav: is not a folder"),
        ("mix.wav tone.wav/out", 3, "tone.wav"),
        ("mix.wav . --names tone,drums", 3, "tone.wav: already exists"),
        ("mix.wav . --names mix,drums --overwrite", 3, "mix.wav: is an input"),
        (f"mix.wav . --names tone,drums --overwrite {' '.join(SOURCES)}", 3, "tone.wav: is an input"),
        ("mix.wav out --report out/separation.json", 3, "different files"),
        ("mix.wav out --report out/harmonic.wav", 3, "different files"),
        ("mix.wav out --report tone.wav", 3, "tone.wav: already exists"),
    ],
    "score": [
        ("clean.wav longer.wav", 3, "longer.wav.*must match"),
        ("clean.wav other_rate.wav --json", 3, "must match"),
        ("clean.wav two_channels.wav", 3, "must match"),
        ("clean.wav noisy.wav missing.wav --json", 3, "no such file"),
        ("missing.wav noisy.wav", 3, "no such file"),
        ("clean.wav", 2, "EST"),
    ],
    "priors": [("--preset nothing", 2, "unknown preset"), ("--base-channels 0", 2, "--base-channels")],
    "doctor": [("missing.wav", 3, "no such file"), ("--seconds nan", 2, "--seconds")],
    "nothing": [("", 2, "nothing"), ("--nothing", 2, "nothing")],
}
LINES = [(f"{command} {rest}".strip(), code, why) for command, lines in BAD.items() for rest, code, why in lines]


@pytest.mark.usefixtures("no_fit")
@pytest.mark.parametrize(("line", "code", "reason"), LINES, ids=[line[0][:70] for line in LINES])
def test_bad_input_is_one_line_and_nothing_is_written(
    line: str, code: int, reason: str, dap: Dap, recordings: Path
) -> None:
    (recordings / "link.wav").symlink_to(recordings / "noisy.wav")
    (recordings / "taken.wav").write_text("taken")
    (recordings / "taken_record.json").write_text("taken")
    (recordings / "folder.wav").mkdir()
    before = tree(recordings)
    assert_refused(dap(*line.split(" ")), code, reason)
    assert tree(recordings) == before
    assert not (recordings / "out").exists()


def test_a_recording_that_is_no_audio_is_refused_without_waiting_for_torch(folder: Path) -> None:
    code = """
import sys
from dapcli.cli import main
for arguments in (["missing.wav", "out.wav"], ["noisy.wav", "noisy.wav"], ["noisy.wav", "no/out.wav"]):
    sys.argv = ["dap", "denoise", *arguments]
    try:
        main()
    except SystemExit as exit_:
        print(exit_.code)
print("torch" in sys.modules)
"""
    assert spawn(code).out == "3\n3\n3\nFalse\n"


def test_a_fit_that_diverges_says_what_to_do(dap: Dap, folder: Path) -> None:
    before = tree(folder)
    assert_refused(dap(*DENOISE, "--learning-rate", "1e30", "--iterations", "9"), 2, "--learning-rate")
    assert tree(folder) == before


def test_out_of_memory_names_the_options_that_help(dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(folder)
    count_steps(monkeypatch, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore lines."))
    assert_refused(dap(*DENOISE), DeviceError.exit_code, "--segment.*--base-channels")
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


def test_score_prints_a_table_of_every_metric_for_every_estimate(dap: Dap, folder: Path) -> None:
    shutil.copy(folder / "noisy.wav", folder / "take[red].wav")
    run = ok(dap("score", "clean.wav", "take[red].wav", "clean.wav"))
    assert run.err == ""
    header, *rows = run.out.splitlines()
    assert header.split() == ["metric", "take[red].wav", "clean.wav"]
    row = next(row for row in rows if row.startswith("SNR (dB)"))
    clean, noisy = read(folder / "clean.wav"), read(folder / "noisy.wav")
    snr = 10 * np.log10((clean**2).sum() / ((noisy - clean) ** 2).sum())
    assert float(row.split()[2]) == pytest.approx(snr, abs=0.01)


def test_score_json_has_metrics_and_notes_for_every_estimate(dap: Dap) -> None:
    scores = json.loads(ok(dap("score", "clean.wav", "noisy.wav", "clean.wav", "--json")).out)
    assert list(scores) == ["noisy.wav", "clean.wav"]
    for entry in scores.values():
        assert set(entry["metrics"]) == set(METRICS)
        assert {name for name, value in entry["metrics"].items() if value is None} == set(entry["notes"])
    assert scores["noisy.wav"]["metrics"]["envelope_distance"] > scores["clean.wav"]["metrics"]["envelope_distance"]


def test_priors_know_the_size_of_the_released_network(dap: Dap) -> None:
    priors = json.loads(ok(dap("priors", "--json", "--preset", "paper")).out)
    assert list(priors) == list(PRIORS)
    assert priors["ddunet"]["parameters"] == 1_092_912
    assert all(entry["gflop_per_iteration"] > 0 for entry in priors.values())
    rows = [row.split() for row in ok(dap("priors", "--preset", "paper")).out.splitlines()]
    assert [row[0] for row in rows if row[0] in PRIORS] == list(PRIORS)
    assert any(row[0] == "ddunet" and "1,092,912" in row for row in rows)


def test_version(dap: Dap) -> None:
    assert dap("--version") == Run(0, f"dap {dapcli.__version__}\n", "")


def test_without_a_command_the_help_is_shown(dap: Dap) -> None:
    run = dap()
    assert run.code == 2
    assert "denoise" in run.out + run.err
    assert "dap:" not in run.err


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    with process(MAIN, "priors", "--json") as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        err = running.stderr.read()
    assert (bool(running.returncode), err) == (True, "")
