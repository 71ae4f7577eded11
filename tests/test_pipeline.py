"""Long recordings: segments join without a seam, and any store, interruption and workers give one result."""

from __future__ import annotations

import errno
import json
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dapcli import TASKS, Audio, Progress, Result, Settings, denoise, restore, separate
from dapcli.audio.recording import BLOCK, blocks
from dapcli.errors import DeviceError, OutputError, SettingsError
from dapcli.fit import Iteration
from dapcli.pipeline import run as pipeline_run
from dapcli.pipeline.run import with_sound
from dapcli.pipeline.segments import Joined, fade_weights, plan, plan_segments
from dapcli.pipeline.solver import SegmentFit
from dapcli.pipeline.store import FittedSegment, Store
from dapcli.priors import build_prior
from dapcli.signal.gaps import Gaps
from dapcli.signal.missing import Missing
from dapcli.tasks.denoise import Denoiser
from tests.signals import RATE, Samples, noise, tone

# Segments


Case = tuple[int, int, int]


@st.composite
def plans(draw: st.DrawFn) -> Case:
    """A length, a longest segment and an overlap that are allowed."""
    overlap = draw(st.integers(1, 60))
    longest = draw(st.integers(3 * overlap, 5 * overlap + 200))
    return draw(st.integers(1, 3_000)), longest, overlap


@given(plans())
def test_segments_cover_a_recording_and_have_one_size(case: Case) -> None:
    length, longest, overlap = case
    segments = plan_segments(*case)
    assert (segments[0][0], segments[-1][1]) == (0, length)
    assert {stop - start for start, stop in segments} == {segments[0][1]}
    assert segments[0][1] <= longest
    assert {before[1] - after[0] for before, after in pairwise(segments)} <= {overlap, overlap + 1}
    counts = np.zeros(length, dtype=int)
    total = np.zeros(length)
    for index, (start, stop) in enumerate(segments):
        weights = fade_weights(segments, index)
        assert ((weights >= 0) & (weights <= 1)).all()
        counts[start:stop] += 1
        total[start:stop] += weights
    assert set(counts.tolist()) <= {1, 2}
    np.testing.assert_allclose(total, 1.0, rtol=0, atol=1e-12)


def test_cross_fades_fall_without_a_step_and_have_room() -> None:
    assert plan_segments(100, 100, 10) == [(0, 100)]
    assert len(plan_segments(101, 100, 10)) == 2
    segments = plan_segments(1_000, 600, 200)
    falling = fade_weights(segments, 0)
    assert (falling[0], falling[-1]) == (1, pytest.approx(0, abs=1e-4))
    assert (np.abs(np.diff(falling) + 0.005) <= 0.005).all()
    for longest, overlap in ((29, 10), (10, 0)):
        with pytest.raises(ValueError, match="three overlaps"):
            plan_segments(1_000, longest, overlap)


@given(st.integers(8_000, 48_000))
def test_the_shortest_segments_are_planned_at_any_rate(rate: int) -> None:
    segments = plan(Audio(np.broadcast_to(0.0, (1, 5 * rate)), rate), Settings(segment=1.5))
    for (_, stop), (start, _) in pairwise(segments):
        assert stop - start == pytest.approx(rate / 2, abs=2)


@settings(max_examples=15, deadline=None)
@given(plans(), st.integers(1, 3), st.integers(1, 2), st.lists(st.floats(0, 1), max_size=20))
def test_blocks_are_parts_of_the_whole(case: Case, sources: int, channels: int, cuts: list[float]) -> None:
    length, segments = case[0], plan_segments(*case)
    parts = [noise(sources, channels, stop - start, seed=start).astype(np.float32) for start, stop in segments]
    whole = np.zeros((sources, channels, length))
    for index, (start, stop) in enumerate(segments):
        whole[..., start:stop] += parts[index] * fade_weights(segments, index)
    joined = Joined(segments, [f"type {index}" for index in range(sources)], channels, parts.__getitem__)
    bounds = sorted({0, *(round(cut * length) for cut in cuts), length})
    read = [joined.read(start, stop) for start, stop in pairwise(bounds)]
    np.testing.assert_array_equal(np.concatenate(read, axis=2), joined.read(0, length))
    np.testing.assert_allclose(joined.read(0, length), whole, rtol=0, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(plans(), st.randoms(use_true_random=False))
def test_sources_of_one_type_go_on_from_segment_to_segment(case: Case, random: Any) -> None:
    segments, sources = plan_segments(*case), noise(3, 1, case[0])
    orders = [[*random.sample(range(2), 2), 2] for _ in segments]
    joined = Joined(segments, ("a", "a", "b"), 1, lambda index: sources[orders[index], :, slice(*segments[index])])
    np.testing.assert_allclose(joined.read(0, case[0]), sources[orders[0]], rtol=0, atol=1e-12)


def test_reading_in_order_loads_every_segment_once_and_keeps_two() -> None:
    segments = plan_segments(1_000, 120, 30)
    loaded: list[weakref.ref[Samples]] = []

    def load(index: int) -> Samples:
        assert index == len(loaded)
        segment = np.zeros((1, 1, segments[index][1] - segments[index][0]))
        loaded.append(weakref.ref(segment))
        return segment

    joined = Joined(segments, ("",), 1, load)
    for start in range(0, 1_000, 20):
        joined.read(start, start + 20)
        assert sum(segment() is not None for segment in loaded) <= 2
    assert len(loaded) == len(segments) > 10
    assert joined.read(100, 100).shape == (1, 1, 0)
    for start, stop in ((-1, 5), (0, 1_001), (7, 6)):
        with pytest.raises(ValueError, match="is not within 0 to 1000"):
            joined.read(start, stop)


def test_the_network_is_pretrained_on_segments_with_sound() -> None:
    assert with_sound([0.0, 0.01, 0.01, 0.5, 0.0101, 0.4]) == [3, 5]  # pauses with noise, and digital silence
    assert with_sound([0.9, 1.0, 1.1]) == [0, 1, 2]  # steady music: none may be noise
    assert with_sound([float(power) for power in range(1, 100)]) == list(range(91, 99))
    assert with_sound([0.0, 2.0]) == [1]


# Stores

RUN = {"version": "1", "seed": 0, "noise_profile": (0.0, 0.5), "files": ["ab"]}


def fitted(seed: int = 0) -> FittedSegment:
    """A segment of two sources in stereo, whose first criterion is infinite."""
    iterations = (Iteration(1, 0.7, float("inf"), 0.3), Iteration(2, 0.1, 1e-12, 0.2, 0.9))
    fit = SegmentFit("fixed", "asked for", 2, "all done", 0.1 + seed, 1 / 3, 123, iterations, notes=("a", "b"))
    return FittedSegment(noise(2, 2, 50, seed=seed).astype(np.float32), fit)


def assert_same(found: FittedSegment | None, kept: FittedSegment) -> None:
    assert found is not None
    assert found.estimate.dtype == np.float32
    np.testing.assert_array_equal(found.estimate, kept.estimate)
    assert found.fit == kept.fit


def opened(folder: Path, run: Mapping[str, Any] = RUN, segments: int = 99, **options: bool) -> Store:
    store = Store(folder, lambda: run, **{"resume": True, **options})
    store.begin(segments)
    return store


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store() if request.param == "memory" else opened(tmp_path / "partial")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder that holds segments 0 and 3 of a run, and the weights of its network."""
    store = opened(tmp_path / "partial")
    store.save_weights({"weight": torch.ones(2)})
    store.save(0, fitted(0))
    store.save(3, fitted(3))
    return tmp_path / "partial"


def test_what_was_kept_comes_back(store: Store) -> None:
    assert store.load_weights() is None
    segments = {3: fitted(3), 12_345: fitted(1), 7: FittedSegment(np.zeros((1, 1, 40), np.float32), None)}
    for index, segment in segments.items():
        assert store.load(index) is None
        for each in (fitted(9), segment):  # a later one takes the place of an earlier one
            store.save(index, each)
    for index, segment in segments.items():
        assert_same(store.load(index), segment)
    network = build_prior(Settings(base_channels=2), 1, 1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    store.save_weights(network.state_dict())
    weights = store.load_weights()
    assert weights is not None
    assert all(torch.equal(weights[name], values) for name, values in network.state_dict().items())


numbers = st.floats(allow_nan=False)
iterations = st.builds(Iteration, st.integers(1, 2_000), numbers, numbers, numbers, st.none() | numbers)
fits = st.builds(
    SegmentFit, seconds=numbers, power=numbers, noise_std=numbers, iterations=st.lists(iterations).map(tuple)
)


@settings(max_examples=6, deadline=None)
@given(fit=fits, values=st.lists(st.floats(width=32, allow_nan=False), max_size=20))
def test_any_fit_comes_back_from_a_folder_bit_for_bit(fit: SegmentFit, values: list[float]) -> None:
    with TemporaryDirectory() as folder:
        segment = FittedSegment(np.array([[values]], np.float32), fit)
        opened(Path(folder) / "partial").save(7, segment)
        assert_same(opened(Path(folder) / "partial").load(7), segment)


def test_a_folder_appears_with_the_first_thing_to_keep_unless_there_is_one_segment_only(tmp_path: Path) -> None:
    single = opened(tmp_path / "single", segments=1)
    single.save(0, fitted())
    single.save_weights({"weight": torch.ones(2)})
    assert_same(single.load(0), fitted())
    store = opened(tmp_path / "partial")
    assert (store.load(0), store.load_weights(), len(store)) == (None, None, 0)
    assert list(tmp_path.iterdir()) == []
    store.save_weights({"weight": torch.ones(2)})
    assert len(store) == 0
    store.save(4, fitted())
    assert len(store) == 1
    assert not list(tmp_path.rglob("*.part"))


def test_a_file_that_is_not_whole_counts_as_absent(kept: Path) -> None:
    store = opened(kept, {**RUN, "noise_profile": [0.0, 0.5]})  # JSON has no tuples
    loads: dict[str, Callable[[], object]] = {
        "segment-00000.npz": lambda: store.load(0),
        "weights.npz": store.load_weights,
    }
    for name, load in loads.items():
        data = (kept / name).read_bytes()
        assert load() is not None
        cuts = [data[:length] for length in {*range(0, len(data), 97), len(data) - 1}]
        for content in (*cuts, bytes(4096), b"text\n" * 9, b"PK\x03\x04" + b"\xff" * 200, b"\x93NUMPY\x01\0\xff"):
            (kept / name).write_bytes(content)
            assert load() is None, f"{name} of {len(content)} bytes"
    # One wrong byte never makes another segment; it may be a date, or another that nobody reads.
    path, found = kept / "segment-00003.npz", []
    data = path.read_bytes()
    for place in {*range(0, len(data), 29), *range(len(data) - 250, len(data), 5)}:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        found.append(store.load(3))
    assert found.count(None) > len(found) / 2
    for segment in filter(None, found):
        assert_same(segment, fitted(3))


def test_a_folder_of_another_run_is_refused_by_what_differs(kept: Path) -> None:
    other = {**RUN, "noise_profile": None, "seed": 3, "base_channels": 16}
    with pytest.raises(SettingsError, match=r"another base_channels, noise_profile, seed;.*--resume.*--overwrite"):
        opened(kept, other)
    with pytest.raises(OutputError, match=r"--resume.*--overwrite"):
        opened(kept, resume=False)
    assert len(opened(kept)) == 2
    for segment in kept.glob("segment-*"):
        segment.unlink()
    with pytest.raises(SettingsError), Store(kept, lambda: other, resume=True) as store:
        store.begin(99)
    assert (kept / "weights.npz").exists()  # of a run that is not this one's to remove
    assert opened(kept, other, resume=False, overwrite=True).load(0) is None
    assert not kept.exists()


@pytest.mark.parametrize("text", ["{", "{}", "[]", "\0" * 100, None])
def test_a_folder_that_does_not_say_whose_it_is_is_refused(text: str | None, kept: Path) -> None:
    (kept / "run.json").unlink()
    if text is not None:
        (kept / "run.json").write_text(text)
    for path in (kept, kept / "segment-00000.npz"):  # a file in its place as well
        with pytest.raises(SettingsError, match="another files, noise_profile, seed, version;"):
            opened(path)
    with pytest.raises(OutputError, match="another folder"):
        opened(kept / "missing" / "partial").save(0, fitted())


def full(*arguments: object, **options: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half_a_file(file: Any, **arrays: object) -> NoReturn:
    file.write(b"PK\x03\x04" + bytes(100))
    full()


BROKEN = [(np, "savez", half_a_file), (Path, "open", full), (os, "fsync", full), (Path, "replace", full)]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken[1])
def test_a_full_disk_costs_the_segment_at_hand_only(broken: Any, tmp_path: Path) -> None:
    store = opened(tmp_path / "partial")
    for kept in (None, 0, 1):
        if kept is not None:
            store.save(kept, fitted(kept))
        with patch.object(*broken), pytest.raises(OutputError, match=r"partial.*No space left on device.*--resume"):
            store.save(kept or 0, fitted(9))
        assert len(store) == (0 if kept is None else kept + 1)
    for index in (0, 1):
        assert_same(opened(tmp_path / "partial").load(index), fitted(index))
    assert json.loads((tmp_path / "partial" / "run.json").read_text())["seed"] == 0


# Runs

QUICK = Settings(prior="conv", base_channels=2, iterations=2, finetune_iterations=2, segment=1.5, hop=0.03)
RECORDING = Audio(tone(440, 4.0) * np.sin(np.pi * np.arange(4 * RATE) / RATE / 4) + noise(1, 4 * RATE), RATE)
COUNT = len(plan(RECORDING, QUICK))
TOTAL = 2 + 2 * COUNT
CPU_IS_FULL = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000000 bytes."


def quick(*, settings: Settings = QUICK, parallel: int = 1, **options: Any) -> Result:
    return denoise(RECORDING, settings, device="cpu", parallel=parallel, **options)


def samples_of(result: Result) -> Samples:
    return result.estimates.read(0, result.estimates.length)


def test_silent_segments_that_overlap_are_one_silence() -> None:
    samples = np.zeros((1, 12 * RATE))
    samples[:, 6 * RATE : 7 * RATE] = noise(RATE)
    notes = denoise(Audio(samples, RATE), QUICK, device="cpu").notes
    assert len([note for note in notes if "silence" in note]) == 2


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    threads = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= threads


@pytest.fixture(scope="module")
def uninterrupted() -> Samples:
    return samples_of(quick())


def missing(store: Store) -> set[int]:
    return {index for index in range(COUNT) if store.load(index) is None}


def interrupt_at(segment: int | None) -> Callable[[Progress], None]:
    def on_step(progress: Progress) -> None:
        if progress.segment == segment:
            raise KeyboardInterrupt

    return on_step


def intercept(monkeypatch: pytest.MonkeyPatch, before: Callable[[int], object]) -> None:
    """Call a function with their number before fits of segments."""
    fit_segments, numbers = Denoiser.fit_segments, count(1)

    def intercepted(self: Denoiser, *arguments: Any) -> Any:
        before(next(numbers))
        return fit_segments(self, *arguments)

    monkeypatch.setattr(Denoiser, "fit_segments", intercepted)


@pytest.mark.parametrize("segment", [None, 1])
def test_an_interrupted_run_goes_on_to_the_same_bits(segment: int | None, store: Store, uninterrupted: Samples) -> None:
    with pytest.raises(KeyboardInterrupt):
        quick(store=store, on_step=interrupt_at(segment))
    left = missing(store)
    assert left.isdisjoint(range(segment or 0))
    assert (store.load_weights() is None) is (segment is None)
    seen: list[Progress] = []
    result = quick(store=store, on_step=seen.append)
    np.testing.assert_array_equal(samples_of(result), uninterrupted)
    assert {progress.segment for progress in seen} == ({None, *left} if segment is None else left)
    assert [progress.completed for progress in seen] == list(range(TOTAL - len(seen) + 1, TOTAL + 1))
    assert {progress.total for progress in seen} == {TOTAL}
    assert [(fit.start, fit.stop) for fit in result.segments] == plan(RECORDING, QUICK)
    # What is finished is not fitted again.
    again = quick(store=store, on_step=interrupt_at(segment))
    assert again.pretraining_seconds == 0
    np.testing.assert_array_equal(samples_of(again), uninterrupted)


def test_progress_counts_what_was_shown_however_far_the_fit_is_ahead() -> None:
    kept, seen, store = threading.Event(), [], Store()

    def on_step(progress: Progress) -> None:
        # The caller looks at a segment's first step only when the segment has been kept.
        assert progress.segment != 0 or kept.wait(60)
        seen.append(progress.completed)

    def save(index: int, segment: FittedSegment) -> None:
        Store.save(store, index, segment)
        kept.set()

    with patch.object(store, "save", save):
        quick(store=store, on_step=on_step)
    assert seen == list(range(1, TOTAL + 1))


# Several at a time


def test_two_at_a_time_have_the_bits_of_one(uninterrupted: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)
    intercept(monkeypatch, lambda _: both.wait(60))  # breaks unless two fits run at once
    assert COUNT % 2 == 0
    seen: list[tuple[int, Progress]] = []
    result = quick(parallel=2, on_step=lambda progress: seen.append((threading.get_ident(), progress)))
    assert {thread for thread, _ in seen} == {threading.get_ident()}
    assert {progress.segment for _, progress in seen} == {None, *range(COUNT)}
    assert (result.parallel, result.notes) == (2, ())
    np.testing.assert_array_equal(samples_of(result), uninterrupted)


@pytest.mark.parametrize("estimator", ["ensemble", "ratio-mask", "double-dip"])
def test_two_at_a_time_have_the_bits_of_one_in_every_task(estimator: str) -> None:
    presets = [each for task in ("inpaint", "separate") for each in TASKS[task].presets.values()]
    preset = next(each for each in presets if each.estimator == estimator)
    tiny = replace(preset, prior="conv", base_channels=2, iterations=1, segment=1.5, hop=0.03)
    recording = Audio(RECORDING.samples[:, 10_000:13_500], 2_000)
    how: list[dict[str, Any]] = [{"device": "cpu", "parallel": workers} for workers in (1, 2)]
    if estimator == "ensemble":
        missing = Missing(Gaps((((750, 760), (2_750, 2_760)),)))
        one, two = (restore(recording, missing, tiny, consistent=False, **each) for each in how)
    else:
        one, two = (separate(recording, settings=tiny, **each) for each in how)
    assert (one.parallel, two.parallel, len(two.segments)) == (1, 2, 2)
    np.testing.assert_array_equal(samples_of(one), samples_of(two))


@pytest.mark.parametrize("error", [None, ZeroDivisionError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_a_fit_has_one_thread_and_torch_s_number_comes_back(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, seen, told = torch.get_num_threads, set(), set()

    def watch(_: int) -> None:
        assert threading.get_ident() in told, "a new thread has to ask, or its first fit has other bits"
        seen.add(number())
        if error:
            raise error

    def asked() -> int:
        told.add(threading.get_ident())
        return number()

    monkeypatch.setattr(torch, "get_num_threads", asked)
    intercept(monkeypatch, watch)
    anew = replace(QUICK, finetune_iterations=0, iterations=1)
    torch.set_num_threads(2)
    try:
        with pytest.raises((ZeroDivisionError, DeviceError)) if error else nullcontext():
            quick(settings=anew, parallel=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert seen == {1}


@pytest.mark.parametrize("parallel", [1, 3])
def test_an_error_ends_all_threads(parallel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int | None] = []

    def interrupt(progress: Progress) -> None:
        calls.append(progress.segment)
        if progress.segment == parallel - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick(settings=replace(QUICK, finetune_iterations=10**6), parallel=parallel, on_step=interrupt)
    assert calls.count(parallel - 1) == 1  # and none came after it
    bug = RuntimeError("a bug")

    def fail(call: int) -> None:
        if call == 2:
            raise bug

    intercept(monkeypatch, fail)
    with pytest.raises(RuntimeError) as caught:
        quick(parallel=parallel)
    assert caught.value is bug


@pytest.fixture
def joint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments are fitted as one network, as on CUDA."""
    monkeypatch.setattr(Denoiser, "joint", True)


@pytest.mark.usefixtures("joint")
@pytest.mark.parametrize("prior", ["exp-dense", "harmonic"])
@pytest.mark.parametrize("finetune", [0, 2])
def test_networks_side_by_side_restore_each_segment_as_one_alone(prior: str, finetune: int) -> None:
    settings = replace(QUICK, prior=prior, finetune_iterations=finetune, precision="float32", noise_model="moving")
    seen: list[Progress] = []
    together = quick(settings=settings, parallel=3, on_step=seen.append)
    alone = quick(settings=settings)
    np.testing.assert_allclose(samples_of(together), samples_of(alone), atol=1e-4)
    assert [each.parameters for each in together.segments] == [each.parameters for each in alone.segments]
    for index, (one, other) in enumerate(zip(together.segments, alone.segments, strict=True)):
        assert [each.loss for each in one.iterations] == pytest.approx([each.loss for each in other.iterations], 1e-3)
        assert [each.iteration.iteration for each in seen if each.segment == index] == [1, 2]


@pytest.mark.usefixtures("joint")
def test_where_memory_is_short_half_as_many_networks_stand_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    fit_segments, sizes = Denoiser.fit_segments, []

    def crowded(self: Denoiser, segments: Any, reports: Any) -> Any:
        sizes.append(len(segments))
        if len(segments) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return fit_segments(self, segments, reports)

    monkeypatch.setattr(Denoiser, "fit_segments", crowded)
    assert quick(parallel=COUNT).parallel == 1
    assert sizes[0] == COUNT
    assert sizes[-COUNT:] == [1] * COUNT


@pytest.mark.parametrize(("room", "after", "pools"), [(1, 0, [4, 2, 1]), (2, 0, [50, COUNT // 2]), (1, 2, [2, 1])])
def test_where_memory_is_short_half_as_many_segments_are_fitted(
    room: int, after: int, pools: list[int], uninterrupted: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, size: int, **options: Any) -> None:
            sizes.append(size)
            super().__init__(size, **options)

    def crowd(call: int) -> None:
        if sizes[-1] > room and call > after:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(pipeline_run, "ThreadPoolExecutor", Pool)
    intercept(monkeypatch, crowd)
    result = quick(parallel=pools[0])
    assert sizes == [min(size, COUNT) for size in pools]
    assert len(result.notes) == len(pools) - 1
    assert all("memory did not suffice" in note for note in result.notes)
    assert result.parallel == sizes[-1]
    np.testing.assert_array_equal(samples_of(result), uninterrupted)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(CPU_IS_FULL)])
@pytest.mark.parametrize("method", ["pretrain", "fit_segments"])
def test_one_segment_that_does_not_fit_is_an_error(method: str, error: RuntimeError) -> None:
    broken = patch.object(Denoiser, method, side_effect=error)
    with broken, pytest.raises(DeviceError, match=r"--segment.*--base-channels"):
        quick(parallel=4)


class Endless:
    """Noise that nobody holds: samples are drawn as they are read, and readings are written down."""

    rate, channels, subtype, format = RATE, 1, "FLOAT", "WAV"
    length = 12 * RATE

    def __init__(self) -> None:
        self.readings: list[int] = []

    def read(self, start: int, stop: int) -> Samples:
        assert 0 <= start <= stop <= self.length
        self.readings.append(stop - start)
        samples: Samples = 0.1 * np.modf(np.sin(np.arange(start, stop) * 12.9898) * 43_758.5453)[0][None]
        return samples


def test_of_a_long_recording_one_segment_at_a_time_is_read_and_kept(tmp_path: Path) -> None:
    recording, tiny = Endless(), replace(QUICK, base_channels=1, iterations=1, finetune_iterations=1)
    segments = plan(recording, tiny)
    longest = segments[0][1]
    with Store(tmp_path / "partial", dict) as store:
        result = denoise(recording, tiny, device="cpu", parallel=1, store=store)
        assert len(store) == len(result.segments) == len(segments) > 10
        assert longest <= 1.5 * RATE
        assert max(recording.readings) <= BLOCK
        # Once for the level, once for that of each segment, once for the fits, and the few to pretrain on. Blocks in
        # which hum is looked for overlap.
        assert sum(recording.readings) <= (3 * len(segments) + 8) * longest + 4 * recording.length
        read = list(blocks(result.restored))
    assert sum(block.shape[1] for block in read) == recording.length
    assert all(np.isfinite(block).all() for block in read)
