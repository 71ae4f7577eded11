"""Evaluation: which clips are drawn, how they are damaged, what a table says, and that blind methods are blind."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dapcli.audio import Audio
from dapcli.baselines import BASELINES
from dapcli.errors import DapError, InputError, SettingsError
from dapcli.evaluation import methods as methods_module
from dapcli.evaluation.cases import Known, Truth
from dapcli.evaluation.clips import Clip, collect, draw_clips, pair
from dapcli.evaluation.folder import Folder
from dapcli.evaluation.methods import Blind, Estimate, Told, label, make_methods
from dapcli.evaluation.protocols import (
    PROTOCOLS,
    Clipped,
    Dropout,
    Environmental,
    Gaussian,
    Mixture,
    Pairs,
    Quantized,
    make_protocol,
)
from dapcli.evaluation.run import run
from dapcli.evaluation.tables import LOWER_IS_BETTER, choose_pivot, compare, interval, summarize
from dapcli.evaluation.unit import Evaluation
from dapcli.metrics import METRICS
from dapcli.settings import PRESETS, Settings
from dapcli.signal.clipping import Clipping
from dapcli.signal.missing import Missing
from dapcli.signal.quantization import Quantization
from dapcli.signal.source_types import DEFAULT_TYPES

pytestmark = pytest.mark.usefixtures("one_thread")

RATE = 8_000
OUT = Path("out")
TINY = replace(PRESETS["fast"], iterations=2, refinement=1, width=4)


def tone(seconds: float, pitch: float = 220.0) -> NDArray[np.float64]:
    t = np.arange(round(seconds * RATE)) / RATE
    harmonics = [np.sin(2 * np.pi * k * pitch * t) / k for k in range(1, 5)]
    return np.asarray(0.2 * np.sum(harmonics, axis=0) * (1.1 + np.sin(2 * np.pi * 3 * t)))


def write(path: Path, samples: NDArray[np.float64], rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    for number in range(8):
        write(tmp_path / "clean" / f"tone{number}.wav", tone(0.7, 150 + 40 * number))
    return tmp_path / "clean"


def drawn(clean: Path, count: int | None = None, seed: int = 0, seconds: float = 0.5) -> tuple[Clip, ...]:
    return draw_clips([collect([clean], outside=OUT)], seconds, count, seed).clips


# Clips


def test_files_folders_and_manifests_are_collected_once_each(clean: Path, tmp_path: Path) -> None:
    (clean / "notes.txt").write_text("no audio")
    (clean / ".hidden.wav").write_bytes(b"")
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,speaker\nclean/tone3.wav,a\nclean/tone1.wav,b\n")
    assert [path.name for path in collect([manifest], outside=OUT)] == ["tone3.wav", "tone1.wav"]
    assert len(collect([clean, manifest, clean / "tone0.wav"], outside=OUT)) == 8


def test_what_an_evaluation_has_written_is_no_clip(clean: Path) -> None:
    write(clean / "out" / "audio" / "input.wav", tone(0.7))
    assert len(collect([clean], outside=clean / "out")) == 8
    with pytest.raises(InputError, match="where results go"):
        collect([clean / "out"], outside=clean / "out")


@pytest.mark.parametrize("content", ["path\nclean/none.wav\n", "", "\n\n"])
def test_a_manifest_without_files_is_refused(content: str, clean: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(InputError, match=r"list\.csv"):
        collect([tmp_path / "list.csv"], outside=OUT)


def test_more_clips_are_the_same_ones_and_others(clean: Path) -> None:
    names = [{clip.name for clip in drawn(clean, count)} for count in (3, 5, None)]
    assert [len(each) for each in names] == [3, 5, 8]
    assert names[0] < names[1] < names[2]
    assert {clip.name for clip in drawn(clean, 3, seed=1)} != names[0]


def test_short_clips_are_counted_and_unreadable_ones_named(clean: Path) -> None:
    write(clean / "short.wav", tone(0.3))
    (clean / "text.wav").write_text("no audio")
    result = draw_clips([collect([clean], outside=OUT)], 0.5, None, 0)
    assert (len(result.clips), result.skipped) == (8, 1)
    assert [Path(path).name for path in result.unreadable] == ["text.wav"]
    with pytest.raises(InputError, match="choose a shorter --duration"):
        draw_clips([[clean / "short.wav"]], 0.5, None, 0)


def test_files_of_one_name_are_different_clips_and_one_content_is_one(clean: Path) -> None:
    write(clean / "more" / "tone0.wav", tone(0.7, 500))
    write(clean / "again" / "tone0.wav", tone(0.7, 150))  # as tone0.wav is
    assert len({clip.name for clip in drawn(clean)}) == 9


@given(st.integers(0, 2**62), st.floats(0.11, 0.69))
@settings(max_examples=20, deadline=None)
def test_a_stretch_is_where_there_is_sound(seed: int, seconds: float) -> None:
    import tempfile

    samples = np.concatenate([np.zeros(3 * RATE), tone(0.7), np.zeros(3 * RATE)])
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "a.wav", samples)
        (clip,) = draw_clips([[path]], seconds, None, seed).clips
        (stretch,) = clip.read(seconds, clip.generator(seed))
    assert stretch.samples.shape == (1, round(seconds * RATE))
    assert stretch.samples.any()


# Protocols


def protocol_of(name: str, folder: Path) -> Any:
    if name == "environmental":
        rng = np.random.default_rng(0)
        return Environmental(noise=(write(folder / "noise.wav", 0.1 * rng.standard_normal(3 * RATE)),))
    return PROTOCOLS[name]() if name != "dropout" else Dropout(gap=(0.05, 0.1))


def clips_for(protocol: Any, clean: Path, seed: int = 0) -> tuple[Clip, ...]:
    groups = [sorted(clean.glob("tone[0-3].wav")), sorted(clean.glob("tone[4-7].wav"))]
    pairs = with_noise(clean) if protocol.name == "pairs" else None
    return draw_clips(groups[: 2 if protocol.task == "separate" else 1], 0.5, None, seed, pairs).clips


def with_noise(clean: Path, suffix: str = ".wav") -> dict[Path, Path]:
    """By clean file, the same with a noise of its own."""
    pairs = {}
    for number, path in enumerate(sorted(clean.glob("*.wav"))):
        noise = 0.05 * np.random.default_rng(number).standard_normal(round(0.7 * RATE))
        pairs[path] = clean.parent / "noisy" / f"{path.stem}{suffix}"
        pairs[path].parent.mkdir(exist_ok=True)
        soundfile.write(pairs[path], soundfile.read(path)[0] + noise, RATE)
    return pairs


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_case_depends_on_the_seed_and_the_file_alone(name: str, clean: Path, tmp_path: Path) -> None:
    protocol = protocol_of(name, tmp_path)
    clips = clips_for(protocol, clean)
    cases = [Evaluation(protocol, Settings(), "cpu", 0.5, clips, ()).case(clip) for clip in clips]
    moved = clean.rename(tmp_path / "moved")
    again = clips_for(protocol, moved)[1:]  # not the same others
    for clip, case in zip(again, cases[1:], strict=True):
        repeated = Evaluation(protocol, Settings(), "cpu", 0.5, again, ()).case(clip)
        np.testing.assert_array_equal(repeated.known.recording.samples, case.known.recording.samples)
        np.testing.assert_array_equal(repeated.truth.references, case.truth.references)
    other = Evaluation(protocol, Settings(seed=1), "cpu", 0.5, again, ()).case(again[0])
    assert not np.array_equal(other.known.recording.samples, cases[1].known.recording.samples)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_what_is_damaged_is_what_a_float_file_holds(name: str, clean: Path, tmp_path: Path) -> None:
    protocol = protocol_of(name, tmp_path)
    clip = clips_for(protocol, clean)[0]
    case = Evaluation(protocol, Settings(), "cpu", 0.5, (clip,), ()).case(clip)
    for samples in (case.known.recording.samples, case.truth.references):
        np.testing.assert_array_equal(samples, samples.astype(np.float32))
    if case.known.degradation is not None:  # the truth is one of the recordings that would have been damaged into this
        reference, damaged = case.truth.references[0], case.known.recording.samples
        np.testing.assert_allclose(case.known.degradation.project(reference, damaged), reference, atol=2**-15)


def test_white_noise_has_its_level() -> None:
    case = Gaussian(0.05).degradation([Audio(tone(4.0)[None], RATE)], np.random.default_rng(0))
    assert case.truth.noise is not None
    assert case.truth.noise.std() == pytest.approx(0.05, rel=0.02)
    np.testing.assert_allclose(case.known.recording.samples, case.truth.references[0] + case.truth.noise, atol=1e-12)


@pytest.mark.parametrize(("seconds", "looped"), [(3.0, False), (0.2, True)])
def test_environmental_noise_has_an_snr_of_the_range_and_is_looped_where_it_is_short(
    seconds: float, looped: bool, tmp_path: Path
) -> None:
    noise = write(
        tmp_path / "hum.wav", 0.01 * np.random.default_rng(1).standard_normal(round(seconds * 16_000)), 16_000
    )
    protocol = Environmental(noise=(noise,), snr=(6.0, 7.0))
    for seed in range(5):
        case = protocol.degradation([Audio(np.stack([tone(1.0), tone(1.0, 300)]), RATE)], np.random.default_rng(seed))
        assert case.truth.noise is not None
        snr = 10 * math.log10(np.sum(case.truth.references**2) / np.sum(case.truth.noise**2))
        assert 5.999 < snr < 7.001
        assert any("looped" in note for note in case.notes) == looped


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_a_gap_has_a_length_of_the_range_and_sound_on_both_sides(seed: int) -> None:
    case = Dropout().degradation([Audio(tone(1.0)[None], RATE)], np.random.default_rng(seed))
    assert isinstance(case.known.degradation, Missing)
    ((start, stop),) = case.known.degradation.gaps.channels[0]
    assert 0.1 * RATE - 1 <= stop - start <= 0.25 * RATE + 1
    assert start >= 0.15 * RATE
    assert stop <= 0.85 * RATE
    damaged, clean = case.known.recording.samples[0], case.truth.references[0, 0]
    assert not damaged[start:stop].any()
    np.testing.assert_array_equal(np.delete(damaged, range(start, stop)), np.delete(clean, range(start, stop)))


def test_mixtures_are_sums_of_sources_of_one_level() -> None:
    clips = [Audio(gain * tone(0.5, pitch)[None], RATE) for gain, pitch in ((1.0, 200), (0.01, 310), (3.0, 470))]
    case = Mixture(kinds=DEFAULT_TYPES[3]).degradation(clips, np.random.default_rng(0))
    assert case.truth.references.shape == (3, 1, RATE // 2)
    np.testing.assert_allclose(np.sqrt(np.mean(case.truth.references**2, axis=(1, 2))), 0.1, rtol=1e-6)
    np.testing.assert_allclose(case.known.recording.samples, case.truth.references.sum(axis=0), atol=1e-7)
    with pytest.raises(InputError, match="cannot be mixed"):
        Mixture().degradation([clips[0], Audio(clips[1].samples, 16_000)], np.random.default_rng(0))


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_noisy_files_find_their_clean_ones_by_name(suffix: str, clean: Path) -> None:
    expected = with_noise(clean, suffix)
    found = pair(collect([clean.parent / "noisy"], outside=OUT), collect([clean], outside=OUT))
    assert found == expected
    expected.popitem()[1].unlink()  # a clean file without a noisy one is no pair
    assert pair(collect([clean.parent / "noisy"], outside=OUT), collect([clean], outside=OUT)) == expected


@pytest.mark.parametrize(
    ("noisy", "clean", "reason"),
    [
        (["n/a.wav", "n/b.wav"], ["c/a.wav"], r"n/b\.wav: no clean file is called b"),
        (["n/a.wav"], ["c/x/a.wav", "c/y/a.wav"], r"c/x/a\.wav and c/y/a\.wav have one name"),
        (["n/a.wav"], ["c/a.flac", "c/a.aiff"], r"c/a\.flac and c/a\.aiff have one name"),
        (["n/a.wav", "n/a.flac"], ["c/a.wav"], r"n/a\.wav and n/a\.flac have one name"),
    ],
)
def test_names_that_do_not_pair_are_refused(noisy: list[str], clean: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        pair([*map(Path, noisy)], [*map(Path, clean)])
    paths = [Path("c/a.wav"), Path("c/a.flac")]
    assert pair([Path("n/a.flac")], paths) == {paths[1]: Path("n/a.flac")}  # one of the whole name goes first


@given(st.integers(0, 2**62), st.one_of(st.none(), st.floats(0.11, 0.69)))
@settings(max_examples=10, deadline=None)
def test_both_sides_of_a_pair_are_the_same_stretch(seed: int, seconds: float | None) -> None:
    import tempfile

    ramp = np.linspace(0.1, 0.6, round(0.7 * RATE))
    with tempfile.TemporaryDirectory() as folder:
        pairs = {write(Path(folder) / "a.wav", ramp): write(Path(folder) / "b.wav", ramp - 0.25)}
        (clip,) = draw_clips([list(pairs)], seconds, None, seed, pairs).clips
        case = Evaluation(Pairs(), Settings(seed=seed), "cpu", seconds, (clip,), ()).case(clip)
    assert case.known.recording.samples.shape == (1, round((seconds or 0.7) * RATE))
    np.testing.assert_allclose(case.known.recording.samples, case.truth.references[0] - 0.25, atol=1e-7)
    assert case.truth.noise is not None
    np.testing.assert_allclose(case.truth.noise, -0.25, atol=1e-7)
    if seconds is None:
        np.testing.assert_allclose(case.truth.references[0, 0], ramp, atol=1e-7)


@pytest.mark.parametrize(("seconds", "rate", "channels"), [(0.6, RATE, 1), (0.7, 2 * RATE, 1), (0.7, RATE, 2)])
def test_pairs_that_do_not_match_are_named_and_left_out(seconds: float, rate: int, channels: int, clean: Path) -> None:
    pairs = with_noise(clean)
    other = next(iter(pairs.values()))
    soundfile.write(other, np.zeros((round(seconds * rate), channels)), rate)
    result = draw_clips([list(pairs)], None, None, 0, pairs)
    assert len(result.clips) == 7
    (reason,) = result.unreadable.values()
    assert reason.startswith(f"{other}: has")
    assert "they must match" in reason


def test_clipping_leaves_its_snr_and_quantization_its_levels() -> None:
    clean = Audio(tone(0.5)[None], RATE)
    case = Clipped(10.0).degradation([clean], np.random.default_rng(0))
    error = case.known.recording.samples - case.truth.references[0]
    assert 10 * math.log10(np.sum(case.truth.references**2) / np.sum(error**2)) == pytest.approx(10.0, abs=0.01)
    assert isinstance(case.known.degradation, Clipping)
    assert case.known.degradation.affected(case.known.recording.samples).any()

    case = Quantized(16).degradation([clean], np.random.default_rng(0))
    assert isinstance(case.known.degradation, Quantization)
    assert len(np.unique(case.known.recording.samples)) <= 16
    assert np.abs(case.truth.references).max() == pytest.approx(0.9)


def test_protocols_are_chosen_by_name_or_by_their_values() -> None:
    assert isinstance(make_protocol("denoise", None, {}), Gaussian)
    assert isinstance(make_protocol("denoise", None, {"noise": (Path("a.wav"),)}), Environmental)
    assert isinstance(make_protocol("denoise", None, {"noisy": (Path("a.wav"),)}), Pairs)
    refused: list[tuple[str, str | None, dict[str, Any]]] = [
        ("denoise", "gaussian", {"snr": (1.0, 2.0)}),
        ("denoise", "dropout", {}),
        ("denoise", "gaussian", {"noisy": (Path("a.wav"),)}),
        ("inpaint", None, {"noisy": (Path("a.wav"),)}),
        ("inpaint", None, {"levels": 4}),
        ("repair", None, {}),
    ]
    for task, name, values in refused:
        with pytest.raises(SettingsError):
            make_protocol(task, name, values)


# Methods


def test_what_stands_for_the_input_is_a_baseline_of_its_task() -> None:
    for task, baselines in BASELINES.items():
        rows = make_methods(task, ["exp-dense"], ["all"], TINY, "cpu", oracle=True)
        assert [row.name for row in rows].count("input") == 1
        assert rows[0].name == "input"
        untouched = set(baselines) & set(methods_module._UNTOUCHED)
        assert len(untouched) == 1
        assert {row.name for row in rows} >= set(methods_module._installed(baselines)) - untouched


def test_methods_of_one_name_are_refused() -> None:
    for priors, baselines in [(["conv", "conv"], []), (["all", "conv"], []), ([], ["wiener", "wiener"])]:
        with pytest.raises(SettingsError, match="name each once"):
            make_methods("denoise", priors, baselines, TINY, "cpu", oracle=False)


@dataclass(frozen=True)
class Spy:
    """A method that fails unless it is handed what it may know."""

    name: str
    told: Told

    def restore(self, known: Known, truth: Truth | None) -> Estimate:
        assert (truth is None) == (self.told in ("nothing", "training"))
        return Estimate(known.recording.samples[None])


@dataclass(frozen=True)
class Broken:
    """A method that fails on every second clip."""

    name: str = "broken"
    told: Told = "nothing"
    calls: list[None] = field(default_factory=list, compare=False)

    def restore(self, known: Known, truth: Truth | None) -> Estimate:
        self.calls.append(None)
        if len(self.calls) % 2:
            raise ZeroDivisionError("of all things")
        return Estimate(known.recording.samples[None])


def evaluation(clean: Path, *rows: Any, count: int = 3) -> Evaluation:
    return Evaluation(Gaussian(), TINY, "cpu", 0.5, drawn(clean, count), rows)


def test_blind_methods_are_not_handed_the_truth(clean: Path, tmp_path: Path) -> None:
    spies = [Spy("spy", "nothing"), Spy("spy", "noise"), Spy("spy", "reference"), Spy("trained", "training")]
    (tmp_path / "out").mkdir()
    outcome = run(evaluation(clean, *spies), Folder(tmp_path / "out"), jobs=1, on_unit=None)
    assert not outcome.failures
    assert len(outcome.records) == 12


def test_what_was_trained_is_marked_and_has_a_group_of_its_own() -> None:
    pytest.importorskip("pyrnnoise")
    (method,) = make_methods("denoise", [], ["rnnoise"], TINY, "cpu", oracle=False)[1:]
    assert method.told == "training"
    assert label(method.name, method.told) == "rnnoise (trained)"
    trained = [{**record, "told": method.told} for record in records(rnnoise=[9.0, 9.0])]
    rows = summarize(records(conv=[1.0, 2.0], wiener=[2.0, 3.0]) + trained, ("snr_db",))
    best = [(row.method, row.told) for row in rows if (cell := row.cells["snr_db"]) and cell.best]
    assert best == [("wiener", "nothing")]


def test_dap_is_blind_unless_it_is_an_oracle(clean: Path) -> None:
    task = evaluation(clean)
    case = task.case(task.clips[0])
    blind = Blind("conv", replace(TINY, prior="conv"), "cpu")
    first, second = (blind.restore(case.known, truth) for truth in (None, case.truth))
    np.testing.assert_array_equal(first.samples, second.samples)
    assert first.fit is not None
    assert "snr_db" not in first.fit


def test_failures_are_told_apart_and_stop_nothing(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    task = evaluation(clean, Broken(), Spy("spy", "nothing"), count=4)
    outcome = run(task, Folder(tmp_path / "out"), jobs=1, on_unit=None)
    assert len(outcome.failures) == 2
    assert all(reason == "ZeroDivisionError: of all things" for _, _, reason in outcome.failures)
    assert len(outcome.records) == 8 - 2


def test_progress_counts_what_was_done_before(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    folder = Folder(tmp_path / "out")
    run(evaluation(clean, Spy("a", "nothing")), folder, jobs=1, on_unit=None)
    seen: list[tuple[int, int]] = []
    both = evaluation(clean, Spy("a", "nothing"), Spy("b", "nothing"))
    run(both, folder, jobs=1, on_unit=lambda progress: seen.append((progress.done, progress.total)))
    assert seen == [(3, 6), (4, 6), (5, 6), (6, 6)]


# Folders


def test_a_folder_of_another_configuration_is_refused_with_the_difference(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out")
    folder.open({"seed": 0, "settings": {"width": 8}}, overwrite=False)
    folder.open({"seed": 0, "settings": {"width": 8}}, overwrite=False)
    with pytest.raises(SettingsError, match=r"settings\.width 8 in place of 16"):
        folder.open({"seed": 0, "settings": {"width": 16}}, overwrite=False)
    (folder.path / "mine.txt").write_text("keep")
    folder.open({"seed": 1}, overwrite=True)
    assert json.loads((folder.path / "configuration.json").read_text()) == {"seed": 1}
    assert (folder.path / "mine.txt").exists()


def test_a_folder_of_other_files_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("mine")
    with pytest.raises(DapError, match="not of an evaluation"):
        Folder(tmp_path).open({}, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


# Tables


def records(**methods: Sequence[float | None]) -> list[dict[str, Any]]:
    return [
        {
            "clip": f"clip{index}",
            "method": name.removesuffix("_oracle"),
            "told": "reference" if name.endswith("_oracle") else "nothing",
            "seconds": 1.0,
            "metrics": {"snr_db": value, "envelope_distance": None if value is None else -value},
        }
        for name, values in methods.items()
        for index, value in enumerate(values)
    ]


def test_means_deviations_and_the_best_of_each_group() -> None:
    rows = summarize(
        records(input=[1.0, 2.0, 6.0], conv=[2.0, None, 8.0], conv_oracle=[9.0, 9.0, 9.0], exp_oracle=[8.0, 8.0, 8.0]),
        ("snr_db", "envelope_distance"),
    )
    cells = {(row.method, row.told): row.cells["snr_db"] for row in rows}
    first, second = cells["input", "nothing"], cells["conv", "nothing"]
    assert first is not None
    assert second is not None
    assert (first.mean, first.count, first.best) == (3.0, 3, False)
    assert first.std == pytest.approx(math.sqrt(7))
    assert (second.mean, second.count, second.best) == (5.0, 2, True)  # and not the oracle, which knows more
    best = [
        {(row.method, row.told) for row in rows if (cell := row.cells[metric]) and cell.best}
        for metric in ("snr_db", "envelope_distance")
    ]
    assert best == [{("conv", "nothing"), ("conv", "reference")}] * 2  # less distance is better
    assert set(LOWER_IS_BETTER) <= set(METRICS)


def test_differences_are_paired_and_stay_within_their_group() -> None:
    rng = np.random.default_rng(0)
    base = 10 * rng.standard_normal(20)  # clips differ much, methods by little
    better = base + 1 + 0.2 * rng.standard_normal(20)
    chance = base + 0.5 * rng.permutation(np.linspace(-1, 1, 20))
    found = compare(
        records(
            **{"exp-dense": list(base), "better": list(better), "chance": list(chance)},
            **{"exp-dense_oracle": list(base + 5), "better_oracle": list(base + 4)},
        ),
        ("snr_db", "envelope_distance"),
        "exp-dense",
    )
    verdicts = {(each.method, each.told, each.metric): each.verdict for each in found}
    assert verdicts == {
        **{("better", "nothing", metric): "better" for metric in ("snr_db", "envelope_distance")},
        **{("chance", "nothing", metric): "open" for metric in ("snr_db", "envelope_distance")},
        **{("better", "reference", metric): "worse" for metric in ("snr_db", "envelope_distance")},
    }
    first = found[0]
    assert first.mean == pytest.approx(np.mean(better - base))
    assert first.low is not None
    assert first.high is not None
    assert first.low < first.mean < first.high


def test_only_clips_that_both_have_are_compared() -> None:
    found = compare(records(conv=[1.0, None, 3.0], wiener=[2.0, 5.0, None]), ("snr_db",), "conv")
    assert [(each.method, each.mean, each.count, each.verdict) for each in found] == [("wiener", 1.0, 1, "open")]


def test_few_clips_that_agree_may_be_chance() -> None:
    for count, verdict in ((5, "open"), (6, "better")):
        values = list(np.arange(count, dtype=float))
        found = compare(records(conv=values, other=[value + 1 for value in values]), ("snr_db",), "conv")
        assert [each.verdict for each in found] == [verdict]


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=30), st.floats(-10, 10))
@settings(max_examples=25, deadline=None)
def test_the_interval_moves_with_the_values_and_lies_within_them(values: list[float], shift: float) -> None:
    low, high = interval(np.array(values))
    moved = interval(np.array(values) + shift)
    assert low is not None
    assert high is not None
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert moved == pytest.approx((low + shift, high + shift), abs=1e-9)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        low, high = interval(rng.standard_normal(30))
        assert low is not None
        assert high is not None
        inside += low <= 0 <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_others_are_compared_with_the_usual_prior_where_it_is() -> None:
    assert choose_pivot(records(input=[1.0], conv=[1.0], **{"exp-dense": [1.0]})) == "exp-dense"
    assert choose_pivot(records(input=[1.0], conv=[1.0])) == "conv"
    assert choose_pivot(records(input=[1.0])) is None
