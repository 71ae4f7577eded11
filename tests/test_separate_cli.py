"""``dap separate``, end to end."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from dapcli.fit import STOPPING_RULES
from dapcli.metrics import SOURCE_METRICS
from dapcli.objectives import SEPARATION_ESTIMATORS
from dapcli.objectives.ratio_mask import RatioMask
from dapcli.report.console import make_console, print_summary
from dapcli.settings import SEPARATION_PRESETS
from tests.command_line import CONTRACT, Dap, Run, assert_refused, read, tree
from tests.test_page import Page
from tests.test_source_types import clicks, tone

Samples = NDArray[np.float64]

pytestmark = pytest.mark.usefixtures("one_thread", "mixed")

RATE = 8_000
TINY = ("--prior", "conv", "--iterations", "2", "--width", "4", "--device", "cpu")
MIX = ("separate", "mix.wav", "out", *TINY)
REFERENCES = ("--reference", "tone.wav", "--reference", "clicks.wav")


@pytest.fixture
def mixed(folder: Path) -> Path:
    """The folder, with mixtures and their sources."""

    def write(name: str, samples: Samples, subtype: str = "PCM_16", rate: int = RATE) -> None:
        soundfile.write(folder / name, samples.T, rate, subtype=subtype)

    def sources(seconds: float) -> tuple[Samples, Samples]:
        return tone(440, seconds), clicks(seconds) / 16

    steady, struck = sources(0.5)
    write("tone.wav", steady)
    write("clicks.wav", struck)
    write("mix.wav", steady + struck)
    stereo = np.concatenate([steady + struck, steady - struck])
    write("mix2.flac", stereo, "PCM_24")
    write("mix3.wav", stereo, "FLOAT")
    write("mix4.wav", stereo, "PCM_U8")
    write("mix5.ogg", steady + struck, "VORBIS")
    write("loud.wav", 4 * (steady + struck), "FLOAT")
    write("short_clicks.wav", struck[:, :-1])
    write("fast_clicks.wav", struck, rate=16_000)
    write("long_mix.wav", np.sum(sources(3.0), axis=0))
    (folder / "mix.dat").write_bytes((folder / "mix.wav").read_bytes())
    return folder


def ok(run: Run) -> Run:
    assert run.code == 0, run.err
    return run


def record_in(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "separation.json").read_text())
    return record


# What it writes


@pytest.mark.parametrize(
    ("source", "count", "step"),
    [
        ("mix.wav", 2, 2.0**-15),
        ("mix2.flac", 3, 2.0**-23),
        ("mix3.wav", 2, 2.0**-22),
        ("mix4.wav", 4, 2.0**-7),
        ("mix.dat", 2, 2.0**-15),
    ],
)
def test_files_have_the_format_of_the_mixture_and_sum_to_it(
    source: str, count: int, step: float, dap: Dap, folder: Path
) -> None:
    before = tree(folder)
    options = ("--format", "wav") if source == "mix.dat" else ()
    ok(dap("separate", source, "out", "--sources", str(count), *options, *TINY))
    assert tree(folder).items() >= before.items()
    record = record_in(folder / "out")
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


def test_a_tone_and_clicks_come_apart(dap: Dap, folder: Path) -> None:
    ok(dap(*MIX, *REFERENCES, "--quiet"))
    for source in record_in(folder / "out")["sources"]:
        assert source["metrics"]["sdr_db"] > source["metrics_input"]["sdr_db"] + 6


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ((), ("harmonic", "percussive")),
        (("--sources", "3"), ("harmonic", "voice", "percussive")),
        (("--kinds", "percussive,harmonic"), ("percussive", "harmonic")),
        (("--kinds", "voice, voice"), ("voice-1", "voice-2")),
        (("--sources", "4"), ("harmonic-1", "harmonic-2", "voice", "percussive")),
        (("--names", "piano,drums"), ("piano", "drums")),
        (("--names", "A take [red], ναός", "--kinds", "voice,harmonic", "--sources", "2"), ("A take [red]", "ναός")),
    ],
)
def test_files_are_called_by_their_kinds_or_as_asked(
    options: tuple[str, ...], names: tuple[str, ...], dap: Dap, folder: Path
) -> None:
    run = ok(dap(*MIX, *options))
    record = record_in(folder / "out")
    assert tuple(source["name"] for source in record["sources"]) == names
    for source in record["sources"]:
        assert source["output"] == f"out/{source['name']}.wav"
        assert (folder / source["output"]).exists()
        assert f"{source['name']}: out/{source['name']}.wav" in run.err


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
    assert record_in(folder / "out")["seed"] == 1
    assert tree(folder).keys() == before.keys()


def test_the_folder_of_the_mixture_will_do(dap: Dap, folder: Path) -> None:
    before = tree(folder)
    ok(dap("separate", "mix.wav", ".", *TINY))
    assert set(tree(folder)) - set(before) == {"harmonic.wav", "percussive.wav", "separation.json"}
    assert tree(folder).items() >= before.items()


def test_peaks_past_full_scale_lower_all_sources_alike(dap: Dap, folder: Path) -> None:
    run = ok(dap("separate", "loud.wav", "out", "--format", "flac", *TINY))
    record = record_in(folder / "out")
    assert record["gain"] < 1
    assert record["format"]["subtype"] == "PCM_24"
    total = sum(read(folder / source["output"]) for source in record["sources"])
    np.testing.assert_allclose(total, record["gain"] * read(folder / "loud.wav"), atol=1e-6)
    assert "passed full scale" in run.err


def test_a_lossy_mixture_is_written_as_it_is_with_a_note(dap: Dap, folder: Path) -> None:
    run = ok(dap("separate", "mix5.ogg", "out", *TINY))
    note = record_in(folder / "out")["notes"]["consistency"]
    assert "before they are encoded as VORBIS" in note
    assert note in run.err
    assert soundfile.info(folder / "out/harmonic.ogg").subtype == "VORBIS"
    ok(dap("separate", "mix5.ogg", "out", "--format", ".flac", *TINY, "--overwrite"))
    assert "consistency" not in record_in(folder / "out")["notes"]


def test_sources_can_be_left_as_fitted(dap: Dap, folder: Path) -> None:
    assert_refused(dap(*MIX, "--no-consistent"), 2, "--method paper")
    run = ok(dap(*MIX, "--method", "paper", "--no-consistent"))
    consistency = record_in(folder / "out")["consistency"]
    assert not consistency["enforced"]
    total = sum(read(folder / f"out/{name}.wav") for name in ("source-1", "source-2"))
    off = np.abs(total - read(folder / "mix.wav")).max()
    assert consistency["residual"] == pytest.approx(off, abs=3 * 2.0**-15)
    assert "off the mixture, and left so" in " ".join(run.err.split())


def test_the_same_seed_makes_the_same_files_and_another_others(
    dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RatioMask, "has_learned", lambda _: True)
    for out, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        ok(dap("separate", "mix.wav", out, *TINY, "--seed", seed, "--quiet"))
        torch.rand(1)
    a, b, c = ((folder / out / "harmonic.wav").read_bytes() for out in "abc")
    assert a == b
    assert a != c


# What it tells


def test_the_record_has_every_key_of_the_contract(dap: Dap, folder: Path) -> None:
    run = ok(dap(*MIX, "--json", *REFERENCES))
    assert run.out == (folder / "out/separation.json").read_text()
    assert "NaN" not in run.out
    record = json.loads(run.out)
    for key, parts in CONTRACT.items():
        assert key in record
        if parts:
            assert set(parts) <= set(record[key])
    assert (record["task"], record["input"], record["output"]) == ("separate", "mix.wav", "out")
    assert record["noise"] == {"std": None, "input_snr_db_estimated": None, "white": None}
    assert record["settings"]["estimator"] == "share"
    assert set(record["sources"][0]) == {"name", "kind", "output", "reference", "metrics", "metrics_input"}


def test_references_give_metrics_of_every_source_of_the_mixture_and_their_means(dap: Dap, folder: Path) -> None:
    run = ok(dap(*MIX, *REFERENCES))
    record = record_in(folder / "out")
    mixture = read(folder / "mix.wav")
    for source, name in zip(record["sources"], ("tone.wav", "clicks.wav"), strict=True):
        assert source["reference"] == name
        clean = read(folder / name)
        for key, estimate in (("metrics", read(folder / source["output"])), ("metrics_input", mixture)):
            assert set(source[key]) == set(SOURCE_METRICS)
            snr = 10 * np.log10((clean**2).sum() / ((estimate - clean) ** 2).sum())
            assert source[key]["snr_db"] == pytest.approx(snr, abs=0.01)
    for metric in SOURCE_METRICS:
        values = [source["metrics"][metric] for source in record["sources"]]
        assert record["metrics"][metric] == pytest.approx(np.mean(values))
    assert record["metrics"]["pesq_wb"] is None
    assert "means" in record["notes"]
    rows = [line.split()[0] for line in run.err.splitlines()]
    table = [row for row in rows if row in ("harmonic", "percussive", "mixture")]
    assert table == ["harmonic", "mixture", "percussive", "mixture"]


def test_references_are_matched_unless_their_order_is_fixed(dap: Dap, folder: Path) -> None:
    turned = ("--reference", "clicks.wav", "--reference", "tone.wav")
    found = {}
    for out, options in (("a", REFERENCES), ("b", turned), ("c", (*turned, "--fixed-order"))):
        ok(dap("separate", "mix.wav", out, *TINY, *options, "--quiet"))
        found[out] = record_in(folder / out)["sources"]
    assert [source["reference"] for source in found["a"]] == ["tone.wav", "clicks.wav"]
    for one, other in zip(found["a"], found["b"], strict=True):
        assert one["metrics"] == pytest.approx(other["metrics"])
    assert [source["reference"] for source in found["c"]] == ["clicks.wav", "tone.wav"]
    assert found["c"][0]["metrics"]["sdr_db"] < 0 < found["a"][0]["metrics"]["sdr_db"]


def test_without_references_metrics_are_null_and_no_table_is_shown(dap: Dap, folder: Path) -> None:
    run = ok(dap(*MIX))
    record = record_in(folder / "out")
    for source in (record, *record["sources"]):
        for key in ("metrics", "metrics_input"):
            assert set(source[key].values()) == {None}
    assert record["notes"]["metrics"] == "no --reference was given"
    assert run.out == ""
    assert "SDR" not in run.err
    assert "the sources sum to the mixture" in run.err
    assert "record: out/separation.json" in run.err


def test_a_metric_without_a_value_has_a_reason(dap: Dap, folder: Path) -> None:
    references = ("--reference", "zero_clicks.wav", "--reference", "mix.wav")
    soundfile.write(folder / "zero_clicks.wav", np.zeros(4_000), RATE, subtype="PCM_16")
    ok(dap(*MIX, *references, "--report", "page.html", "--quiet"))
    record = record_in(folder / "out")
    (silent,) = (source for source in record["sources"] if source["reference"] == "zero_clicks.wav")
    assert silent["metrics"]["sdr_db"] is None
    assert "silent" in record["notes"][f"metrics.{silent['name']}.sdr_db"]
    assert record["metrics"]["sdr_db"] is None
    assert f"{silent['name']}, SDR (dB): " in Page((folder / "page.html").read_text()).prose


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_quiet_says_nothing(options: tuple[str, ...], dap: Dap) -> None:
    run = ok(dap(*MIX, "--quiet", *options))
    assert run.err == ""
    assert bool(run.out) == bool(options)


def test_long_names_leave_room_for_the_metrics(capfd: pytest.CaptureFixture[str], dap: Dap, folder: Path) -> None:
    ok(dap(*MIX, *REFERENCES, "--names", f"{'long ' * 9},b", "--quiet"))
    print_summary(make_console(), record_in(folder / "out"), [])
    shown = capfd.readouterr().err
    assert max(map(len, shown.splitlines())) <= 80
    for source in record_in(folder / "out")["sources"]:
        for value in source["metrics"].values():
            assert f"{value:.3f}" in shown


# The page


def test_the_page_has_a_player_and_a_picture_of_everything(dap: Dap, folder: Path) -> None:
    ok(dap(*MIX, *REFERENCES, "--names", "piano,<b>", "--report", "page.html"))
    page = Page((folder / "page.html").read_text())
    expected = {
        "Mixture": "mix.wav",
        "piano": "out/piano.wav",
        "piano, reference": "tone.wav",
        "<b>": "out/<b>.wav",
        "<b>, reference": "clicks.wav",
    }
    assert list(page.recordings) == list(expected)
    for title, name in expected.items():
        np.testing.assert_allclose(page.recordings[title][0], read(folder / name), atol=2.0**-15)
        assert sum(label.startswith(f"Spectrogram, {title}: ") for label in page.pictures) == 1
    assert len(page.all("table")) == 3
    for words in (
        "dap separate: mix.wav",
        "estimates of 2 sources",
        "piano (taken for harmonic), <b> (taken for percussive)",
        "piano against tone.wav",
        "<b> against clicks.wav",
        "Metric Mixture Source Change SDR (dB)",
    ):
        assert words in page.prose
    assert "Loss over 2 iterations" in page.pictures[-1]
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)


def test_the_page_without_references_has_no_metrics(dap: Dap, folder: Path) -> None:
    ok(dap("separate", "mix2.flac", "out", "--sources", "3", *TINY, "--report", "out/page.html", "--quiet"))
    page = Page((folder / "out/page.html").read_text())
    assert list(page.recordings) == ["Mixture", "harmonic", "voice", "percussive"]
    assert "Metrics" not in page.prose
    assert all(samples.shape[0] == 2 for samples, _ in page.recordings.values())


# Settings


@pytest.mark.parametrize(("method", "preset"), [(m, p) for m, presets in SEPARATION_PRESETS.items() for p in presets])
def test_every_preset_of_every_method_runs(method: str, preset: str, dap: Dap, folder: Path) -> None:
    ok(dap(*MIX, "--method", method, "--preset", preset))
    assert record_in(folder / "out")["settings"]["estimator"] == method


def test_sources_of_the_papers_method_have_no_kinds(dap: Dap, folder: Path) -> None:
    assert_refused(dap(*MIX, "--method", "paper", "--kinds", "harmonic,voice"), 2, "--kinds")
    ok(dap(*MIX, "--method", "paper"))
    assert {path.name for path in (folder / "out").iterdir()} == {"source-1.wav", "source-2.wav", "separation.json"}
    assert [source["kind"] for source in record_in(folder / "out")["sources"]] == ["source", "source"]


@pytest.mark.parametrize("method", SEPARATION_ESTIMATORS)
@pytest.mark.parametrize("stop", ["auto", *STOPPING_RULES])
def test_every_rule_runs_with_every_method_or_is_refused(stop: str, method: str, dap: Dap, folder: Path) -> None:
    arguments = (*MIX, "--method", method, "--stop", stop)
    if stop in ("held-out", "discrepancy", "validation"):
        assert_refused(dap(*arguments), 2, f"--stop {stop}")
        return
    ok(dap(*arguments, *REFERENCES))
    record = record_in(folder / "out")
    assert record["settings"]["estimator"] == method
    assert record["fit"]["stopped_by"]


# Long mixtures

LONG = ("separate", "long_mix.wav", "out", "--segment", "1.5", "--quiet", *TINY)


def test_resume_goes_on_where_an_interrupted_run_stopped(
    dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok(dap(*LONG))
    whole = tree(folder / "out")
    step, count = torch.optim.Adam.step, 0

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:  # in the second segment
            raise KeyboardInterrupt
        return step(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", failing)
        assert_refused(dap("separate", "long_mix.wav", "new", *LONG[3:]), 130, r"kept in new/separation\.partial")
    assert not list((folder / "new").glob("*.wav"))
    before = tree(folder)
    new = ("separate", "long_mix.wav", "new", *LONG[3:])
    assert_refused(dap(*new), 3, "--resume to go on")
    assert_refused(dap(*new, "--resume", "--kinds", "voice,percussive"), 2, "another kinds;")
    assert tree(folder) == before
    ok(dap(*new, "--resume", "--names", "a,b"))
    assert (folder / "new/a.wav").read_bytes() == whole["harmonic.wav"]
    assert (folder / "new/b.wav").read_bytes() == whole["percussive.wav"]
    assert not (folder / "new/separation.partial").exists()


def test_an_interrupted_short_run_leaves_no_folder(dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.Adam, "step", interrupted)
    assert_refused(dap(*MIX), 130, "nothing was written")
    assert not (folder / "out").exists()


def test_a_disk_that_fills_up_leaves_nothing(dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert_refused(dap(*MIX), 3, "No space left")
    assert not (folder / "out").exists()


# Before the fit

BAD: list[tuple[str, int, str]] = [
    ("mix.wav out --sources 1", 2, "--sources"),
    ("mix.wav out --sources 5", 2, "--sources"),
    ("mix.wav out --sources two", 2, "--sources"),
    ("mix.wav out --kinds harmonic", 2, "2 to 4 sources, and 1 "),
    ("mix.wav out --kinds voice,voice,voice,voice,voice", 2, "2 to 4 sources"),
    ("mix.wav out --kinds harmonic,piano", 2, "unknown kind 'piano'.*percussive"),
    ("mix.wav out --kinds harmonic,", 2, "unknown kind ''"),
    ("mix.wav out --kinds harmonic,voice --sources 3", 2, "--kinds has 2.*--sources 3"),
    ("mix.wav out --names piano", 2, "--names has 1 for 2 sources"),
    ("mix.wav out --names piano,drums,bass", 2, "--names has 3 for 2 sources"),
    ("mix.wav out --names piano,", 2, "not a plain file name"),
    ("mix.wav out --names piano,../drums", 2, "not a plain file name"),
    ("mix.wav out --names piano,..", 2, "not a plain file name"),
    ("mix.wav out --names piano,a\\b", 2, "not a plain file name"),
    ("mix.wav out --names piano,Piano", 2, "one name twice"),
    ("mix.wav out --names Separation,drums", 2, "name of the record"),
    ("mix.wav out --reference tone.wav", 2, "1 times for 2 sources"),
    ("mix.wav out --reference tone.wav --reference clicks.wav --sources 3", 2, "2 times for 3 sources"),
    ("mix.wav out --reference tone.wav --reference tone.wav", 2, "one file twice"),
    ("mix.wav out --reference tone.wav --reference short_clicks.wav", 3, "short_clicks.wav.*must match"),
    ("mix.wav out --reference tone.wav --reference fast_clicks.wav", 3, "fast_clicks.wav.*must match"),
    ("mix.wav out --reference tone.wav --reference none.wav", 3, "none.wav: no such file"),
    ("mix.wav out --fixed-order", 2, "--fixed-order.*--reference"),
    ("mix.wav out --stop oracle", 2, "--stop oracle.*--reference"),
    ("mix.wav out --stop nothing", 2, "unknown stopping rule"),
    ("mix.wav out --method nothing", 2, "unknown method 'nothing'.*share"),
    ("mix.wav out --method mask", 2, "unknown method 'mask'"),
    ("mix.wav out --preset nothing", 2, "unknown preset.*quality"),
    ("mix.wav out --prior nothing", 2, "unknown prior"),
    ("mix.wav out --dilation 8", 2, "--prior dilated"),
    ("mix.wav out --rate 100", 2, "--rate"),
    ("mix.wav out --device cuda:99", 4, "is not there"),
    ("mix.wav out --post-filter wiener", 2, "No such option"),
    ("mix.wav out --format xyz", 2, "unknown audio extension '.xyz'"),
    ("mix.dat out", 2, "unknown audio extension '.dat'"),
    ("zeros.wav out", 3, "silent"),
    ("missing.wav out", 3, "no such file"),
    ("text.wav out", 3, "cannot be read as audio"),
    ("mix.wav missing/out", 3, "missing: no such folder; create it first"),
    ("mix.wav tone.wav", 3, "tone.wav: is not a folder"),
    ("mix.wav tone.wav/out", 3, "tone.wav"),
    ("mix.wav . --names tone,drums", 3, "tone.wav: already exists"),
    ("mix.wav . --names mix,drums --overwrite", 3, "mix.wav: is an input"),
    (
        "mix.wav . --names tone,drums --overwrite --reference tone.wav --reference clicks.wav",
        3,
        "tone.wav: is an input",
    ),
    ("mix.wav out --report out/separation.json", 3, "different files"),
    ("mix.wav out --report out/harmonic.wav", 3, "different files"),
    ("mix.wav out --report tone.wav", 3, "tone.wav: already exists"),
]


@pytest.mark.usefixtures("no_fit")
@pytest.mark.parametrize(("arguments", "code", "reason"), BAD, ids=[line[0][:70] for line in BAD])
def test_bad_input_is_one_line_and_nothing_is_written(
    arguments: str, code: int, reason: str, dap: Dap, folder: Path
) -> None:
    before = tree(folder)
    assert_refused(dap("separate", *arguments.split(" ")), code, reason)
    assert tree(folder) == before
    assert not (folder / "out").exists()
