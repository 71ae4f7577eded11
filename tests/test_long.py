"""Recordings of many segments: any store, any interruption and any number at a time lead to the same restoration."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dapcli import Audio, Progress, Settings, denoise, task
from dapcli.audio.recording import blocks as recording_blocks
from dapcli.errors import DeviceError, SettingsError
from dapcli.metrics.waveform import snr_db
from dapcli.pipeline.result import Result
from dapcli.pipeline.run import plan, with_sound
from dapcli.pipeline.store import FittedSegment, FolderStore, MemoryStore, Store
from dapcli.settings import PRESETS
from dapcli.tasks import Denoiser, Engine

RATE = 8_000
ROOT = Path(__file__).parent.parent
QUICK = Settings(prior="conv", width=2, iterations=2, refinement=2, segment=1.5, hop=0.03)
CPU_IS_FULL = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
)


def noisy_tone(seconds: float) -> Audio:
    """A tone that swells, in white noise."""
    t = np.arange(round(seconds * RATE)) / RATE
    tone = 0.3 * np.sin(2 * np.pi * 440 * t) * np.sin(np.pi * t / seconds)
    return Audio(tone[None] + 0.1 * np.random.default_rng(0).standard_normal((1, len(t))), RATE)


RECORDING = noisy_tone(4.0)
COUNT = len(plan(RECORDING, QUICK))


def quick(*, settings: Settings = QUICK, parallel: int = 1, **options: Any) -> Result:
    return denoise(RECORDING, settings, device="cpu", parallel=parallel, **options)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Networks as small as these are slower on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    threads = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= threads


@pytest.fixture(scope="module")
def uninterrupted() -> np.ndarray:
    return quick().audio.samples


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else FolderStore(tmp_path / "partial", {})


def missing(store: Store) -> set[int]:
    return {index for index in range(COUNT) if store.load(index) is None}


def interrupt_at(segment: int | None) -> Callable[[Progress], None]:
    def on_step(progress: Progress) -> None:
        if progress.segment == segment:
            raise KeyboardInterrupt

    return on_step


# Stores and interruptions


def test_the_store_does_not_matter(store: Store, uninterrupted: np.ndarray) -> None:
    result = quick(store=store)
    np.testing.assert_array_equal(result.audio.samples, uninterrupted)
    assert missing(store) == set()
    assert [(fit.start, fit.stop) for fit in result.segments] == plan(RECORDING, QUICK)


@pytest.mark.parametrize("segment", [0, 1, COUNT - 1])
def test_an_interrupted_run_goes_on_to_the_same_bits(segment: int, store: Store, uninterrupted: np.ndarray) -> None:
    with pytest.raises(KeyboardInterrupt):
        quick(store=store, on_step=interrupt_at(segment))
    left = missing(store)
    assert left.isdisjoint(range(segment))
    seen: list[Progress] = []
    result = quick(store=store, on_step=seen.append)
    np.testing.assert_array_equal(result.audio.samples, uninterrupted)
    assert {progress.segment for progress in seen} == left
    assert len(result.segments) == COUNT


def test_a_run_that_is_interrupted_while_learning_learns_again(store: Store, uninterrupted: np.ndarray) -> None:
    with pytest.raises(KeyboardInterrupt):
        quick(store=store, on_step=interrupt_at(None))
    assert store.load_weights() is None
    np.testing.assert_array_equal(quick(store=store).audio.samples, uninterrupted)


def test_a_finished_run_is_not_fitted_again(store: Store, uninterrupted: np.ndarray) -> None:
    quick(store=store)
    seen: list[Progress] = []
    result = quick(store=store, on_step=seen.append)
    assert seen == []
    assert result.learning_seconds == 0
    np.testing.assert_array_equal(result.audio.samples, uninterrupted)


def test_a_segment_that_cannot_be_read_is_fitted_again(tmp_path: Path, uninterrupted: np.ndarray) -> None:
    quick(store=FolderStore(tmp_path / "partial", {}))
    path = tmp_path / "partial" / "segment-00002.npz"
    path.write_bytes(path.read_bytes()[:-30])
    seen: list[Progress] = []
    result = quick(store=FolderStore(tmp_path / "partial", {}), on_step=seen.append)
    assert {progress.segment for progress in seen} == {2}
    np.testing.assert_array_equal(result.audio.samples, uninterrupted)


def test_progress_of_the_next_run_begins_where_the_last_one_ended(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt):
        quick(store=store, on_step=interrupt_at(1))
    left = len(missing(store))
    seen: list[Progress] = []
    quick(store=store, on_step=seen.append)
    total = 2 + 2 * COUNT
    assert [progress.completed for progress in seen] == list(range(total - 2 * left + 1, total + 1))
    assert {progress.total for progress in seen} == {total}


def test_progress_counts_what_was_shown_however_far_the_fit_is_ahead() -> None:
    """The caller looks at a segment's first step only when the segment has been kept."""
    kept = threading.Event()

    class Announcing(MemoryStore):
        def save(self, index: int, segment: FittedSegment) -> None:
            super().save(index, segment)
            kept.set()

    seen: list[int] = []

    def on_step(progress: Progress) -> None:
        if progress.segment == 0:
            assert kept.wait(60)
        seen.append(progress.completed)

    quick(store=Announcing(), on_step=on_step)
    assert seen == list(range(1, 2 + 2 * COUNT + 1))


@pytest.mark.parametrize("rate", [8_000, 8_001, 8_002, 8_003, 11_025, 44_103])
def test_the_shortest_segments_are_planned_at_any_rate(rate: int) -> None:
    """Half a second and one and a half are both rounded to samples, and three overlaps must still fit."""
    silence = Audio(np.broadcast_to(0.0, (1, 5 * rate)), rate)
    segments = plan(silence, QUICK)
    assert (segments[0][0], segments[-1][1]) == (0, 5 * rate)
    for (_, stop), (start, _) in pairwise(segments):
        assert stop - start == pytest.approx(rate / 2, abs=2)


# Several segments at a time


def test_two_at_a_time_do_what_one_does(uninterrupted: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)
    fit_segment = Engine.fit_segment

    def together(self: Engine, *arguments: Any, **options: Any) -> Any:
        both.wait(60)  # breaks unless two fits run at once
        return fit_segment(self, *arguments, **options)

    monkeypatch.setattr(Engine, "fit_segment", together)
    assert COUNT % 2 == 0
    seen: list[tuple[int, Progress]] = []
    results = [
        quick(parallel=2, on_step=lambda progress: seen.append((threading.get_ident(), progress))) for _ in range(2)
    ]
    assert {thread for thread, _ in seen} == {threading.get_ident()}
    assert {progress.segment for _, progress in seen} == {None, *range(COUNT)}
    assert results[0].parallel == 2
    assert results[0].notes == ()
    np.testing.assert_array_equal(results[0].audio.samples, results[1].audio.samples)
    np.testing.assert_allclose(results[0].audio.samples, uninterrupted, rtol=0, atol=1e-3)


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("end", [None, "on_step", "fit", "memory"])
def test_fits_share_torch_s_threads_and_give_them_back(end: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    fit_segment = Engine.fit_segment

    def watched(self: Engine, *arguments: Any, **options: Any) -> Any:
        seen.add(torch.get_num_threads())
        if end == "fit":
            raise ZeroDivisionError
        if end == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return fit_segment(self, *arguments, **options)

    def on_step(progress: Progress) -> None:
        if end == "on_step":
            raise ZeroDivisionError

    monkeypatch.setattr(Engine, "fit_segment", watched)
    anew = replace(QUICK, refinement=0, iterations=1)
    if end is None:
        quick(settings=anew, parallel=2, on_step=on_step)
    else:
        with pytest.raises((ZeroDivisionError, DeviceError)):
            quick(settings=anew, parallel=2, on_step=on_step)
    assert seen == ({1, 2} if end == "memory" else {1})
    assert torch.get_num_threads() == 2


def test_a_fit_in_a_new_thread_has_the_bits_of_one_that_is_not_the_first_there() -> None:
    """A run that goes on begins in a new thread, which has to be told how many threads torch may use."""
    code = """
import numpy as np, torch
from tests.test_long import MemoryStore, quick

torch.set_num_threads(1)
whole, rest = MemoryStore(), MemoryStore()
quick(store=whole)
rest.save_weights(whole.load_weights())
rest.save(0, whole.load(0))
quick(store=rest)
print([whole.load(index).fit.steps == rest.load(index).fit.steps for index in range(4)])
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    run = subprocess.run(
        [sys.executable, "-B", "-c", code], capture_output=True, text=True, check=False, env=environment, cwd=ROOT
    )
    assert (run.stdout, run.stderr) == ("[True, True, True, True]\n", "")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("a surprise"), RuntimeError("a bug")])
@pytest.mark.parametrize("parallel", [1, 3])
def test_an_error_of_the_caller_s_ends_every_thread(parallel: int, error: BaseException) -> None:
    calls = []

    def on_step(progress: Progress) -> None:
        calls.append(progress)
        if progress.segment is not None:
            raise error

    endless = replace(QUICK, refinement=10**6)
    with pytest.raises(type(error)) as caught:
        quick(settings=endless, parallel=parallel, on_step=on_step)
    assert caught.value is error
    assert len(calls) == 3  # two of learning, and one after which no other came


def fail_at(call: int, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    fit_segment = Engine.fit_segment
    calls: list[None] = []

    def failing(self: Engine, *arguments: Any, **options: Any) -> Any:
        calls.append(None)
        if len(calls) == call:
            raise error
        return fit_segment(self, *arguments, **options)

    monkeypatch.setattr(Engine, "fit_segment", failing)


@pytest.mark.parametrize("parallel", [1, 2])
def test_an_error_of_a_fit_is_raised_as_it_is(parallel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    fail_at(2, error, monkeypatch)
    with pytest.raises(RuntimeError) as caught:
        quick(parallel=parallel)
    assert caught.value is error


class Room:
    """A device with memory for ``room`` fits at a time; every further one fails like torch."""

    def __init__(self, room: int, monkeypatch: pytest.MonkeyPatch, after: int = 0) -> None:
        self.pools: list[int] = []
        self.fits = 0
        sizes, fit_segment = self.pools, Engine.fit_segment

        class Pool(ThreadPoolExecutor):
            def __init__(self, size: int, **options: Any) -> None:
                sizes.append(size)
                super().__init__(size, **options)

        def crowded(engine: Engine, *arguments: Any, **options: Any) -> Any:
            self.fits += 1
            if sizes[-1] > room and self.fits > after:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            return fit_segment(engine, *arguments, **options)

        monkeypatch.setattr(task, "ThreadPoolExecutor", Pool)
        monkeypatch.setattr(Engine, "fit_segment", crowded)


@pytest.mark.parametrize(
    ("parallel", "room", "pools", "said"),
    [
        (4, 4, [4], []),
        (4, 2, [4, 2], ["2 segments"]),
        (4, 1, [4, 2, 1], ["2 segments", "one segment"]),
        (3, 2, [3, 1], ["one segment"]),
        (50, 2, [COUNT, COUNT // 2], [f"{COUNT // 2} segments"]),
    ],
)
def test_where_memory_is_short_fewer_segments_are_fitted_at_a_time(
    parallel: int,
    room: int,
    pools: list[int],
    said: list[str],
    uninterrupted: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Room(room, monkeypatch)
    result = quick(parallel=parallel)
    assert device.pools == pools
    assert result.notes == tuple(f"memory did not suffice for more than {many} at a time" for many in said)
    assert result.parallel == pools[-1]
    assert len(result.segments) == COUNT
    np.testing.assert_allclose(result.audio.samples, uninterrupted, rtol=0, atol=1e-3)


def test_what_was_finished_before_memory_ran_out_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Room(1, monkeypatch, after=2)
    saved: list[int] = []

    class Watched(MemoryStore):
        def save(self, index: int, segment: FittedSegment) -> None:
            saved.append(index)
            super().save(index, segment)

    result = quick(parallel=2, store=Watched())
    assert device.pools == [2, 1]
    assert sorted(saved) == list(range(COUNT))
    assert len(result.segments) == COUNT


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(CPU_IS_FULL)])
@pytest.mark.parametrize("method", ["learn", "fit_segment"])
def test_one_segment_that_does_not_fit_names_the_options_that_help(
    method: str, error: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(Denoiser, method, fail)
    with pytest.raises(DeviceError, match=r"--segment.*--width"):
        quick(parallel=4)


# Quality


def test_sound_that_comes_late_is_restored_as_well_as_if_every_segment_were_fitted_anew() -> None:
    """The network learns from the loudest segments: from the first ones, all noise, it would learn to be silent."""
    t = np.arange(round(2.5 * RATE)) / RATE
    start = np.floor(t * 4) / 4
    pitch = 220 * 2 ** ((np.floor(t * 4) % 5) / 5)
    tone = sum(np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, 6))
    late = (0.3 * tone * np.exp(-5 * (t - start)))[None]
    clean = np.concatenate([np.zeros((1, round(7.5 * RATE))), late], axis=1)
    noisy = clean + 0.05 * np.random.default_rng(0).standard_normal(clean.shape)
    settings = replace(PRESETS["fast"], iterations=25, refinement=6, segment=1.5, hop=0.03)
    result = denoise(Audio(noisy, RATE), settings, device="cpu")
    assert len(result.segments) >= 10
    refined = result.audio.samples[:, -late.shape[1] :]
    heard = noisy[:, -late.shape[1] :]
    anew = denoise(Audio(heard, RATE), replace(settings, refinement=0), device="cpu").audio.samples
    assert snr_db(late, anew, RATE) > snr_db(late, heard, RATE) + 3
    assert snr_db(late, refined, RATE) > snr_db(late, anew, RATE) - 1


# Memory


class Endless:
    """A minute of noise that nobody holds: samples are drawn as they are read, and readings are written down."""

    rate, channels, subtype, format = RATE, 1, "FLOAT", "WAV"
    length = 61 * RATE

    def __init__(self) -> None:
        self.readings: list[int] = []
        self.threads: set[int] = set()

    def read(self, start: int, stop: int) -> np.ndarray:
        assert 0 <= start <= stop <= self.length
        self.readings.append(stop - start)
        n = np.arange(start, stop, dtype=np.float64)
        return 0.1 * np.modf(np.sin(n * 12.9898) * 43_758.5453)[0][None]


def test_of_a_long_recording_one_segment_at_a_time_is_read_and_kept(tmp_path: Path) -> None:
    recording = Endless()
    settings = replace(QUICK, width=1, iterations=1, refinement=1)
    store = FolderStore(tmp_path / "partial", {})
    result = denoise(recording, settings, device="cpu", parallel=1, store=store)
    segments = plan(recording, settings)
    longest = max(stop - start for start, stop in segments)
    assert len(store) == len(result.segments) == len(segments) >= 60
    assert max(recording.readings) <= longest <= 1.5 * RATE
    # Once for the levels, once for the fits, and the few to learn from.
    assert sum(recording.readings) <= 2.2 * len(segments) * longest
    blocks = list(recording_blocks(result.restored))
    assert sum(block.shape[1] for block in blocks) == recording.length
    assert all(np.isfinite(block).all() for block in blocks)


def test_the_network_learns_from_segments_with_sound() -> None:
    assert with_sound([0.0, 0.01, 0.01, 0.5, 0.0101, 0.4]) == [3, 5]  # pauses with noise, and digital silence
    assert with_sound([0.9, 1.0, 1.1]) == [0, 1, 2]  # steady music: none may be noise
    assert with_sound([float(power) for power in range(1, 100)]) == list(range(91, 99))
    assert with_sound([0.0, 2.0]) == [1]


def test_parallel_below_one_is_refused() -> None:
    with pytest.raises(SettingsError, match="--parallel"):
        denoise(Audio(np.ones((1, 100)), 8_000), parallel=0)
