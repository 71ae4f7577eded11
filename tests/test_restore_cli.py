"""``dap inpaint``, ``dap declip`` and ``dap dequantize``: what they find, restore and keep."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dapcli.metrics import GAP_METRICS, MetricUndefined, score_gaps
from dapcli.metrics.waveform import gaps_snr_db, gaps_snr_db_mean
from dapcli.signal.gaps import Gaps, list_intervals
from tests.command_line import (
    COMMANDS,
    GIVEN,
    LEVEL,
    LEVELS,
    TINY,
    Dap,
    missing,
    ok,
    quantized,
    read,
    record_of,
    sound,
    tree,
)
from tests.signals import snr_db

pytestmark = pytest.mark.usefixtures("recordings")


@pytest.mark.parametrize("source", ["gaps2.wav", "gaps3.flac"])
def test_inpaint_keeps_every_known_sample_and_fills_the_others(source: str, dap: Dap, folder: Path) -> None:
    output = f"out{Path(source).suffix}"
    ok(dap("inpaint", source, output, *GIVEN, *TINY))
    observed, filled = read(folder / source), read(folder / output)
    mask = missing(len(observed))
    np.testing.assert_array_equal(filled[~mask], observed[~mask])
    truth = sound(channels=len(observed))
    assert ((filled - truth)[mask] ** 2).sum() < 0.1 * (truth[mask] ** 2).sum()


@pytest.mark.parametrize(("source", "options"), [("clipped.wav", ()), ("clipped2.wav", ("--level", "0.2"))])
def test_declip_keeps_reliable_samples_and_moves_the_others_beyond_the_level(
    source: str, options: tuple[str, ...], dap: Dap, folder: Path
) -> None:
    ok(dap("declip", source, "out.wav", *options, *TINY))
    observed, restored = read(folder / source), read(folder / "out.wav")
    clipped = np.abs(observed) >= LEVEL - 2**-14
    np.testing.assert_array_equal(restored[~clipped], observed[~clipped])
    assert (np.sign(observed) * restored)[clipped].min() >= LEVEL - 2**-14
    assert np.abs(restored).max() > 1.2 * LEVEL
    degradation = record_of(folder / "out.wav")["degradation"]
    assert degradation["clipped"] == pytest.approx(clipped.mean(), abs=1e-3)
    assert degradation["high"] == pytest.approx([LEVEL] * len(observed), abs=1e-4)
    assert degradation["low"] == pytest.approx([-LEVEL] * len(observed), abs=1e-4)
    assert degradation["source"] == ("given" if options else "detected")


def test_peaks_past_full_scale_lower_everything_and_it_stays_consistent(dap: Dap, folder: Path) -> None:
    ok(dap("declip", "high.wav", "out.wav", *TINY))
    record = record_of(folder / "out.wav")
    observed, restored = read(folder / "high.wav"), read(folder / "out.wav")
    reliable = np.abs(observed) < 0.89
    assert 0.2 < record["gain"] < 1
    assert f"multiplied by {record['gain']:.4f}" in record["notes"]["gain"]
    np.testing.assert_allclose(restored[reliable], record["gain"] * observed[reliable], atol=1.001 * 2**-16)
    assert record["consistency"]["inconsistent"] == 0


@pytest.mark.parametrize(("source", "options"), [("quantized.wav", ()), ("quantized2.wav", ("--levels", str(LEVELS)))])
def test_dequantize_leaves_every_sample_in_its_cell_and_not_in_its_centre(
    source: str, options: tuple[str, ...], dap: Dap, folder: Path
) -> None:
    ok(dap("dequantize", source, "out.wav", *options, *TINY))
    observed, restored = read(folder / source), read(folder / "out.wav")
    np.testing.assert_array_equal(quantized(restored), observed)
    assert np.abs(restored - observed).max() > 0.02
    assert record_of(folder / "out.wav")["degradation"] == {
        "kind": "quantization",
        "step": pytest.approx(2 / LEVELS),
        "offset": pytest.approx(1 / LEVELS),
        "source": "given" if options else "detected",
    }


@pytest.mark.parametrize(
    ("task", "option"), [("inpaint", "--refit-known"), ("declip", "--no-consistent"), ("dequantize", "--no-consistent")]
)
def test_the_estimate_is_made_consistent_or_left_as_it_is(task: str, option: str, dap: Dap, folder: Path) -> None:
    ok(dap(*COMMANDS[task]))
    record = record_of(folder / "out.wav")
    assert record["consistency"]["enforced"]
    assert record["consistency"]["inconsistent"] == 0 <= record["consistency"]["inconsistent_before"] <= 1
    ok(dap(*COMMANDS[task], option, "--overwrite"))
    consistency = record_of(folder / "out.wav")["consistency"]
    assert not consistency["enforced"]
    assert consistency["inconsistent"] == pytest.approx(consistency["inconsistent_before"], abs=0.01)


def test_the_record_of_gaps_says_where_they_are_and_how_well_they_are_filled(dap: Dap, folder: Path) -> None:
    ok(dap("inpaint", "gaps.wav", "out.wav", "--mask", "mask.wav", "--reference", "whole.wav", *TINY))
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
        snr = snr_db(clean[mask], read(folder / name)[mask])
        assert record[key]["snr_db"] == pytest.approx(snr, abs=0.05)
        assert set(record[key]) == set(GAP_METRICS)
    assert record["metrics_gaps_input"]["snr_db"] == 0


# Before the fit


@pytest.mark.usefixtures("no_fit")
@pytest.mark.parametrize("way", [GIVEN, ("--detect",), ("--mask", "mask.csv"), ("--mask", "mask.wav")])
def test_a_dry_run_prints_the_gaps_and_writes_nothing(way: tuple[str, ...], dap: Dap, folder: Path) -> None:
    before = tree(folder)
    run = ok(dap("inpaint", "gaps.wav", "out.wav", *way, "--dry-run", "--json"))
    plan = json.loads(run.out)
    notes = [f"note: {note}" for note in plan.pop("notes")]
    assert run.err.splitlines() == ["gap: 0.200-0.230 s (30 ms)", "gap: 0.350-0.365 s (15 ms)", *notes]
    # Why each is one.
    assert len(notes) == (2 if way == ("--detect",) else 0)
    assert plan == {"task": "inpaint", "input": "gaps.wav", "gaps": [[1600, 1840], [2800, 2920]]}
    assert tree(folder) == before


def test_too_long_a_gap_is_filled_with_a_warning(dap: Dap, folder: Path) -> None:
    run = ok(dap("inpaint", "whole.wav", "out.wav", "--gap", "0.1:0.4", *TINY))
    notes = [note for key, note in record_of(folder / "out.wav")["notes"].items() if key.startswith("degradation")]
    assert len(notes) == 2
    assert all(f"note: {note}" in run.err for note in notes)


# What their records are made of


def test_intervals_name_their_channels_unless_it_is_all() -> None:
    gaps = Gaps((((10, 20), (30, 40)), ((10, 20),), ((10, 20), (30, 40))))
    assert list_intervals(gaps) == [[10, 20], [30, 40, [1, 3]]]


def test_metrics_in_gaps_know_nothing_of_the_rest() -> None:
    clean = np.random.default_rng(0).standard_normal((2, 400))
    gaps = Gaps((((100, 200),), ((150, 250), (300, 320))))
    estimate = clean + np.where(gaps.mask(0, 400), 0.1, 10) * clean
    assert gaps_snr_db(clean, estimate, 8_000, gaps) == pytest.approx(20)
    assert gaps_snr_db_mean(clean, estimate, 8_000, gaps) == pytest.approx(20)
    estimate[1, 300:320] = 0  # 0 dB in one of two gaps
    assert gaps_snr_db_mean(clean, estimate, 8_000, gaps) == pytest.approx(10)
    assert gaps_snr_db(clean, estimate, 8_000, gaps) < 20
    with pytest.raises(MetricUndefined):
        gaps_snr_db(clean, clean, 8_000, gaps)
    values, notes = score_gaps(clean, clean, 8_000, gaps)
    assert values == {"snr_db": None, "snr_db_mean": None}
    assert set(notes) == set(values)
