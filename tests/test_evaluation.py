"""Evaluation: which clips are drawn, how they are degraded, what a table says, and that blind methods are blind."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dapcli.audio import Audio
from dapcli.baselines import BASELINES
from dapcli.errors import InputError, SettingsError
from dapcli.evaluation import protocols
from dapcli.evaluation.clips import Clip, collect, draw_clips, pair
from dapcli.evaluation.folder import Folder
from dapcli.evaluation.methods import UNTOUCHED, Estimate, Method, Oracle, label, make_methods
from dapcli.evaluation.protocols import PROTOCOLS, Case, Protocol, make_protocol
from dapcli.evaluation.run import Evaluation, run
from dapcli.evaluation.tables import choose_pivot, compare, summarize
from dapcli.metrics import LOWER_IS_BETTER, METRICS
from dapcli.settings import Settings
from dapcli.signal.source_types import DEFAULT_TYPES
from dapcli.signal.stft import STFT
from dapcli.tasks import TASKS
from dapcli.tasks.problem import Problem
from tests.signals import RATE, Samples, noise, snr_db

OUT = Path("out")
TINY = replace(TASKS["denoise"].presets["fast"], iterations=2, finetune_iterations=1, base_channels=4)
SEEDS = st.integers(0, 2**62)


def tone(seconds: float, pitch: float = 220.0) -> Samples:
    """A swelling tone ``[N]``."""
    t = np.arange(round(seconds * RATE)) / RATE
    harmonics = [np.sin(2 * np.pi * k * pitch * t) / k for k in range(1, 5)]
    return np.asarray(0.2 * np.sum(harmonics, axis=0) * (1.1 + np.sin(2 * np.pi * 3 * t)))


def write(path: Path, samples: Samples, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    for number in range(8):
        write(tmp_path / "clean" / f"tone{number}.wav", tone(0.7, 150 + 40 * number))
    return tmp_path / "clean"


def drawn(clean: Path, count: int | None = None, seed: int = 0) -> tuple[Clip, ...]:
    return draw_clips([collect([clean], outside=OUT)], 0.5, count, seed).clips


def evaluation(protocol: Protocol, clips: Sequence[Clip], *methods: Method, seed: int = 0) -> Evaluation:
    return Evaluation(protocol, replace(TINY, seed=seed), "cpu", 0.5, tuple(clips), methods)


# Clips


def test_files_folders_and_manifests_are_collected_once_each(clean: Path, tmp_path: Path) -> None:
    (clean / "notes.txt").write_text("no audio")
    (clean / ".hidden.wav").write_bytes(b"")
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,speaker\nclean/tone3.wav,a\nclean/tone1.wav,b\n")
    assert [path.name for path in collect([manifest], outside=OUT)] == ["tone3.wav", "tone1.wav"]
    write(clean / "out" / "audio" / "input.wav", tone(0.7))  # what an evaluation has written is no clip
    assert len(collect([clean, manifest, clean / "tone0.wav"], outside=clean / "out")) == 8
    for content in ("path\nclean/none.wav\n", "", "\n\n"):
        manifest.write_text(content)
        with pytest.raises(InputError, match=r"list\.csv"):
            collect([manifest], outside=OUT)


def test_more_clips_are_the_same_ones_and_others(clean: Path) -> None:
    names = [{clip.name for clip in drawn(clean, count)} for count in (3, 5, None)]
    assert [len(each) for each in names] == [3, 5, 8]
    assert names[0] < names[1] < names[2]
    assert {clip.name for clip in drawn(clean, 3, seed=1)} != names[0]


def test_files_of_one_name_are_different_clips_and_one_content_is_one(clean: Path) -> None:
    write(clean / "more" / "tone0.wav", tone(0.7, 500))
    write(clean / "again" / "tone0.wav", tone(0.7, 150))  # as tone0.wav is
    assert len({clip.name for clip in drawn(clean)}) == 9


@given(SEEDS, st.floats(0.11, 0.69))
@settings(max_examples=20, deadline=None)
def test_a_stretch_is_where_there_is_sound(seed: int, seconds: float) -> None:
    samples = np.concatenate([np.zeros(3 * RATE), tone(0.7), np.zeros(3 * RATE)])
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "a.wav", samples)
        (clip,) = draw_clips([[path]], seconds, None, seed).clips
        (stretch,) = clip.read(seconds, clip.generator(seed))
    assert stretch.samples.shape == (1, round(seconds * RATE))
    assert stretch.samples.any()


# Pairs


def with_noise(clean: Path) -> dict[Path, Path]:
    """By clean file, the same with a noise of its own."""
    pairs = {path: clean.parent / "noisy" / f"{path.stem}.flac" for path in sorted(clean.glob("*.wav"))}
    (clean.parent / "noisy").mkdir(exist_ok=True)
    for number, (path, noisy) in enumerate(pairs.items()):
        samples, _ = soundfile.read(path)
        soundfile.write(noisy, samples + noise(samples.size, std=0.05, seed=number), RATE)
    return pairs


def test_noisy_files_find_their_clean_ones_by_name(clean: Path) -> None:
    expected = with_noise(clean)
    expected.popitem()[1].unlink()  # a clean file without a noisy one is no pair
    assert pair(collect([clean.parent / "noisy"], outside=OUT), collect([clean], outside=OUT)) == expected
    paths = [Path("c/a.wav"), Path("c/a.flac")]
    assert pair([Path("n/a.flac")], paths) == {paths[1]: Path("n/a.flac")}  # one of the whole name goes first


@pytest.mark.parametrize(
    ("noisy", "clean", "reason"),
    [
        (["n/a.wav", "n/b.wav"], ["c/a.wav"], r"n/b\.wav: no clean file is called b"),
        (["n/a.wav"], ["c/x/a.wav", "c/y/a.wav"], r"c/x/a\.wav and c/y/a\.wav have one name"),
        (["n/a.wav", "n/a.flac"], ["c/a.wav"], r"n/a\.wav and n/a\.flac have one name"),
    ],
)
def test_names_that_do_not_pair_are_refused(noisy: list[str], clean: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        pair([*map(Path, noisy)], [*map(Path, clean)])


@given(SEEDS, st.one_of(st.none(), st.floats(0.11, 0.69)))
@settings(max_examples=10, deadline=None)
def test_both_sides_of_a_pair_are_the_same_stretch(seed: int, seconds: float | None) -> None:
    ramp = np.linspace(0.1, 0.6, round(0.7 * RATE))
    with tempfile.TemporaryDirectory() as folder:
        pairs = {write(Path(folder) / "a.wav", ramp): write(Path(folder) / "b.wav", ramp - 0.25)}
        (clip,) = draw_clips([list(pairs)], seconds, None, seed, pairs).clips
        case = protocols.Pairs(tuple(pairs.values())).degrade(
            clip.read(seconds, clip.generator(seed)), np.random.default_rng()
        )
    assert case.problem.samples.shape == (1, round((seconds or 0.7) * RATE))
    np.testing.assert_allclose(case.problem.samples, case.truth[0] - 0.25, atol=1e-7)
    if seconds is None:
        np.testing.assert_allclose(case.truth[0, 0], ramp, atol=1e-7)


def test_pairs_that_do_not_match_are_named_and_left_out(clean: Path) -> None:
    pairs = with_noise(clean)
    others = ((4_800, RATE, 1), (11_200, 2 * RATE, 1), (5_600, RATE, 2))
    for path, (length, rate, channels) in zip(pairs.values(), others, strict=False):
        soundfile.write(path, np.zeros((length, channels)), rate)
    result = draw_clips([list(pairs)], None, None, 0, pairs)
    assert (len(result.clips), len(result.unreadable)) == (5, 3)
    for reason in result.unreadable.values():
        assert re.match(r".*noisy/tone[012]\.flac: has .*they must match", reason)


# Protocols


def prepare(name: str, clean: Path) -> tuple[Protocol, tuple[Clip, ...]]:
    """A protocol with values for short clips, and some for it."""
    files = sorted(clean.glob("tone*.wav"))
    pairs = with_noise(clean) if name == "pairs" else None
    values: dict[str, dict[str, Any]] = {
        "environmental": {"noise": (write(clean.parent / "noise.wav", noise(3 * RATE)),)},
        "pairs": {"noisy": tuple((pairs or {}).values())},
        "dropout": {"gap": (0.05, 0.1)},
        "frames": {"gap": (0.08, 0.1)},
    }
    protocol = make_protocol(PROTOCOLS[name].task, name, values.get(name, {}))
    groups = [files[:4], files[4:]] if protocol.task == "separate" else [files[:4]]
    return protocol, draw_clips(groups, 0.5, None, 0, pairs).clips


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_case_depends_on_the_seed_and_the_file_alone(name: str, clean: Path, tmp_path: Path) -> None:
    protocol, clips = prepare(name, clean)
    cases = [evaluation(protocol, clips).case(clip) for clip in clips]
    clean = clean.rename(tmp_path / "moved")
    protocol, again = prepare(name, clean)
    for clip, case in list(zip(again, cases, strict=True))[1:]:  # not the same others
        repeated = evaluation(protocol, again[1:]).case(clip)
        np.testing.assert_array_equal(repeated.problem.samples, case.problem.samples)
        np.testing.assert_array_equal(repeated.truth, case.truth)
    other = evaluation(protocol, again, seed=1).case(again[1])
    assert not np.array_equal(other.problem.samples, cases[1].problem.samples)
    # What a float file holds, and no more.
    problem, references = cases[0].problem, cases[0].truth
    for samples in (problem.samples, references):
        np.testing.assert_array_equal(samples, samples.astype(np.float32))
    if problem.degradation is not None:  # the truth is one of the recordings that would have been degraded into this
        projected = problem.degradation.project(references[0], problem.samples)
        np.testing.assert_allclose(projected, references[0], atol=2**-15)
    assert problem.oracle_noise is None


def degrade(protocol: Protocol, *clips: Samples, seed: int = 0) -> Case:
    return protocol.degrade([Audio(np.atleast_2d(clip), RATE) for clip in clips], np.random.default_rng(seed))


def test_a_noise_profile_is_the_noise_before_the_clip(tmp_path: Path) -> None:
    path = write(tmp_path / "ramp.wav", np.linspace(0.1, 0.2, 3 * RATE))
    for protocol in (protocols.Gaussian(profile=0.25), protocols.Environmental(noise=(path,), profile=0.25)):
        case = degrade(protocol, tone(1.0))
        profile = case.problem.noise_profile
        assert isinstance(profile, Audio)
        assert profile.samples.shape == (1, RATE // 4)
        if protocol.name == "environmental":
            steps = np.diff(np.concatenate([profile.samples, case.problem.samples - case.truth[0]], axis=1))
            np.testing.assert_allclose(steps, steps.mean(), atol=1e-7)
        wiener = BASELINES["denoise"]["wiener"]
        assert not np.array_equal(wiener(case.problem), wiener(replace(case.problem, noise_profile=None)))


@pytest.mark.parametrize(("seconds", "looped"), [(3.0, False), (0.2, True)])
def test_environmental_noise_has_an_snr_of_the_range_and_is_looped_where_it_is_short(
    seconds: float, looped: bool, tmp_path: Path
) -> None:
    path = write(tmp_path / "hum.wav", noise(round(seconds * 16_000), std=0.01), 16_000)
    for seed in range(5):
        stereo = np.stack([tone(1.0), tone(1.0, 300)])
        case = degrade(protocols.Environmental(noise=(path,), snr=(6.0, 7.0)), stereo, seed=seed)
        assert 5.999 < snr_db(case.truth[0], case.problem.samples) < 7.001
        assert any("looped" in note for note in case.notes) == looped


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_a_gap_has_a_length_of_the_range_and_sound_on_both_sides(seed: int) -> None:
    case = degrade(protocols.Dropout(), tone(1.0), seed=seed)
    ((start, stop),) = case.problem.degradation.gaps.channels[0]
    assert 0.1 * RATE - 1 <= stop - start <= 0.25 * RATE + 1
    assert start >= 0.15 * RATE
    assert stop <= 0.85 * RATE
    observed, clean = case.problem.samples[0], case.truth[0, 0]
    assert not observed[start:stop].any()
    np.testing.assert_array_equal(np.delete(observed, range(start, stop)), np.delete(clean, range(start, stop)))


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_zeroed_frames_lose_the_samples_that_no_other_frame_covers(seed: int) -> None:
    case = degrade(protocols.Frames(), tone(1.0), seed=seed)
    ((start, stop),) = case.problem.degradation.gaps.channels[0]
    stft = STFT.for_rate(RATE, 1022 / 16_000, 64 / 16_000)
    zeroed = stft.touched(torch.arange(RATE)[None].ge(start) & torch.arange(RATE)[None].lt(stop))[0]
    seconds = zeroed.sum() * stft.hop / RATE
    assert 0.1 - stft.hop / RATE <= seconds <= 0.25 + stft.hop / RATE
    # All windows but those of the zeroed frames, added up.
    covered = torch.zeros(RATE + stft.n_fft)
    for frame in range(len(zeroed)):
        if not zeroed[frame]:
            covered[frame * stft.hop :][: stft.n_fft] += torch.hann_window(stft.n_fft)
    lost = np.flatnonzero(covered[stft.n_fft // 2 :][:RATE].numpy() == 0)
    np.testing.assert_array_equal(lost, np.arange(start, stop))
    assert not case.problem.consistent
    assert degrade(protocols.Frames(put_back=True), tone(1.0), seed=seed).problem.consistent


def test_mixtures_are_sums_of_sources_of_one_level() -> None:
    clips = [gain * tone(0.5, pitch) for gain, pitch in ((1.0, 200), (0.01, 310), (3.0, 470))]
    case = degrade(protocols.Mixture(types=DEFAULT_TYPES[3]), *clips)
    assert case.truth.shape == (3, 1, RATE // 2)
    np.testing.assert_allclose(np.sqrt(np.mean(case.truth**2, axis=(1, 2))), 0.1, rtol=1e-6)
    np.testing.assert_allclose(case.problem.samples, case.truth.sum(axis=0), atol=1e-7)
    with pytest.raises(InputError, match="cannot be mixed"):
        degrade(protocols.Mixture(), clips[0], clips[1][:-1])


def test_noise_has_its_level_clipping_its_snr_and_quantization_its_levels() -> None:
    case = degrade(protocols.Gaussian(0.05), tone(4.0))
    assert (case.problem.samples - case.truth[0]).std() == pytest.approx(0.05, rel=0.02)
    case = degrade(protocols.Clipped(10.0), tone(0.5))
    assert snr_db(case.truth[0], case.problem.samples) == pytest.approx(10.0, abs=0.01)
    case = degrade(protocols.Quantized(16), tone(0.5))
    assert len(np.unique(case.problem.samples)) <= 16
    assert np.abs(case.truth).max() == pytest.approx(0.9)


def test_protocols_are_chosen_by_name_or_by_their_values() -> None:
    files = (Path("a.wav"),)
    for values, expected in (
        ({}, protocols.Gaussian),
        ({"noise": files}, protocols.Environmental),
        ({"noisy": files}, protocols.Pairs),
    ):
        assert isinstance(make_protocol("denoise", None, values), expected)
    for task, values, name in (
        ("denoise", {}, "gaussian"),
        ("denoise", {"noise": files}, "environmental"),
        ("inpaint", {}, "frames"),
        ("separate", {}, "mixture"),
    ):
        assert make_protocol(task, "paper", values).name == name
    for task, values in (("declip", {}), ("denoise", {"noisy": files})):
        with pytest.raises(SettingsError):
            make_protocol(task, "paper", values)


# Methods


def test_the_input_is_the_first_row_of_every_task_and_there_once() -> None:
    for task, baselines in BASELINES.items():
        presets = TASKS[task].presets
        rows = make_methods(task, ["exp-dense"], ["all", UNTOUCHED], presets["quality"], "cpu", oracle=True)
        assert [row.name for row in rows].index(UNTOUCHED) == 0
        assert [row.name for row in rows].count(UNTOUCHED) == 1
        assert {row.name for row in rows} >= {name for name, each in baselines.items() if not each.missing}


@pytest.mark.parametrize(("estimator", "fit"), [("generate", True), ("mask", False)])
def test_all_priors_are_those_that_can_be_fitted(estimator: str, fit: bool) -> None:
    settings = TASKS["denoise"].presets["quality" if estimator == "mask" else estimator]
    names = [row.name for row in make_methods("denoise", ["all"], [], settings, "cpu", oracle=False)]
    assert ("wave-unet" in names) is fit
    assert {"conv", "harmonic"} < set(names)


@pytest.mark.parametrize(
    ("priors", "baselines", "reason"),
    [
        (["conv", "conv"], [], "name each once"),
        ([], ["wiener", "wiener"], "name each once"),
        (["none"], [], "--prior none needs a classical estimate"),
    ],
)
def test_methods_that_cannot_be_run_are_refused(priors: list[str], baselines: list[str], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        make_methods("denoise", priors, baselines, TINY, "cpu", oracle=False)


@pytest.mark.parametrize("task", ["inpaint", "separate"])
def test_without_a_network_there_is_nothing_that_an_oracle_could_stop(task: str) -> None:
    methods = make_methods(task, ["none", "conv"], [], TASKS[task].presets["fast"], "cpu", oracle=True)
    assert [label(row.name, row.oracle) for row in methods[1:]] == ["none", "conv", "conv (oracle)"]


@dataclass(frozen=True)
class Spy(Method):
    """A method that fails where it is handed what it must not know, and on every second clip if it is ``broken``."""

    broken: bool = False
    _calls = count()

    def restore(self, problem: Problem[Any], truth: Samples | None) -> Estimate:
        assert (truth is None) == (self.oracle in ("none", "training"))
        assert problem.oracle_noise is None
        if self.broken and next(self._calls) % 2:
            raise ZeroDivisionError("of all things")
        return Estimate(problem.samples[None])


def test_the_blind_are_blind_failures_stop_nothing_and_progress_counts_what_was_done(
    clean: Path, tmp_path: Path
) -> None:
    oracles: list[Oracle] = ["none", "noise", "reference", "training"]
    spies = [Spy("denoise", f"spy {oracle}", TINY, "cpu", oracle) for oracle in oracles]
    (tmp_path / "out").mkdir()
    folder, clips = Folder(tmp_path / "out"), drawn(clean, 4)
    outcome = run(evaluation(protocols.Gaussian(), clips, *spies), folder, jobs=1, on_unit=None)
    assert (len(outcome.records), outcome.failures) == (16, ())
    seen: list[tuple[int, int]] = []
    further = evaluation(protocols.Gaussian(), clips, *spies, Spy("denoise", "broken", TINY, "cpu", broken=True))
    outcome = run(further, folder, jobs=1, on_unit=lambda progress: seen.append((progress.done, progress.total)))
    assert seen == [(done, 20) for done in range(16, 21)]
    assert len(outcome.records) == 16 + 2
    assert [reason for _, _, reason in outcome.failures] == ["ZeroDivisionError: of all things"] * 2


# Tables


def records(**methods: Sequence[float | None]) -> list[dict[str, Any]]:
    return [
        {
            "clip": f"clip{index}",
            "method": name.partition("_")[0],
            "oracle": {"oracle": "reference", "trained": "training"}.get(name.partition("_")[2], "none"),
            "seconds": 1.0,
            "metrics": {"snr_db": value, "envelope_distance": None if value is None else -value},
        }
        for name, values in methods.items()
        for index, value in enumerate(values)
    ]


def best(rows: Sequence[Any], metric: str) -> set[tuple[str, str]]:
    return {(row.method, row.oracle) for row in rows if (cell := row.cells[metric]) and cell.best}


def test_means_deviations_and_the_best_of_each_group() -> None:
    knowing = {"conv_oracle": [9.0] * 3, "exp_oracle": [8.0] * 3, "a_trained": [7.0] * 3, "b_trained": [7.1] * 3}
    blind: dict[str, list[float | None]] = {"input": [1.0, 2.0, 6.0], "conv": [2.0, None, 8.0]}
    rows = summarize(records(**blind, **knowing), ("snr_db", "envelope_distance"))
    cells = {(row.method, row.oracle): row.cells["snr_db"] for row in rows}
    first, second = cells["input", "none"], cells["conv", "none"]
    assert first is not None
    assert second is not None
    assert (first.mean, first.count, first.best) == (3.0, 3, False)
    assert first.std == pytest.approx(math.sqrt(7))
    assert (second.mean, second.count, second.best) == (5.0, 2, True)  # and not the oracle, which knows more
    for metric in ("snr_db", "envelope_distance"):  # less distance is better
        assert best(rows, metric) == {("conv", "none"), ("conv", "reference"), ("b", "training")}
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
    assert {(each.method, each.oracle, each.metric): each.verdict for each in found} == {
        (name, oracle, metric): verdict
        for name, oracle, verdict in (
            ("better", "none", "better"),
            ("chance", "none", "open"),
            ("better", "reference", "worse"),
        )
        for metric in ("snr_db", "envelope_distance")
    }
    assert found[0].mean == pytest.approx(np.mean(better - base))
    low, high = found[0].low, found[0].high
    assert low is not None
    assert high is not None
    assert low < found[0].mean < high


@pytest.mark.parametrize(
    ("pivot", "other", "count", "verdict"),
    [
        ([1.0, None, 3.0], [2.0, 5.0, None], 1, "open"),  # only clips that both have
        ([*range(5)], [*range(1, 6)], 5, "open"),  # may be chance, although all agree
        ([*range(6)], [*range(1, 7)], 6, "better"),
    ],
)
def test_few_clips_may_be_chance(
    pivot: list[float | None], other: list[float | None], count: int, verdict: str
) -> None:
    (found,) = compare(records(conv=pivot, other=other), ("snr_db",), "conv")
    assert (found.method, found.mean, found.count, found.verdict) == ("other", 1.0, count, verdict)


def test_others_are_compared_with_the_usual_prior_where_it_is() -> None:
    assert choose_pivot(records(input=[1.0], conv=[1.0], **{Settings.prior: [1.0]})) == Settings.prior
    assert choose_pivot(records(input=[1.0], conv=[1.0])) == "conv"
    told = [{**each, "oracle": oracle} for each in records(conv=[1.0]) for oracle in ("noise", "reference")]
    assert choose_pivot([*records(input=[1.0]), told[0]]) is None
    assert choose_pivot([*records(input=[1.0]), *told]) == "conv"
    assert choose_pivot(records(input=[1.0])) is None
