"""``dap separate``: its files, what they sum to, and how they are compared with references."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dapcli.metrics import SOURCE_METRICS
from tests.command_line import COMMANDS, SOURCES, TINY, Dap, assert_refused, count_steps, ok, read, record_of, tree
from tests.signals import snr_db

pytestmark = pytest.mark.usefixtures("recordings")

MIX = COMMANDS["separate"]


@pytest.mark.parametrize(
    ("source", "count", "step"),
    [
        ("mix2.flac", 3, 2.0**-23),
        ("mix4.wav", 4, 2.0**-7),
        ("mix.dat", 2, 2.0**-15),
    ],
)
def test_files_have_the_format_of_the_mixture_and_sum_to_it(
    source: str, count: int, step: float, dap: Dap, folder: Path
) -> None:
    options = ("--format", "wav") if source == "mix.dat" else ()
    ok(dap("separate", source, "out", "--sources", str(count), *options, *TINY))
    record = record_of(folder / "out")
    paths = [folder / each["output"] for each in record["sources"]]
    assert len(paths) == count
    assert {*paths, folder / "out/separation.json"} == set((folder / "out").iterdir())
    info = soundfile.info(folder / source)
    for path in paths:
        assert path.suffix == (".wav" if source == "mix.dat" else Path(source).suffix)
        found = soundfile.info(path)
        for name in ("samplerate", "channels", "frames", "subtype", "format"):
            assert getattr(found, name) == getattr(info, name)
    total = sum(read(path) for path in paths)
    np.testing.assert_allclose(total, read(folder / source), rtol=0, atol=1.001 * step)
    assert record["consistency"] == {"enforced": True, "residual": pytest.approx(0, abs=1.001 * step)}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--types", "percussive,harmonic"), ("percussive", "harmonic")),
        (("--types", "voice, voice"), ("voice-1", "voice-2")),
        (("--sources", "4"), ("harmonic-1", "harmonic-2", "voice", "percussive")),
        (("--names", "A take [red], ναός", "--types", "voice,harmonic", "--sources", "2"), ("A take [red]", "ναός")),
        (("--estimator", "double-dip"), ("source-1", "source-2")),
    ],
)
def test_files_are_called_by_their_types_or_as_asked(
    options: tuple[str, ...], names: tuple[str, ...], dap: Dap, folder: Path
) -> None:
    run = ok(dap(*MIX, *options))
    record = record_of(folder / "out")
    assert tuple(source["name"] for source in record["sources"]) == names
    for source in record["sources"]:
        assert set(source) == {"name", "type", "output", "reference", "metrics", "metrics_input"}
        assert source["output"] == f"out/{source['name']}.wav"
        assert (folder / source["output"]).exists()
        assert f"{source['name']}: out/{source['name']}.wav" in run.err
        assert "--names" in options or source["name"].startswith(source["type"])


def test_a_folder_that_is_there_keeps_what_is_in_it(dap: Dap, folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out/notes.txt").write_text("mine")
    ok(dap(*MIX))
    assert (folder / "out/notes.txt").read_text() == "mine"
    assert len(list((folder / "out").iterdir())) == 4
    before = tree(folder)
    assert_refused(dap(*MIX), 3, r"out/harmonic\.wav: already exists; add --overwrite")
    assert tree(folder) == before
    ok(dap(*MIX, "--overwrite", "--seed", "1"))
    assert record_of(folder / "out")["seed"] == 1
    assert tree(folder).keys() == before.keys()


def test_a_lossy_mixture_is_written_as_it_is_with_a_note(dap: Dap, folder: Path) -> None:
    run = ok(dap("separate", "mix5.ogg", "out", *TINY))
    note = record_of(folder / "out")["notes"]["consistency"]
    assert "before they are encoded as VORBIS" in note
    assert note in run.err
    assert soundfile.info(folder / "out/harmonic.ogg").subtype == "VORBIS"


def test_generated_sources_can_be_left_as_fitted(dap: Dap, folder: Path) -> None:
    ok(dap(*MIX, "--estimator", "double-dip", "--no-consistent"))
    consistency = record_of(folder / "out")["consistency"]
    assert not consistency["enforced"]
    total = sum(read(folder / f"out/{name}.wav") for name in ("source-1", "source-2"))
    off = np.abs(total - read(folder / "mix.wav")).max()
    assert consistency["residual"] == pytest.approx(off, abs=3 * 2.0**-15)


def test_references_give_metrics_of_every_source_of_the_mixture_and_their_means(dap: Dap, folder: Path) -> None:
    ok(dap(*MIX, *SOURCES))
    record = record_of(folder / "out")
    mixture = read(folder / "mix.wav")
    for source, name in zip(record["sources"], ("tone.wav", "clicks.wav"), strict=True):
        assert source["reference"] == name
        assert source["metrics"]["sdr_db"] > source["metrics_input"]["sdr_db"] + 6
        clean = read(folder / name)
        for key, estimate in (("metrics", read(folder / source["output"])), ("metrics_input", mixture)):
            assert set(source[key]) == set(SOURCE_METRICS)
            assert source[key]["snr_db"] == pytest.approx(snr_db(clean, estimate), abs=0.01)
    for metric in SOURCE_METRICS:
        values = [source["metrics"][metric] for source in record["sources"]]
        assert record["metrics"][metric] == pytest.approx(np.mean(values))
    assert record["metrics"]["pesq_wb"] is None


def test_a_source_whose_reference_is_inverted_is_noted(dap: Dap, folder: Path) -> None:
    soundfile.write(folder / "inverted.wav", -read(folder / "tone.wav").T, 8_000)
    ok(dap("separate", "mix.wav", "out", *TINY, "--reference", "clicks.wav", "--reference", "inverted.wav"))
    notes = record_of(folder / "out")["notes"]
    assert [key for key, note in notes.items() if "looks inverted" in note] == ["alignment_1"]
    assert notes["alignment_1"].startswith("harmonic looks inverted")


def test_references_are_matched_unless_their_order_is_fixed(dap: Dap, folder: Path) -> None:
    turned = ("--reference", "clicks.wav", "--reference", "tone.wav")
    found = {}
    for out, options in (("a", turned), ("b", (*turned, "--fixed-order"))):
        ok(dap("separate", "mix.wav", out, *TINY, *options, "--quiet"))
        found[out] = record_of(folder / out)["sources"]
    assert [source["reference"] for source in found["a"]] == ["tone.wav", "clicks.wav"]
    assert [source["reference"] for source in found["b"]] == ["clicks.wav", "tone.wav"]
    assert found["b"][0]["metrics"]["sdr_db"] < 0 < found["a"][0]["metrics"]["sdr_db"]


def test_a_metric_without_a_value_has_a_reason(dap: Dap, folder: Path) -> None:
    soundfile.write(folder / "zero_clicks.wav", np.zeros(4_000), 8_000, subtype="PCM_16")
    ok(dap(*MIX, "--reference", "zero_clicks.wav", "--reference", "mix.wav", "--quiet"))
    record = record_of(folder / "out")
    (silent,) = (source for source in record["sources"] if source["reference"] == "zero_clicks.wav")
    assert silent["metrics"]["sdr_db"] is None
    assert "silent" in record["notes"][f"metrics.{silent['name']}.sdr_db"]
    assert record["metrics"]["sdr_db"] is None


@pytest.mark.parametrize("end", ["interrupt", "full disk"])
def test_a_short_run_that_does_not_end_well_leaves_no_folder(
    end: str, dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if end == "interrupt":
        count_steps(monkeypatch, KeyboardInterrupt())
        assert_refused(dap(*MIX), 130, "nothing was written")
    else:
        monkeypatch.setattr("os.fsync", full)
        assert_refused(dap(*MIX), 3, "No space left")
    assert not (folder / "out").exists()
