"""The command line, end to end: what it writes, what it prints, and how it refuses."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import dapcli
from dapcli.cli import main
from dapcli.cli.options import make_settings
from dapcli.errors import DeviceError
from dapcli.fit import OPTIMIZERS, STOPPING_RULES
from dapcli.metrics import METRICS
from dapcli.objectives import ESTIMATORS
from dapcli.priors import PRIORS
from dapcli.settings import PRESETS
from dapcli.signal.noise import NOISE_MODELS
from dapcli.tasks import _api_restore as restore
from dapcli.tasks.postfilter import POST_FILTERS
from tests.command_line import CONTRACT, Dap, Run, assert_refused, read, record_of, tree

pytestmark = pytest.mark.usefixtures("one_thread")

MAIN = "from dapcli.cli import main; main()"
#: Threads that wait without turning round, and one of them unless said otherwise, for other programs run too.
PATIENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
TINY = ("--iterations", "2", "--refinement", "1", "--width", "4", "--device", "cpu")


def spawn(code: str, *arguments: str, **environment: str) -> Run:
    """Run code in a fresh process, in the current folder, with these arguments of ``dap``."""
    run = subprocess.run(
        [sys.executable, "-B", "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **PATIENT, **environment},
    )
    return Run(run.returncode, run.stdout, run.stderr)


# What denoise writes


def test_denoise_writes_the_output_and_a_record_with_every_key_of_the_contract(dap: Dap, folder: Path) -> None:
    before = tree(folder)
    run = dap("denoise", "noisy.wav", "out.wav", *TINY)
    assert run.code == 0, run.err
    assert set(tree(folder)) - set(before) == {"out.wav", "out.json"}
    assert tree(folder).items() >= before.items()

    record = record_of(folder / "out.wav")
    for key, parts in CONTRACT.items():
        assert key in record
        if parts:
            assert set(parts) <= set(record[key])
    assert record["task"] == "denoise"
    assert (record["input"], record["output"]) == ("noisy.wav", "out.wav")
    assert (record["sample_rate"], record["channels"], record["samples"]) == (16_000, 1, 8_000)
    assert (record["device"], record["seed"], record["gain"]) == ("cpu", 0, 1)
    assert record["fit"]["iterations"] == 2 + 1
    assert record["fit"]["stopped_by"]
    assert record["prior"]["name"] == "exp-dense"
    assert record["stft"]["window_s"] == pytest.approx(record["stft"]["n_fft"] / 16_000)
    assert record["versions"]["dapcli"] == dapcli.__version__
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert record["notes"]["metrics"] == "no --reference was given"
    assert set(record["metrics"].values()) == {None}


def test_the_summary_goes_to_stderr_and_stdout_stays_empty(dap: Dap) -> None:
    run = dap("denoise", "noisy.wav", "out.wav", *TINY)
    assert run.out == ""
    assert "exp-dense" in run.err
    assert "3 iterations" in run.err
    assert "out.wav" in run.err
    assert "out.json" in run.err


@pytest.mark.parametrize(
    ("source", "output", "subtype"),
    [
        ("noisy.wav", "out.wav", "PCM_16"),
        ("noisy.wav", "out.flac", "PCM_16"),
        ("stereo.flac", "out.flac", "PCM_24"),
        ("stereo.flac", "out.aiff", "PCM_24"),
        ("float.wav", "out.wav", "FLOAT"),
        ("float.wav", "out.flac", "PCM_24"),
        ("noisy.wav", "out.ogg", "VORBIS"),
        ("noisy.wav", "out.mp3", "MPEG_LAYER_III"),
    ],
)
def test_the_output_has_the_rate_channels_subtype_and_length_of_the_input(
    source: str, output: str, subtype: str, dap: Dap, folder: Path
) -> None:
    run = dap("denoise", source, output, *TINY)
    assert run.code == 0, run.err
    before, after = soundfile.info(folder / source), soundfile.info(folder / output)
    assert (after.samplerate, after.channels, after.frames) == (before.samplerate, before.channels, before.frames)
    assert after.subtype == subtype
    assert after.format == {"aiff": "AIFF", "mp3": "MP3"}.get(Path(output).suffix[1:], Path(output).suffix[1:].upper())
    assert record_of(folder / output)["samples"] == before.frames
    samples = read(folder / output)
    assert np.isfinite(samples).all()
    assert samples.any()


def test_json_prints_the_record_and_nothing_else(dap: Dap, folder: Path) -> None:
    run = dap("denoise", "noisy.wav", "out.wav", "--json", *TINY)
    assert run.out == (folder / "out.json").read_text()
    assert isinstance(json.loads(run.out), dict)  # one object, for a second would be an error
    assert "NaN" not in run.out


def test_quiet_prints_nothing_at_all(dap: Dap) -> None:
    assert dap("denoise", "noisy.wav", "out.wav", "--quiet", *TINY) == Run(0, "", "")


def test_quiet_json_prints_the_record_only(dap: Dap) -> None:
    run = dap("denoise", "noisy.wav", "out.wav", "-q", "--json", *TINY)
    assert json.loads(run.out)["task"] == "denoise"
    assert run.err == ""


@pytest.mark.parametrize("source", ["noisy.wav", "float.wav"])
def test_same_seed_makes_bit_identical_files_and_another_seed_does_not(source: str, dap: Dap, folder: Path) -> None:
    for name, seed in [("a.wav", "3"), ("b.wav", "3"), ("c.wav", "4")]:
        assert dap("denoise", source, name, "--seed", seed, *TINY).code == 0
        torch.rand(1)  # what else draws random numbers in this process must not matter
    a, b, c = ((folder / name).read_bytes() for name in ("a.wav", "b.wav", "c.wav"))
    assert a == b
    assert a != c


def test_a_fresh_process_on_two_threads_makes_the_same_file_each_time(folder: Path) -> None:
    for name in ("a.wav", "b.wav"):
        run = spawn(MAIN, "denoise", "noisy.wav", name, "--quiet", *TINY, OMP_NUM_THREADS="2")
        assert run == Run(0, "", "")
    assert (folder / "a.wav").read_bytes() == (folder / "b.wav").read_bytes()


def test_reference_gives_metrics_of_the_output_and_of_the_input(dap: Dap, folder: Path) -> None:
    run = dap("denoise", "noisy.wav", "out.wav", "--reference", "clean.wav", *TINY)
    assert run.code == 0, run.err
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


def test_noise_profile_measures_the_noise_there(dap: Dap, folder: Path) -> None:
    assert dap("denoise", "noisy.wav", "out.wav", "--noise-profile", "0:0.19", *TINY).code == 0
    quiet = read(folder / "noisy.wav")[:, : round(0.19 * 16_000)]
    assert record_of(folder / "out.wav")["noise"]["std"] == pytest.approx(quiet.std(), rel=0.1)


def test_another_working_rate_leaves_the_output_at_the_rate_of_the_input(dap: Dap, folder: Path) -> None:
    assert dap("denoise", "cd.wav", "out.wav", "--rate", "16000", *TINY).code == 0
    record = record_of(folder / "out.wav")
    assert (record["sample_rate"], record["working_rate"]) == (22_050, 16_000)
    before, after = soundfile.info(folder / "cd.wav"), soundfile.info(folder / "out.wav")
    assert (after.samplerate, after.frames) == (before.samplerate, before.frames)


def test_the_paper_preset_is_the_paper(dap: Dap, folder: Path) -> None:
    run = dap("denoise", "brief.wav", "out.wav", "--preset", "paper", "--iterations", "2", "--device", "cpu")
    assert run.code == 0, run.err
    record = record_of(folder / "out.wav")
    assert record["stft"]["n_fft"] == 1022
    assert record["stft"]["hop"] == 64
    assert record["dtype"] == "float32"
    assert record["settings"]["learning_rate"] == 1e-3
    assert record["post_filter"] == "none"


def test_an_estimator_brings_the_settings_that_suit_it() -> None:
    settings = make_settings("quality", estimator="generate", iterations=7)
    assert settings == replace(PRESETS["generate"], iterations=7)


def test_numbers_given_as_options_are_recorded(dap: Dap, folder: Path) -> None:
    options = ("--fold", "3", "--attenuation-limit", "12.5", "--learning-rate", "0.02")
    run = dap("denoise", "brief.wav", "out.wav", *options, *TINY)
    assert run.code == 0, run.err
    settings = record_of(folder / "out.wav")["settings"]
    assert (settings["fold"], settings["attenuation_limit"], settings["learning_rate"]) == (3, 12.5, 0.02)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs(preset: str, dap: Dap, folder: Path) -> None:
    assert dap("denoise", "brief.wav", "out.wav", "--preset", preset, *TINY).code == 0
    assert record_of(folder / "out.wav")["settings"]["estimator"] == PRESETS[preset].estimator


@pytest.mark.parametrize(
    ("option", "name", "find"),
    [
        *[("--prior", name, lambda record: record["prior"]["name"]) for name in PRIORS],
        *[("--estimator", name, lambda record: record["settings"]["estimator"]) for name in ESTIMATORS],
        *[("--post-filter", name, lambda record: record["post_filter"]) for name in POST_FILTERS],
        *[("--optimizer", name, lambda record: record["settings"]["optimizer"]) for name in OPTIMIZERS],
        *[("--noise-model", name, lambda record: record["settings"]["noise_model"]) for name in NOISE_MODELS],
        *[
            ("--stop", name, lambda record: record["fit"]["stopped_by"].split(":")[0])
            for name in STOPPING_RULES
            if name != "validation"
        ],
    ],
)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_registered_name_runs_and_is_recorded(
    estimator: str, option: str, name: str, find: Callable[[dict[str, Any]], str], dap: Dap, folder: Path
) -> None:
    if option == "--estimator":
        estimator = name
    run = dap(
        *("denoise", "brief.wav", "out.wav", "--estimator", estimator, option, name, *TINY),
        *(("--reference", "brief.wav") if name == "oracle" else ()),
    )
    assert run.code == 0, run.err
    record = record_of(folder / "out.wav")
    assert find(record) == name
    assert np.isfinite(record["fit"]["loss"])
    assert np.isfinite(read(folder / "out.wav")).all()


def test_an_early_stop_is_recorded(dap: Dap, folder: Path) -> None:
    arguments = ("--stop", "discrepancy", "--iterations", "300", "--width", "4", "--hop", "0.03", "--device", "cpu")
    assert dap("denoise", "brief.wav", "out.wav", "--learning-rate", "0.003", *arguments).code == 0
    fit = record_of(folder / "out.wav")["fit"]
    assert fit["iterations"] < 300
    assert 1 <= fit["best_iteration"] <= fit["iterations"]
    assert "no better iterate" in fit["stopped_by"]


def test_a_long_recording_is_fitted_in_segments_no_longer_than_asked(dap: Dap, folder: Path) -> None:
    run = dap("denoise", "long.wav", "out.wav", "--segment", "1.5", *TINY)
    assert run.code == 0, run.err
    segments = record_of(folder / "out.wav")["fit"]["segments"]
    assert segments[0]["start_s"] == 0
    assert segments[-1]["stop_s"] == 5
    assert all(segment["stop_s"] - segment["start_s"] <= 1.5 for segment in segments)
    assert all(a["stop_s"] > b["start_s"] for a, b in pairwise(segments))
    assert soundfile.info(folder / "out.wav").frames == 40_000


@pytest.mark.parametrize("source", ["short.wav", "two.wav"])
def test_a_recording_shorter_than_a_window_is_restored(source: str, dap: Dap, folder: Path) -> None:
    run = dap("denoise", source, "out.wav", *TINY)
    assert run.code == 0, run.err
    assert read(folder / "out.wav").shape == read(folder / source).shape


def test_silence_comes_back_bit_for_bit_and_the_record_says_so(dap: Dap, folder: Path) -> None:
    run = dap("denoise", "zeros.wav", "out.wav", *TINY)
    assert run.code == 0, run.err
    assert "silent" in run.err
    np.testing.assert_array_equal(read(folder / "out.wav"), read(folder / "zeros.wav"))
    record = record_of(folder / "out.wav")
    assert any("silent" in note for note in record["notes"].values())
    assert record["fit"]["iterations"] == 0
    assert record["noise"]["std"] is None


def test_a_silent_channel_stays_silent_and_does_not_disturb_the_other(dap: Dap, folder: Path) -> None:
    noisy = read(folder / "noisy.wav")
    soundfile.write(folder / "half.wav", np.concatenate([noisy, 0 * noisy]).T, 16_000)
    run = dap("denoise", "half.wav", "out.wav", *TINY)
    assert run.code == 0, run.err
    left, right = read(folder / "out.wav")
    assert not right.any()
    assert 0.2 * noisy.std() < left.std() < 2 * noisy.std()


def test_peaks_past_full_scale_are_lowered_and_reported(dap: Dap, folder: Path) -> None:
    run = dap("denoise", "hot.wav", "out.flac", *TINY)
    assert run.code == 0, run.err
    record = record_of(folder / "out.flac")
    assert record["gain"] < 1
    assert "full scale" in run.err
    peak = np.abs(read(folder / "out.flac")).max()
    assert peak == pytest.approx(1, abs=1e-4)
    assert dap("denoise", "hot.wav", "kept.wav", *TINY).code == 0
    assert record_of(folder / "kept.wav")["gain"] == 1
    assert np.abs(read(folder / "kept.wav")).max() == pytest.approx(peak / record["gain"], rel=1e-3)


def test_overwrite_replaces_the_output_and_its_record(dap: Dap, folder: Path) -> None:
    (folder / "out.wav").write_text("old")
    (folder / "out.json").write_text("old")
    assert dap("denoise", "noisy.wav", "out.wav", "--overwrite", *TINY).code == 0
    assert soundfile.info(folder / "out.wav").frames == 8_000
    assert record_of(folder / "out.wav")["task"] == "denoise"


def test_report_is_one_page_that_needs_no_other_file(dap: Dap, folder: Path) -> None:
    run = dap("denoise", "brief.wav", "out.wav", "--report", "page.html", *TINY)
    assert run.code == 0, run.err
    page = (folder / "page.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "page.html" in run.err


@pytest.mark.parametrize("name", ["a take [red] here.wav", "x[/b].wav", "ναός.wav", os.fsdecode(b"latin-\xe9.wav")])
def test_any_file_name_is_read_written_and_printed(name: str, dap: Dap, folder: Path) -> None:
    output = f"sub/{name}"
    for path in (folder / name, folder / output):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copy(folder / "brief.wav", folder / name)
    except OSError:
        pytest.skip("this file system does not take the name")
    run = dap("denoise", name, output, "--json", *TINY)
    assert run.code == 0, run.err
    assert read(folder / output).shape == read(folder / name).shape
    assert json.loads(run.out)["input"] == name
    assert record_of(folder / output)["output"] == output
    assert f"output: {output}\n".encode(errors="replace").decode() in run.err


# What denoise refuses

BAD: list[tuple[str, int, str]] = [
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
    ("infinite.wav out.wav", 3, "infinite"),
    ("noisy.wav out.wav --reference missing.wav", 3, "no such file"),
    ("noisy.wav out.wav --reference longer.wav", 3, "must match"),
    ("noisy.wav out.wav --reference other_rate.wav", 3, "must match"),
    ("noisy.wav out.wav --reference two_channels.wav", 3, "must match"),
    ("noisy.wav out.wav --reference nan.wav", 3, "NaN"),
    # Places to write to
    ("noisy.wav noisy.wav", 3, "noisy.wav"),
    ("noisy.wav noisy.wav --overwrite", 3, "is an input"),
    ("noisy.wav ./sub/../noisy.wav --overwrite", 3, "is an input|no such folder"),
    ("noisy.wav link.wav", 3, "link.wav"),
    ("noisy.wav link.wav --overwrite", 3, "is an input"),
    ("link.wav noisy.wav --overwrite", 3, "is an input"),
    ("noisy.wav clean.wav --overwrite --reference clean.wav", 3, "is an input"),
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
    # Options
    ("noisy.wav out", 2, "unknown audio extension"),
    ("noisy.wav out.txt", 2, "unknown audio extension"),
    ("studio.wav out.mp3", 2, "another extension"),
    ("noisy.wav out.sd2", 2, "unknown audio extension"),  # whose other file would already be there
    ("noisy.wav out.wav --prior nothing", 2, "unknown prior 'nothing'.*exp-dense"),
    ("noisy.wav out.wav --preset nothing", 2, "unknown preset.*quality"),
    ("noisy.wav out.wav --estimator nothing", 2, "unknown estimator.*mask"),
    ("noisy.wav out.wav --stop nothing", 2, "unknown stopping rule.*auto"),
    ("noisy.wav out.wav --post-filter nothing", 2, "unknown post-filter.*wiener"),
    ("noisy.wav out.wav --precision float64", 2, "unknown precision"),
    ("noisy.wav out.wav --optimizer nothing", 2, "unknown optimizer.*muon, adam"),
    ("noisy.wav out.wav --noise-model nothing", 2, "unknown noise model.*auto, steady, moving"),
    ("noisy.wav out.wav --attenuation-limit -1", 2, "attenuation-limit"),
    ("noisy.wav out.wav --attenuation-limit nan", 2, "attenuation-limit"),
    ("noisy.wav out.wav --attenuation-limit inf", 2, "attenuation-limit"),
    ("noisy.wav out.wav --attenuation-limit 10 --estimator generate", 2, "attenuation-limit.*mask"),
    ("noisy.wav out.wav --fold 0", 2, "fold"),
    ("noisy.wav out.wav --stop oracle", 2, "--reference"),
    ("noisy.wav out.wav --stop validation", 2, "--estimator mix"),
    ("noisy.wav out.wav --dilation 8", 2, "--prior dilated"),
    ("noisy.wav out.wav --nothing", 2, "No such option"),
    ("noisy.wav out.wav --iterations many", 2, "iterations"),
    ("noisy.wav out.wav --iterations 0", 2, "iterations"),
    ("noisy.wav out.wav --iterations -3", 2, "iterations"),
    ("noisy.wav out.wav --width 0", 2, "width"),
    ("noisy.wav out.wav --learning-rate 0", 2, "learning-rate"),
    ("noisy.wav out.wav --perturbation 0", 2, "perturbation"),
    ("noisy.wav out.wav --averaging 1", 2, "averaging"),
    ("noisy.wav out.wav --seed -1", 2, "seed"),
    ("noisy.wav out.wav --rate 7999", 2, "rate"),
    ("noisy.wav out.wav --rate 15991", 2, "common divisor"),
    ("noisy.wav out.wav --hop 0.1", 2, "hop"),
    ("noisy.wav out.wav --segment 1", 2, "segment"),
    ("noisy.wav", 2, "OUT"),
    ("noisy.wav out.wav more.wav", 2, "more.wav"),
    # Noise profiles
    ("noisy.wav out.wav --noise-profile 0.1", 2, "START:END"),
    ("noisy.wav out.wav --noise-profile a:b", 2, "START:END"),
    ("noisy.wav out.wav --noise-profile 0:0.1:0.2", 2, "START:END"),
    ("noisy.wav out.wav --noise-profile :", 2, "START:END"),
    ("noisy.wav out.wav --noise-profile 0.3:0.1", 2, "START:END"),
    ("noisy.wav out.wav --noise-profile=-0.1:0.2", 2, "START:END"),
    ("noisy.wav out.wav --noise-profile nan:0.2", 2, "START:END"),
    ("noisy.wav out.wav --noise-profile 0:0.05", 3, "at least"),
    ("noisy.wav out.wav --noise-profile 0:inf", 3, "ends at"),
    ("noisy.wav out.wav --noise-profile 0.3:0.6", 3, "ends at"),
    ("zeros.wav out.wav --noise-profile 0:0.3", 3, "silence"),
    # Devices
    ("noisy.wav out.wav --device nothing", 2, "unknown device"),
    ("noisy.wav out.wav --device cpu:1", 2, "unknown device"),
    ("noisy.wav out.wav --device cuda:x", 2, "unknown device"),
    ("noisy.wav out.wav --parallel 0", 2, "parallel"),
    ("noisy.wav out.wav --refinement -1", 2, "refinement"),
    ("noisy.wav out.wav --device cuda:99", 4, "is not there.*--device auto"),
]


@pytest.mark.usefixtures("no_fit")
@pytest.mark.parametrize(("arguments", "code", "reason"), BAD, ids=[line[0][:60] for line in BAD])
def test_bad_input_is_one_line_and_nothing_is_written(
    arguments: str, code: int, reason: str, dap: Dap, folder: Path
) -> None:
    (folder / "link.wav").symlink_to(folder / "noisy.wav")
    (folder / "taken.wav").write_text("taken")
    (folder / "taken_record.json").write_text("taken")
    (folder / "folder.wav").mkdir()
    before = tree(folder)
    assert_refused(dap("denoise", *arguments.split(" ")), code, reason)
    assert tree(folder) == before


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "option", ["--learning-rate", "--perturbation", "--averaging", "--window", "--hop", "--segment"]
)
@pytest.mark.usefixtures("no_fit")
def test_numbers_that_are_none_are_refused(option: str, number: str, dap: Dap, folder: Path) -> None:
    before = tree(folder)
    reason = "--" if option == "--window" else option  # compared with --segment first
    assert_refused(dap("denoise", "noisy.wav", "out.wav", f"{option}={number}"), 2, reason)
    assert tree(folder) == before


def test_a_fit_that_diverges_says_what_to_do(dap: Dap, folder: Path) -> None:
    before = tree(folder)
    run = dap("denoise", "noisy.wav", "out.wav", "--learning-rate", "1e30", "--iterations", "9", "--width", "4")
    assert re.fullmatch(r"dap: [^\n]+\n", run.err)
    assert "--learning-rate" in run.err
    assert run.code in (2, 3)
    assert tree(folder) == before


@pytest.mark.usefixtures("no_fit")
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


def test_out_of_memory_names_the_options_that_help(dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(folder)

    def step(self: object, closure: object = None) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore lines.")

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    assert_refused(dap("denoise", "noisy.wav", "out.wav", *TINY), DeviceError.exit_code, "--segment.*--width")
    assert tree(folder) == before


def test_an_error_of_dap_itself_is_one_line_and_a_traceback_with_debug_only(
    dap: Dap, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: object, closure: object = None) -> None:
        raise ZeroDivisionError("a surprise")

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    run = dap("denoise", "noisy.wav", "out.wav", *TINY)
    assert run.code == 1
    assert re.fullmatch(r"dap: internal error: ZeroDivisionError: a surprise[^\n]*--debug[^\n]*\n", run.err)
    monkeypatch.setattr(sys, "argv", ["dap", "denoise", "noisy.wav", "out.wav", "--debug", *TINY])
    with pytest.raises(ZeroDivisionError):
        main()


def test_debug_shows_the_traceback_of_a_refusal(folder: Path) -> None:
    run = spawn(MAIN, "denoise", "missing.wav", "out.wav", "--debug")
    assert run.code != 0
    assert "Traceback" in run.err
    assert "missing.wav: no such file" in run.err


# Interruption, and a disk that is full


def test_interruption_in_a_fit_writes_nothing(dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: object, closure: object = None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    before = tree(folder)
    assert_refused(dap("denoise", "noisy.wav", "out.wav", *TINY), 130, "interrupted")
    assert tree(folder) == before


@pytest.mark.skipif(sys.platform == "win32", reason="signals are a matter of Unix")
def test_ctrl_c_during_a_fit_exits_with_130_and_writes_nothing(folder: Path) -> None:
    code = """
import signal
from dapcli import restore
from dapcli.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may have inherited that it is ignored
fit = restore.denoise

def announce(progress):
    print(progress.step.iteration, flush=True)

def denoise(*arguments, **options):
    return fit(*arguments, **options | {"on_step": announce})

restore.denoise = denoise
main()
"""
    before = tree(folder)
    arguments = ["denoise", "noisy.wav", "out.wav", "--iterations", "1000000", "--width", "4", "--device", "cpu"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **PATIENT},
    ) as process:
        assert process.stdout is not None
        try:
            ready, _, _ = select.select([process.stdout], [], [], 120)
            assert ready, "the fit did not start"
            assert process.stdout.readline() == "1\n"
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert err == "dap: interrupted; nothing was written\n"
    assert tree(folder) == before


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


# Runs that go on where an interrupted one has stopped

LONG_OPTIONS = (
    *("--segment", "1.5", "--hop", "0.03", "--prior", "conv", "--width", "2"),
    *("--iterations", "2", "--refinement", "2", "--device", "cpu", "--quiet"),
)
LONG = ("denoise", "long.wav", "out.wav", *LONG_OPTIONS)


@pytest.fixture(scope="module")
def restored(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The output of an uninterrupted run."""
    output = tmp_path_factory.mktemp("whole") / "out.wav"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["dap", "denoise", str(clips / "long.wav"), str(output), *LONG_OPTIONS])
        with pytest.raises(SystemExit):
            main()
    return output.read_bytes()


@pytest.fixture
def interrupted(dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with what a run left that was interrupted after some of its segments."""
    before = tree(folder)
    step, count = torch.optim.Adam.step, 0

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == 8:  # two steps of learning, and two each of two segments
            raise KeyboardInterrupt
        return step(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", failing)
        assert_refused(dap(*LONG), 130, "2 of 5 segments are kept in out.wav.partial; .*--resume")
    names = {"run.json", "weights.npz", "segment-00000.npz", "segment-00001.npz"}
    assert set(tree(folder)) - set(before) == {f"out.wav.partial/{name}" for name in names}
    return folder


def outputs(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith(("out", ".dap"))}


def test_an_uninterrupted_run_leaves_no_folder(dap: Dap, folder: Path, restored: bytes) -> None:
    assert dap(*LONG) == Run(0, "", "")
    assert outputs(folder) == {"out.wav", "out.json"}
    assert (folder / "out.wav").read_bytes() == restored


def test_resume_goes_on_to_the_same_file(dap: Dap, interrupted: Path, restored: bytes) -> None:
    assert dap(*LONG, "--resume") == Run(0, "", "")
    assert outputs(interrupted) == {"out.wav", "out.json"}
    assert (interrupted / "out.wav").read_bytes() == restored
    assert len(record_of(interrupted / "out.wav")["fit"]["segments"]) == 5


@pytest.mark.parametrize("options", [("--resume",), ("--resume", "--overwrite")])
def test_resume_fits_only_what_is_missing(
    options: tuple[str, ...], dap: Dap, interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []
    step = torch.optim.Adam.step

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(None)
        return step(*arguments, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", counted)
    assert dap(*LONG, *options).code == 0
    assert len(calls) == 3 * 2


def test_resume_fits_a_damaged_segment_again(dap: Dap, interrupted: Path, restored: bytes) -> None:
    segment = interrupted / "out.wav.partial" / "segment-00001.npz"
    segment.write_bytes(segment.read_bytes()[:1000])
    (segment.parent / "segment-00002.npz.part").write_bytes(b"half a segment")
    assert dap(*LONG, "--resume").code == 0
    assert (interrupted / "out.wav").read_bytes() == restored
    assert outputs(interrupted) == {"out.wav", "out.json"}


def test_resume_with_nothing_left_just_runs(dap: Dap, folder: Path, restored: bytes) -> None:
    assert dap(*LONG, "--resume") == Run(0, "", "")
    assert (folder / "out.wav").read_bytes() == restored
    assert dap("denoise", "brief.wav", "short.flac", "--resume", *TINY).code == 0


def test_a_run_that_goes_on_can_be_interrupted_again(
    dap: Dap, interrupted: Path, restored: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    before = tree(interrupted)
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", failing)
        assert_refused(dap(*LONG, "--resume"), 130, "2 of 5 segments")
    assert tree(interrupted) == before
    assert dap(*LONG, "--resume").code == 0
    assert (interrupted / "out.wav").read_bytes() == restored


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ((), 3, "out.wav.partial: was left by an interrupted run; add --resume .*--overwrite"),
        (("--resume", "--seed", "5"), 2, "another seed;"),
        (("--resume", "--width", "3", "--hop", "0.02"), 2, "another hop, width;"),
        (("--resume", "--noise-profile", "0:0.19"), 2, "another noise_profile;"),
        (("--overwrite", "--prior", "nothing"), 2, "unknown prior"),
        (("--overwrite", "--stop", "validation"), 2, "--stop validation"),
        (("--overwrite", "--stop", "oracle"), 2, "--reference"),
    ],
)
def test_what_an_interrupted_run_left_is_not_lost_to_a_command_that_does_not_fit(
    arguments: tuple[str, ...], code: int, reason: str, dap: Dap, interrupted: Path, no_fit: None
) -> None:
    before = tree(interrupted)
    assert_refused(dap(*LONG, *arguments), code, reason)
    assert tree(interrupted) == before


def test_resume_refuses_another_recording_of_the_same_name(dap: Dap, interrupted: Path, no_fit: None) -> None:
    samples = read(interrupted / "long.wav")
    soundfile.write(interrupted / "long.wav", samples.T / 2, 8_000)
    before = tree(interrupted)
    assert_refused(dap(*LONG, "--resume"), 2, "another input;")
    assert tree(interrupted) == before


def test_overwrite_starts_again(dap: Dap, interrupted: Path, restored: bytes) -> None:
    assert dap(*LONG, "--overwrite", "--seed", "5") == Run(0, "", "")
    assert outputs(interrupted) == {"out.wav", "out.json"}
    assert (interrupted / "out.wav").read_bytes() != restored
    assert dap(*LONG, "--overwrite") == Run(0, "", "")
    assert (interrupted / "out.wav").read_bytes() == restored


def test_an_error_keeps_finished_segments_too(dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    step = torch.optim.Adam.step

    def failing(*arguments: Any, **options: Any) -> Any:
        calls.append(None)
        if len(calls) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", failing)
        assert_refused(dap(*LONG), 4, "out of memory")
    assert (folder / "out.wav.partial" / "segment-00000.npz").exists()
    assert outputs(folder) == {"out.wav.partial"}


@pytest.mark.skipif(sys.platform == "win32", reason="signals are a matter of Unix")
@pytest.mark.parametrize(
    ("sent", "finished"), [("SIGINT", 2), ("SIGKILL", 2), ("SIGINT", 0)], ids=["Ctrl-C", "kill", "Ctrl-C early"]
)
def test_a_run_that_a_signal_ends_can_go_on(sent: str, finished: int, dap: Dap, folder: Path, restored: bytes) -> None:
    code = f"""
import signal
from dataclasses import replace
from dapcli.cli import main
from dapcli.engine import Engine

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may have inherited that it is ignored
fit_segment, started = Engine.fit_segment, []

def slower(engine, *arguments, **options):
    started.append(None)
    if len(started) > {finished}:  # this one does not end by itself
        engine = replace(engine, settings=replace(engine.settings, refinement=10**6))
        print("endless", flush=True)
    return fit_segment(engine, *arguments, **options)

Engine.fit_segment = slower
main()
"""
    before = tree(folder)
    with subprocess.Popen(
        [sys.executable, "-B", "-c", code, *LONG],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **PATIENT},
    ) as process:
        assert process.stdout is not None
        try:
            ready, _, _ = select.select([process.stdout], [], [], 120)
            assert ready, "the fit did not start"
            assert process.stdout.readline() == "endless\n"
            process.send_signal(getattr(signal, sent))
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    if sent == "SIGKILL":
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130
        kept = f"{finished} of 5 segments are kept in out.wav.partial; repeat the command with --resume to go on"
        assert err.startswith(f"dap: interrupted; {kept if finished else 'nothing was written'}")
        assert err.count("\n") == 1
    if not finished:
        assert tree(folder) == before
        return
    assert outputs(folder) == {"out.wav.partial"}
    assert len(list((folder / "out.wav.partial").glob("segment-*.npz"))) == finished
    assert not list(folder.rglob("*.part"))
    assert dap(*LONG, "--resume") == Run(0, "", "")
    assert (folder / "out.wav").read_bytes() == restored
    assert outputs(folder) == {"out.wav", "out.json"}


def test_progress_is_shown_on_a_terminal_only(folder: Path) -> None:
    pty = pytest.importorskip("pty", reason="pseudo terminals are a matter of Unix")
    leader, follower = pty.openpty()
    arguments = [
        "denoise",
        "noisy.wav",
        "out.wav",
        "--iterations",
        "4",
        "--refinement",
        "1",
        "--width",
        "4",
        "--device",
        "cpu",
    ]
    environment = {**os.environ, **PATIENT, "TERM": "xterm", "COLUMNS": "120"}
    shown = b""
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments], stdout=subprocess.PIPE, stderr=follower, env=environment
    ) as process:
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
        out, _ = process.communicate(timeout=60)
    os.close(leader)
    assert process.returncode == 0
    assert out == b""
    assert b"loss" in shown
    assert b"/5" in shown


# The other commands


def test_score_prints_a_table_of_every_metric_for_every_estimate(dap: Dap, folder: Path) -> None:
    run = dap("score", "clean.wav", "noisy.wav", "clean.wav")
    assert run.code == 0, run.err
    assert run.err == ""
    header, *rows = run.out.splitlines()
    assert header.split() == ["metric", "noisy.wav", "clean.wav"]
    row = next(row for row in rows if row.startswith("SNR (dB)"))
    clean, noisy = read(folder / "clean.wav"), read(folder / "noisy.wav")
    snr = 10 * np.log10((clean**2).sum() / ((noisy - clean) ** 2).sum())
    assert float(row.split()[2]) == pytest.approx(snr, abs=0.01)


def test_score_json_has_metrics_and_notes_for_every_estimate(dap: Dap) -> None:
    run = dap("score", "clean.wav", "noisy.wav", "clean.wav", "--json")
    assert run.code == 0, run.err
    scores = json.loads(run.out)
    assert list(scores) == ["noisy.wav", "clean.wav"]
    for entry in scores.values():
        assert set(entry["metrics"]) == set(METRICS)
        assert {name for name, value in entry["metrics"].items() if value is None} == set(entry["notes"])
    assert scores["noisy.wav"]["metrics"]["envelope_distance"] > scores["clean.wav"]["metrics"]["envelope_distance"]


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ("clean.wav longer.wav", 3, "longer.wav.*must match"),
        ("clean.wav other_rate.wav", 3, "must match"),
        ("clean.wav two_channels.wav", 3, "must match"),
        ("clean.wav noisy.wav missing.wav", 3, "no such file"),
        ("missing.wav noisy.wav", 3, "no such file"),
        ("clean.wav", 2, "EST"),
    ],
)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_score_refuses_what_it_cannot_compare(
    form: tuple[str, ...], arguments: str, code: int, reason: str, dap: Dap
) -> None:
    assert_refused(dap("score", *arguments.split(), *form), code, reason)


def test_score_shows_names_with_brackets_as_they_are(dap: Dap, folder: Path) -> None:
    shutil.copy(folder / "noisy.wav", folder / "take[red].wav")
    assert "take[red].wav" in dap("score", "clean.wav", "take[red].wav").out


def test_priors_know_the_size_of_the_released_network(dap: Dap) -> None:
    run = dap("priors", "--json", "--preset", "paper")
    assert run.code == 0, run.err
    priors = json.loads(run.out)
    assert list(priors) == list(PRIORS)
    assert priors["ddunet"]["parameters"] == 1_092_912
    assert all(entry["gflop_per_iteration"] > 0 for entry in priors.values())


def test_priors_prints_a_table_with_one_row_each(dap: Dap) -> None:
    run = dap("priors", "--preset", "paper")
    assert run.code == 0, run.err
    rows = [row.split() for row in run.out.splitlines()]
    sizes = {row[0]: row[1] for row in rows if len(row) > 1 and re.fullmatch(r"[\d,]+", row[1])}
    assert list(sizes) == list(PRIORS)
    assert sizes["ddunet"] == "1,092,912"


def test_version(dap: Dap) -> None:
    assert dap("--version") == Run(0, f"dap {dapcli.__version__}\n", "")


def test_without_a_command_the_help_is_shown(dap: Dap) -> None:
    run = dap()
    assert "denoise" in run.out + run.err
    assert "Traceback" not in run.err
    assert "dap:" not in run.err


@pytest.mark.parametrize("arguments", [["nothing"], ["--nothing"], ["priors", "--preset", "nothing"]], ids=" ".join)
def test_unknown_commands_and_options_are_usage_errors(arguments: list[str], dap: Dap) -> None:
    assert_refused(dap(*arguments), 2, "nothing")


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "priors", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=120) != 0
    assert err == b""


def test_the_api_and_the_command_line_share_one_restoration() -> None:
    assert dapcli.denoise is restore.denoise
