"""``dap inpaint``, ``dap declip`` and ``dap dequantize``, end to end."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from rich.console import Console

from dapcli.fit import STOPPING_RULES, Step
from dapcli.metrics import GAP_METRICS, MetricUndefined, score_gaps
from dapcli.metrics.waveform import gaps_snr_db, gaps_snr_db_mean
from dapcli.objectives import REPAIR_ESTIMATORS
from dapcli.pipeline.run import Progress
from dapcli.report.console import damage_in_words, fit_progress
from dapcli.settings import REPAIR_PRESETS
from dapcli.signal.gaps import Gaps, list_intervals
from tests.command_line import CONTRACT, Dap, Run, assert_refused, read, record_of, tree
from tests.test_page import Page

pytestmark = pytest.mark.usefixtures("one_thread", "damaged")

RATE = 8_000
TINY = ("--iterations", "2", "--width", "4", "--device", "cpu")
GAPS = ((1600, 1840), (2800, 2920))
GIVEN = ("--gap", "0.2:0.23", "--gap", "2800n:2920n")
LEVEL = 0.2
LEVELS = 16


def sound(seconds: float = 0.5, channels: int = 1) -> NDArray[np.float64]:
    """Harmonics of another pitch in every channel, [C, N], that are nowhere zero for long."""
    t = np.arange(round(seconds * RATE)) / RATE
    pitch = 220.0 * (1 + np.arange(channels))[:, None, None]
    k = np.arange(1, 4)[:, None]
    tone = (np.sin(2 * np.pi * pitch * k * t + k) / k).sum(axis=1)
    return np.asarray(0.2 * tone * (1.2 + np.sin(2 * np.pi * 3 * t)))


def without(samples: NDArray[np.float64], gaps: tuple[tuple[int, int], ...] = GAPS) -> NDArray[np.float64]:
    damaged = samples.copy()
    for start, stop in gaps:
        damaged[:, start:stop] = 0
    return np.asarray(damaged)


def quantized(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    step = 2 / LEVELS
    return np.asarray((np.floor(samples / step) + 0.5) * step)


@pytest.fixture
def damaged(folder: Path) -> Path:
    """The folder, with recordings of every degradation."""

    def write(name: str, samples: NDArray[np.float64], rate: int = RATE, subtype: str = "PCM_16") -> None:
        soundfile.write(folder / name, samples.T, rate, subtype=subtype)

    clean, stereo, long = sound(), sound(channels=2), sound(3.0)
    write("whole.wav", clean)
    write("gaps.wav", without(clean))
    write("gaps2.wav", without(stereo), subtype="FLOAT")
    write("gaps3.flac", without(stereo), subtype="PCM_24")
    one_sided = stereo.copy()
    one_sided[1, 1600:1840] = 0
    write("right.wav", one_sided)
    write("long_gaps.wav", without(long, ((2_400, 2_500),)))
    write("clipped.wav", np.clip(clean, -LEVEL, LEVEL))
    write("clipped2.wav", np.clip(stereo, -LEVEL, LEVEL), subtype="FLOAT")
    write("high.wav", np.clip(5 * clean, -0.9, 0.9))
    write("quantized.wav", quantized(clean))
    write("quantized2.wav", quantized(stereo), subtype="FLOAT")
    mask = np.ones((1, 4000))
    for start, stop in GAPS:
        mask[:, start:stop] = 0
    write("mask.wav", mask)
    write("short_mask.wav", mask[:, :3999])
    write("fast_mask.wav", mask, 16_000)
    write("no_mask.wav", np.ones((1, 4000)))
    write("nothing_mask.wav", np.zeros((1, 4000)))
    (folder / "mask.csv").write_text("start,end\n0.2,0.23\n0.35,0.365\n")
    (folder / "merging.csv").write_text("0.2,0.22\n0.21,0.23\n0.35,0.365\n")
    (folder / "empty.csv").write_text("# nothing\n")
    return folder


def ok(run: Run) -> Run:
    assert run.code == 0, run.err
    return run


def missing(channels: int = 1) -> NDArray[np.bool_]:
    mask = np.zeros((channels, 4000), dtype=np.bool_)
    for start, stop in GAPS:
        mask[:, start:stop] = True
    return mask


# What they write


@pytest.mark.parametrize(
    ("source", "output", "subtype"),
    [
        ("gaps.wav", "out.wav", "PCM_16"),
        ("gaps2.wav", "out.wav", "FLOAT"),
        ("gaps3.flac", "out.flac", "PCM_24"),
    ],
)
def test_inpaint_keeps_every_known_sample_and_fills_the_others(
    source: str, output: str, subtype: str, dap: Dap, folder: Path
) -> None:
    ok(dap("inpaint", source, output, *GIVEN, *TINY))
    before, after = soundfile.info(folder / source), soundfile.info(folder / output)
    assert (after.samplerate, after.channels, after.frames) == (before.samplerate, before.channels, before.frames)
    assert after.subtype == subtype
    observed, filled = read(folder / source), read(folder / output)
    mask = missing(len(observed))
    np.testing.assert_array_equal(filled[~mask], observed[~mask])
    truth = sound(channels=len(observed))
    assert ((filled - truth)[mask] ** 2).sum() < 0.1 * (truth[mask] ** 2).sum()


@pytest.mark.parametrize("source", ["clipped.wav", "clipped2.wav"])
def test_declip_keeps_reliable_samples_and_moves_the_others_beyond_the_level(
    source: str, dap: Dap, folder: Path
) -> None:
    ok(dap("declip", source, "out.wav", *TINY))
    observed, restored = read(folder / source), read(folder / "out.wav")
    assert restored.shape == observed.shape
    assert soundfile.info(folder / "out.wav").subtype == soundfile.info(folder / source).subtype
    clipped = np.abs(observed) >= LEVEL - 2**-14
    np.testing.assert_array_equal(restored[~clipped], observed[~clipped])
    assert (np.sign(observed) * restored)[clipped].min() >= LEVEL - 2**-14
    assert np.abs(restored).max() > 1.2 * LEVEL
    record = record_of(folder / "out.wav")
    degradation = record["degradation"]
    assert degradation["clipped"] == pytest.approx(clipped.mean(), abs=1e-3)
    assert degradation["high"] == pytest.approx([LEVEL] * len(observed), abs=1e-4)
    assert degradation["low"] == pytest.approx([-LEVEL] * len(observed), abs=1e-4)
    assert degradation["source"] == "detected"


def test_a_level_that_is_given_counts_on_both_sides(dap: Dap, folder: Path) -> None:
    run = ok(dap("declip", "clipped.wav", "out.wav", "--level", "0.2", *TINY))
    degradation = record_of(folder / "out.wav")["degradation"]
    assert degradation["source"] == "given"
    assert -degradation["low"][0] == degradation["high"][0] == pytest.approx(LEVEL, abs=1e-4)
    assert "% of the samples clipped, at 0.2 (given)" in " ".join(run.err.split())


def test_peaks_past_full_scale_lower_everything_and_it_stays_consistent(dap: Dap, folder: Path) -> None:
    ok(dap("declip", "high.wav", "out.wav", *TINY))
    record = record_of(folder / "out.wav")
    observed, restored = read(folder / "high.wav"), read(folder / "out.wav")
    reliable = np.abs(observed) < 0.89
    assert 0.2 < record["gain"] < 1
    np.testing.assert_allclose(restored[reliable], record["gain"] * observed[reliable], atol=2**-15)
    assert record["consistency"]["outside"] == 0


@pytest.mark.parametrize("source", ["quantized.wav", "quantized2.wav"])
@pytest.mark.parametrize("options", [(), ("--levels", str(LEVELS))])
def test_dequantize_leaves_every_sample_in_its_cell_and_not_in_its_centre(
    source: str, options: tuple[str, ...], dap: Dap, folder: Path
) -> None:
    run = ok(dap("dequantize", source, "out.wav", *options, *TINY))
    observed, restored = read(folder / source), read(folder / "out.wav")
    np.testing.assert_array_equal(quantized(restored), observed)
    assert np.abs(restored - observed).max() > 0.02
    degradation = record_of(folder / "out.wav")["degradation"]
    assert degradation == {
        "kind": "quantization",
        "step": pytest.approx(2 / LEVELS),
        "offset": pytest.approx(1 / LEVELS),
        "source": "given" if options else "detected",
    }
    assert "16 levels" in run.err


COMMANDS = {
    "inpaint": ("inpaint", "gaps.wav", "out.wav", *GIVEN, *TINY),
    "declip": ("declip", "clipped.wav", "out.wav", *TINY),
    "dequantize": ("dequantize", "quantized.wav", "out.wav", *TINY),
}


@pytest.mark.parametrize("task", COMMANDS)
def test_the_record_has_every_key_of_the_contract_and_those_of_repairs(task: str, dap: Dap, folder: Path) -> None:
    before = tree(folder)
    run = ok(dap(*COMMANDS[task], "--json", "--reference", "whole.wav", "--report", "page.html"))
    assert set(tree(folder)) - set(before) == {"out.wav", "out.json", "page.html"}
    assert tree(folder).items() >= before.items()
    assert run.out == (folder / "out.json").read_text()
    record = json.loads(run.out)
    for key, parts in CONTRACT.items():
        assert key in record
        if parts:
            assert set(parts) <= set(record[key])
    assert record["task"] == task
    assert record["noise"] == {"std": None, "input_snr_db_estimated": None, "white": None}
    assert record["post_filter"] == "none"
    assert record["consistency"]["enforced"]
    assert 0 <= record["consistency"]["outside_before"] <= 1
    assert record["consistency"]["outside"] == 0
    assert ("linear prediction" if task == "inpaint" else "A-SPADE") in record["guide"]
    assert record["guide"] in " ".join(run.err.split())
    assert record["fit"]["segments"][0]["noise_std"] is None
    assert "NaN" not in run.out
    assert ("metrics_gaps" in record) == (task == "inpaint")
    assert "noise" not in run.err

    page = Page((folder / "page.html").read_text())
    assert f"dap {task}" in page.prose
    assert "estimated noise" not in page.text
    assert "Degradation: " in page.prose
    assert len(page.recordings) == 3
    marked = [label for label in page.pictures if "2 gaps marked" in label]
    assert len(marked) == (3 if task == "inpaint" else 0)
    assert ("SNR in the gaps (dB) 0.000" in page.prose) == (task == "inpaint")


def test_the_record_of_gaps_says_where_they_are_and_how_well_they_are_filled(dap: Dap, folder: Path) -> None:
    run = ok(dap("inpaint", "gaps.wav", "out.wav", "--mask", "mask.wav", "--reference", "whole.wav", *TINY))
    record = record_of(folder / "out.wav")
    assert record["degradation"] == {
        "kind": "gaps",
        "count": 2,
        "missing": 360,
        "longest_s": 0.03,
        "intervals": [[1600, 1840], [2800, 2920]],
        "source": "mask",
    }
    clean, mask = read(folder / "whole.wav"), missing()
    for key, name in (("metrics_gaps", "out.wav"), ("metrics_gaps_input", "gaps.wav")):
        error = read(folder / name) - clean
        snr = 10 * np.log10((clean[mask] ** 2).sum() / (error[mask] ** 2).sum())
        assert record[key]["snr_db"] == pytest.approx(snr, abs=0.05)
        assert set(record[key]) == set(GAP_METRICS)
    assert record["metrics_gaps_input"]["snr_db"] == 0
    assert "2 gaps, 45 ms missing, the longest 30 ms" in " ".join(run.err.split())
    assert "SNR in the gaps (dB)" in run.err
    assert "gap: 0.200-0.230 s (30 ms)" in run.err


def test_without_a_reference_the_metrics_in_gaps_are_null(dap: Dap, folder: Path) -> None:
    ok(dap(*COMMANDS["inpaint"], "--quiet"))
    record = record_of(folder / "out.wav")
    assert record["metrics_gaps"] == {"snr_db": None, "snr_db_mean": None}
    assert record["notes"]["metrics_gaps"] == "no --reference was given"


def test_all_ways_to_say_what_is_missing_make_the_same_file(dap: Dap, folder: Path) -> None:
    ways = [GIVEN, ("--mask", "mask.csv"), ("--mask", "mask.wav"), ("--detect",)]
    for number, way in enumerate(ways):
        ok(dap("inpaint", "gaps.wav", f"{number}.wav", *way, "--quiet", *TINY))
    outputs = [(folder / f"{number}.wav").read_bytes() for number in range(len(ways))]
    assert outputs.count(outputs[0]) == len(ways)
    sources = [record_of(folder / f"{number}.wav")["degradation"]["source"] for number in range(len(ways))]
    assert sources == ["given", "mask", "mask", "detected"]


def test_a_gap_of_one_channel_leaves_the_other_as_it_is(dap: Dap, folder: Path) -> None:
    run = ok(dap("inpaint", "right.wav", "out.wav", "--detect", *TINY))
    assert "channel 2" in run.err
    observed, filled = read(folder / "right.wav"), read(folder / "out.wav")
    np.testing.assert_array_equal(filled[0], observed[0])
    assert filled[1, 1600:1840].any()
    assert record_of(folder / "out.wav")["degradation"]["intervals"] == [[1600, 1840, [2]]]


@pytest.mark.parametrize(
    ("task", "option"), [("inpaint", "--refit-known"), ("declip", "--no-consistent"), ("dequantize", "--no-consistent")]
)
def test_the_estimate_can_be_left_as_it_is(task: str, option: str, dap: Dap, folder: Path) -> None:
    ok(dap(*COMMANDS[task], option, "--iterations", "1", "--prior", "conv"))
    consistency = record_of(folder / "out.wav")["consistency"]
    assert not consistency["enforced"]
    assert consistency["outside"] == pytest.approx(consistency["outside_before"], abs=0.01)


def test_the_same_seed_makes_the_same_file_and_another_another(dap: Dap, folder: Path) -> None:
    for name, seed in (("a.wav", "3"), ("b.wav", "3"), ("c.wav", "4")):
        ok(dap("inpaint", "gaps.wav", name, *GIVEN, "--seed", seed, "--quiet", *TINY))
        torch.rand(1)
    a, b, c = ((folder / name).read_bytes() for name in ("a.wav", "b.wav", "c.wav"))
    assert a == b
    assert a != c


@pytest.mark.parametrize("preset", REPAIR_PRESETS)
def test_every_preset_runs(preset: str, dap: Dap, folder: Path) -> None:
    ok(dap(*COMMANDS["inpaint"], "--preset", preset))
    record = record_of(folder / "out.wav")
    assert record["settings"]["estimator"] == REPAIR_PRESETS[preset].estimator
    assert record["fit"]["iterations"] == 2


@pytest.mark.parametrize("estimator", REPAIR_ESTIMATORS)
@pytest.mark.parametrize("stop", ["auto", *STOPPING_RULES])
def test_every_rule_runs_or_is_refused_before_the_fit(
    stop: str, estimator: str, dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (*COMMANDS["dequantize"], "--stop", stop, "--estimator", estimator)
    refused = stop in ("held-out", "discrepancy") or (stop, estimator) == ("validation", "generate")
    if refused:
        assert_refused(dap(*arguments), 2, f"--stop {stop}")
        return
    reference = ("--reference", "whole.wav") if stop == "oracle" else ()
    ok(dap(*arguments, *reference))
    assert record_of(folder / "out.wav")["fit"]["stopped_by"]


# Long recordings

LONG = ("inpaint", "long_gaps.wav", "out.wav", "--segment", "1.5", "--quiet", *TINY)


def test_segments_without_gaps_are_copied_and_cost_no_fit(dap: Dap, folder: Path) -> None:
    ok(dap(*LONG, "--gap", "0.3:0.3125"))
    record = record_of(folder / "out.wav")
    (fit,) = record["fit"]["segments"]
    assert (fit["start_s"], fit["stop_s"] < 2) == (0, True)
    assert record["fit"]["iterations"] == 2
    observed, filled = read(folder / "long_gaps.wav"), read(folder / "out.wav")
    known = np.ones(observed.shape, dtype=np.bool_)
    known[:, 2_400:2_500] = False
    np.testing.assert_array_equal(filled[known], observed[known])
    assert filled[~known].any()


def test_resume_goes_on_with_the_same_gaps_only(dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gaps = ("--gap", "0.3:0.31", "--gap", "2.7:2.71")
    ok(dap(*LONG, *gaps))
    whole = (folder / "out.wav").read_bytes()
    step, count = torch.optim.Adam.step, 0

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:  # in the second segment that is fitted
            raise KeyboardInterrupt
        return step(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", failing)
        assert_refused(dap(*LONG, *gaps, "--overwrite"), 130, "segments are kept in out.wav.partial; .*--resume")
    before = tree(folder)
    assert_refused(dap(*LONG, "--gap", "0.3:0.31", "--resume", "--overwrite"), 2, "another gaps;")
    assert_refused(dap(*LONG, *gaps, "--resume", "--overwrite", "--seed", "9"), 2, "another seed;")
    assert tree(folder) == before
    ok(dap(*LONG, *gaps, "--resume", "--overwrite"))
    assert (folder / "out.wav").read_bytes() == whole
    assert not (folder / "out.wav.partial").exists()


# Before the fit


@pytest.mark.usefixtures("no_fit")
@pytest.mark.parametrize("way", [GIVEN, ("--detect",), ("--mask", "mask.csv")])
def test_a_dry_run_prints_the_gaps_and_writes_nothing(way: tuple[str, ...], dap: Dap, folder: Path) -> None:
    before = tree(folder)
    run = ok(dap("inpaint", "gaps.wav", "out.wav", *way, "--dry-run"))
    assert run.out == ""
    assert run.err == "gap: 0.200-0.230 s (30 ms)\ngap: 0.350-0.365 s (15 ms)\n"
    run = ok(dap("inpaint", "gaps.wav", "out.wav", *way, "--dry-run", "--json", "--quiet"))
    assert json.loads(run.out) == {
        "task": "inpaint",
        "input": "gaps.wav",
        "gaps": [[1600, 1840], [2800, 2920]],
        "notes": [],
    }
    assert run.err == ""
    assert tree(folder) == before


@pytest.mark.usefixtures("no_fit")
def test_of_many_gaps_the_first_are_printed(dap: Dap) -> None:
    gaps = [option for number in range(25) for option in ("--gap", f"{100 * number + 50}n:{100 * number + 60}n")]
    run = ok(dap("inpaint", "whole.wav", "out.wav", *gaps, "--dry-run", "--json"))
    assert run.err.count("gap: ") == 21
    assert run.err.endswith("gap: and 5 more\n")
    assert len(json.loads(run.out)["gaps"]) == 25


@pytest.mark.usefixtures("no_fit")
def test_gaps_that_overlap_are_merged_and_it_is_said(dap: Dap) -> None:
    for way in (("--gap", "0.2:0.22", "--gap", "0.21:0.23"), ("--mask", "merging.csv")):
        run = ok(dap("inpaint", "gaps.wav", "out.wav", *way, "--dry-run"))
        assert "gap: 0.200-0.230 s (30 ms)" in run.err
        assert "merged" in run.err


def test_too_long_a_gap_is_filled_with_a_warning(dap: Dap, folder: Path) -> None:
    run = ok(dap("inpaint", "whole.wav", "out.wav", "--gap", "0.1:0.4", *TINY))
    notes = [note for key, note in record_of(folder / "out.wav")["notes"].items() if key.startswith("degradation")]
    assert len(notes) == 2
    assert "0.100-0.400 s is 0.300 s long" in notes[0]
    assert "0.25 s" in notes[0]
    assert "longer than all that is known of channel 1, 0.200 s" in notes[1]
    for note in notes:
        assert f"note: {note}" in run.err


BAD: list[tuple[str, int, str]] = [
    # What is missing
    ("inpaint gaps.wav out.wav", 3, "--gap START:END.*--mask.*--detect"),
    ("inpaint whole.wav out.wav --detect", 3, "no gaps were detected.*--gap"),
    ("inpaint clipped.wav out.wav --detect --min-gap 0.0003", 3, "no gaps were detected.*as clipping makes.*--gap"),
    ("inpaint gaps.wav out.wav --gap 0.2:0.3 --detect", 2, "--gap and --detect"),
    ("inpaint gaps.wav out.wav --gap 0.2:0.3 --mask mask.csv", 2, "--gap and --mask"),
    ("inpaint gaps.wav out.wav --mask mask.csv --detect", 2, "--mask and --detect"),
    ("inpaint gaps.wav out.wav --gap 0.2:0.3 --min-gap 0.01", 2, "--min-gap.*--detect"),
    ("inpaint gaps.wav out.wav --min-gap 0.01", 2, "--min-gap.*--detect"),
    ("inpaint gaps.wav out.wav --detect --min-gap 0", 2, "--min-gap"),
    ("inpaint gaps.wav out.wav --detect --min-gap nan", 2, "--min-gap"),
    ("inpaint gaps.wav out.wav --gap 0.4:0.6", 3, "outside the recording"),
    ("inpaint gaps.wav out.wav --gap 0.2:0.2", 2, "at least one sample"),
    ("inpaint gaps.wav out.wav --gap 0.3:0.2", 2, "ends before it starts"),
    ("inpaint gaps.wav out.wav --gap=-0.1:0.2", 2, "before the recording"),
    ("inpaint gaps.wav out.wav --gap 0.3", 2, "START:END"),
    ("inpaint gaps.wav out.wav --gap 0:0.5", 3, "nothing is left"),
    ("inpaint gaps.wav out.wav --mask missing.csv", 3, "no such file"),
    ("inpaint gaps.wav out.wav --mask empty.csv", 3, "nothing is missing"),
    ("inpaint gaps.wav out.wav --mask no_mask.wav", 3, "nothing is missing"),
    ("inpaint gaps.wav out.wav --mask nothing_mask.wav", 3, "nothing is left"),
    ("inpaint gaps.wav out.wav --mask short_mask.wav", 3, "same rate and length"),
    ("inpaint gaps.wav out.wav --mask fast_mask.wav", 3, "same rate and length"),
    ("inpaint gaps.wav mask.csv --mask mask.csv --overwrite", 2, "unknown audio extension"),
    ("inpaint gaps.wav mask.wav --mask mask.wav --overwrite", 3, "is an input"),
    # What is clipped
    ("declip whole.wav out.wav", 3, "no clipping was detected.*--level"),
    ("declip clipped.wav out.wav --level 0.5", 3, "no sample reaches"),
    ("declip clipped.wav out.wav --level 0", 2, "--level"),
    ("declip clipped.wav out.wav --level nan", 2, "--level"),
    ("declip quantized.wav out.wav", 3, "dap dequantize.*--level"),
    # What is quantized
    ("dequantize whole.wav out.wav", 3, "was detected.*--levels"),
    ("dequantize quantized.wav out.wav --levels 1", 2, "--levels"),
    ("dequantize quantized.wav out.wav --levels 5000", 2, "--levels"),
    ("dequantize quantized.wav out.wav --levels 10", 3, "off the 10 levels"),
    # What they share
    ("dequantize missing.wav out.wav", 3, "no such file"),
    ("declip clipped.wav clipped.wav --overwrite", 3, "is an input"),
    ("declip clipped.wav whole.wav", 3, "already exists"),
    ("declip clipped.wav out.wav --report out.json", 3, "different files"),
    ("declip clipped.wav out.wav --reference gaps3.flac", 3, "must match"),
    ("declip clipped.wav out.wav --preset nothing", 2, "unknown preset.*quality"),
    ("declip clipped.wav out.wav --prior nothing", 2, "unknown prior"),
    ("declip clipped.wav out.wav --stop nothing", 2, "unknown stopping rule"),
    ("declip clipped.wav out.wav --estimator nothing", 2, "unknown estimator.*mix"),
    ("declip clipped.wav out.wav --estimator mask", 2, "choose one of mix"),
    ("declip clipped.wav out.wav --stop oracle", 2, "--reference"),
    ("declip clipped.wav out.wav --dilation 8", 2, "--prior dilated"),
    ("declip clipped.wav out.wav --device cuda:99", 4, "is not there"),
    ("declip clipped.wav out.wav --rate 16000", 2, "No such option"),
    ("declip clipped.wav out.wav --post-filter wiener", 2, "No such option"),
]


@pytest.mark.usefixtures("no_fit")
@pytest.mark.parametrize(("arguments", "code", "reason"), BAD, ids=[line[0][:70] for line in BAD])
def test_bad_input_is_one_line_and_nothing_is_written(
    arguments: str, code: int, reason: str, dap: Dap, folder: Path
) -> None:
    before = tree(folder)
    assert_refused(dap(*arguments.split(" ")), code, reason)
    assert tree(folder) == before


# What they are made of


def test_progress_of_a_repair_has_a_loss_and_no_noise() -> None:
    shown = {}
    for noise in (True, False):
        stream = io.StringIO()
        with fit_progress(
            Console(file=stream, force_terminal=True, width=120, height=20), quiet=False, noise=noise
        ) as on_step:
            assert on_step is not None
            on_step(Progress(Step(1, 0.5, 1.0, 0.25), 0, 1, 1, 4, 0.25))
        shown[noise] = stream.getvalue()
        assert "loss" in shown[noise]
    assert "noise" in shown[True]
    assert "noise" not in shown[False]


def test_intervals_name_their_channels_unless_it_is_all() -> None:
    gaps = Gaps((((10, 20), (30, 40)), ((10, 20),), ((10, 20), (30, 40))))
    assert list_intervals(gaps) == [[10, 20], [30, 40, [1, 3]]]


def test_metrics_in_gaps_know_nothing_of_the_rest() -> None:
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((2, 400))
    gaps = Gaps((((100, 200),), ((150, 250), (300, 320))))
    estimate = clean + np.where(gaps.mask(0, 400), 0.1, 10) * clean
    assert gaps_snr_db(clean, estimate, RATE, gaps) == pytest.approx(20)
    assert gaps_snr_db_mean(clean, estimate, RATE, gaps) == pytest.approx(20)
    estimate[1, 300:320] = 0  # 0 dB in one of two gaps
    assert gaps_snr_db_mean(clean, estimate, RATE, gaps) == pytest.approx(10)
    assert gaps_snr_db(clean, estimate, RATE, gaps) < 20
    with pytest.raises(MetricUndefined):
        gaps_snr_db(clean, clean, RATE, gaps)
    values, notes = score_gaps(clean, clean, RATE, gaps)
    assert values == {"snr_db": None, "snr_db_mean": None}
    assert set(notes) == set(values)


@pytest.mark.parametrize(
    ("degradation", "channels", "words"),
    [
        ({"kind": "gaps", "count": 1, "missing": 160, "longest_s": 0.02}, 1, "1 gap, 20 ms missing"),
        (
            {"kind": "gaps", "count": 2, "missing": 480, "longest_s": 0.04},
            1,
            "2 gaps, 60 ms missing, the longest 40 ms",
        ),
        (
            {"kind": "gaps", "count": 999, "missing": 8_000_000, "longest_s": 1.5},
            2,
            "999 gaps, 1000.00 s missing over 2 channels, the longest 1.50 s",
        ),
        (
            {"kind": "clipping", "low": [None, -0.5], "high": [0.6, None], "clipped": 0.02134},
            2,
            "2.13 % of the samples clipped, at 0.5 to 0.6",
        ),
        ({"kind": "clipping", "low": [-1.0], "high": [1.0], "clipped": 1.0}, 1, "100 % of the samples clipped, at 1"),
        ({"kind": "quantization", "step": 2 / 15, "offset": 0.0}, 1, "15 levels, 0.133 apart"),
    ],
)
def test_damage_is_said_in_words(degradation: dict[str, Any], channels: int, words: str) -> None:
    record = {"degradation": {**degradation, "source": "given"}, "sample_rate": RATE, "channels": channels}
    assert damage_in_words(record) == f"{words} (given)"
