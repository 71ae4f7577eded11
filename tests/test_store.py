"""Stores of finished segments: what went in comes out, and a folder holds whole files of one run or nothing."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dapcli.errors import OutputError, SettingsError
from dapcli.fit import Step
from dapcli.pipeline.store import FittedSegment, FolderStore, MemoryStore, Store
from dapcli.priors import build_prior
from dapcli.tasks import SegmentFit

RUN = {"version": "1", "seed": 0, "noise_profile": (0.0, 0.5), "files": ["ab"]}


def fitted(seed: int = 0) -> FittedSegment:
    """A segment of two channels, whose first criterion is infinite as those of some rules are."""
    fit = SegmentFit(
        rule="windowed-variance",
        rule_reason="asked for",
        best_iteration=2,
        stopped_by="all 2 iterations done",
        seconds=0.1 + seed,
        power=1 / 3,
        noise_std=0.1,
        white_noise=True,
        parameters=123,
        steps=(Step(1, 0.7, math.inf, 0.3), Step(2, 0.1, 1e-12, 0.2)),
        start=12,
        stop=62,
    )
    return FittedSegment(np.random.default_rng(seed).standard_normal((2, 50)).astype(np.float32), fit)


def assert_same(found: FittedSegment | None, kept: FittedSegment) -> None:
    assert found is not None
    assert found.estimate.dtype == np.float32
    np.testing.assert_array_equal(found.estimate, kept.estimate)
    assert found.fit == kept.fit


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else FolderStore(tmp_path / "out.wav.partial", RUN)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that holds segments 0 and 3 of a run, and what its network has learned."""
    store = FolderStore(tmp_path / "out.wav.partial", RUN)
    store.save_weights({"weight": torch.ones(2)})
    store.save(0, fitted(0))
    store.save(3, fitted(3))
    return store.folder


def test_a_new_store_is_empty(store: Store) -> None:
    assert store.load_weights() is None
    assert store.load(0) is None


def test_segments_come_back_with_their_fits(store: Store) -> None:
    for index in (3, 0, 12_345):
        store.save(index, fitted(index))
    for index in (0, 3, 12_345):
        assert_same(store.load(index), fitted(index))
    assert store.load(1) is None
    assert store.load_weights() is None


def test_a_silent_segment_comes_back_without_a_fit(store: Store) -> None:
    silence = FittedSegment(np.zeros((1, 40), np.float32), None)
    store.save(0, silence)
    assert_same(store.load(0), silence)


def test_a_later_segment_takes_the_place_of_an_earlier_one(store: Store) -> None:
    store.save(0, fitted(1))
    store.save(0, fitted(2))
    assert_same(store.load(0), fitted(2))


def test_weights_come_back_so_that_a_network_takes_them(store: Store) -> None:
    network = build_prior("exp-dense", 1, 1, width=2).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    store.save_weights(network.state_dict())
    weights = store.load_weights()
    assert weights is not None
    assert list(weights) == list(network.state_dict())
    for name, values in network.state_dict().items():
        assert torch.equal(weights[name], values)
        assert weights[name].dtype == values.dtype
    build_prior("exp-dense", 1, 1, width=2).load_state_dict(weights)
    assert store.load(0) is None


numbers = st.floats(allow_nan=False)
steps = st.builds(Step, st.integers(1, 2_000), numbers, numbers, numbers)


@settings(max_examples=15, deadline=None)
@given(
    fit=st.builds(SegmentFit, seconds=numbers, power=numbers, noise_std=numbers, steps=st.lists(steps).map(tuple)),
    values=st.lists(st.floats(width=32, allow_nan=False), max_size=20),
)
def test_any_fit_comes_back_from_a_folder_bit_for_bit(
    fit: SegmentFit, values: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("store") / "partial"
    segment = FittedSegment(np.array([values], np.float32), fit)
    FolderStore(path, RUN).save(7, segment)
    assert_same(FolderStore(path, RUN).load(7), segment)


# Folders


def test_a_folder_appears_with_the_first_thing_to_keep(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "partial", RUN)
    assert store.load(0) is None
    assert store.load_weights() is None
    assert len(store) == 0
    assert list(tmp_path.iterdir()) == []
    store.save_weights({"weight": torch.ones(2)})
    assert len(store) == 0
    store.save(4, fitted())
    assert len(store) == 1
    assert not list(tmp_path.rglob("*.part"))


def test_another_process_finds_all_that_was_kept(folder: Path) -> None:
    store = FolderStore(folder, {**RUN, "noise_profile": [0.0, 0.5]})  # JSON has no tuples
    assert len(store) == 2
    assert_same(store.load(0), fitted(0))
    assert_same(store.load(3), fitted(3))
    weights = store.load_weights()
    assert weights is not None
    assert torch.equal(weights["weight"], torch.ones(2))


def test_a_file_that_was_cut_anywhere_counts_as_absent(folder: Path) -> None:
    store = FolderStore(folder, RUN)
    loads: dict[str, Callable[[], object]] = {
        "segment-00000.npz": lambda: store.load(0),
        "weights.npz": store.load_weights,
    }
    for name, load in loads.items():
        data = (folder / name).read_bytes()
        for length in {*range(0, len(data), 23), len(data) - 1}:
            (folder / name).write_bytes(data[:length])
            assert load() is None, f"{name} cut after {length} bytes"
    assert_same(store.load(3), fitted(3))


@pytest.mark.parametrize(
    "garbage", [b"", b"\0" * 4096, b"not an archive\n" * 9, b"PK\x03\x04" + b"\xff" * 200, b"\x93NUMPY\x01\0\xff"]
)
def test_a_file_of_garbage_counts_as_absent(garbage: bytes, folder: Path) -> None:
    store = FolderStore(folder, RUN)
    (folder / "segment-00000.npz").write_bytes(garbage)
    (folder / "weights.npz").write_bytes(garbage)
    assert store.load(0) is None
    assert store.load_weights() is None
    assert_same(store.load(3), fitted(3))


def test_one_wrong_byte_never_makes_another_segment(folder: Path) -> None:
    path = folder / "segment-00000.npz"
    data = path.read_bytes()
    store = FolderStore(folder, RUN)
    absent = 0
    places = {*range(0, len(data), 9), *range(len(data) - 250, len(data), 2)}
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        found = store.load(0)
        if found is None:
            absent += 1
        else:  # it was a date, or another byte that nobody reads
            assert_same(found, fitted(0))
    assert absent > len(places) / 2


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"files": ["ab", "cd"]}, "files"),
        ({"noise_profile": None, "seed": 3}, "noise_profile, seed"),
        ({"width": 16}, "width"),
    ],
)
def test_a_folder_of_another_run_is_refused_by_what_differs(changes: dict[str, Any], named: str, folder: Path) -> None:
    with pytest.raises(SettingsError, match=f"another {named};.*--resume.*--overwrite") as caught:
        FolderStore(folder, {**RUN, **changes})
    assert str(folder) in str(caught.value)


def test_a_run_that_lacks_an_option_of_the_folder_s_is_refused(folder: Path) -> None:
    with pytest.raises(SettingsError, match="another seed;"):
        FolderStore(folder, {name: value for name, value in RUN.items() if name != "seed"})


@pytest.mark.parametrize("text", ["", "{", "{}", "\0" * 100, None])
def test_a_folder_that_does_not_say_whose_it_is_is_refused(text: str | None, folder: Path) -> None:
    (folder / "run.json").unlink()
    if text is not None:
        (folder / "run.json").write_text(text)
    with pytest.raises(SettingsError, match="another files, noise_profile, seed, version;"):
        FolderStore(folder, RUN)


@pytest.mark.parametrize("text", ["[]", "null", "7", '"run"'])
def test_json_that_is_no_run_is_refused_too(text: str, folder: Path) -> None:
    (folder / "run.json").write_text(text)
    with pytest.raises(SettingsError, match="another"):
        FolderStore(folder, RUN)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "partial").write_text("mine")
    with pytest.raises(SettingsError, match="another"):
        FolderStore(tmp_path / "partial", RUN)
    assert (tmp_path / "partial").read_text() == "mine"


def full(*arguments: object, **options: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half_a_file(file: Any, **arrays: object) -> NoReturn:
    file.write(b"PK\x03\x04" + bytes(100))
    full()


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [(np, "savez", half_a_file), (Path, "open", full), (os, "fsync", full), (Path, "replace", full)],
    ids=["savez", "open", "fsync", "replace"],
)
def test_a_full_disk_costs_the_segment_at_hand_only(
    owner: object, name: str, broken: object, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(folder, RUN)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        with pytest.raises(OutputError, match=r"No space left on device.*--resume") as caught:
            store.save(1, fitted(1))
        with pytest.raises(OutputError):
            store.save(0, fitted(9))
    assert str(folder) in str(caught.value)
    for again in (store, FolderStore(folder, RUN)):
        assert len(again) == 2
        assert again.load(1) is None
        assert_same(again.load(0), fitted(0))
        assert_same(again.load(3), fitted(3))
    store.save(1, fitted(1))
    assert_same(store.load(1), fitted(1))


def test_a_disk_that_was_full_at_first_leaves_a_folder_that_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path / "partial", RUN)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError):
            store.save(0, fitted(0))
    assert len(store) == 0
    store.save(0, fitted(0))
    assert json.loads((tmp_path / "partial" / "run.json").read_text())["seed"] == 0
    assert_same(FolderStore(tmp_path / "partial", RUN).load(0), fitted(0))


def test_a_folder_that_cannot_be_made_is_an_error_of_the_output(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="another folder"):
        FolderStore(tmp_path / "missing" / "partial", RUN).save(0, fitted())


def test_removing_leaves_nothing_and_needs_nothing(folder: Path) -> None:
    FolderStore.remove(folder)
    assert list(folder.parent.iterdir()) == []
    FolderStore.remove(folder)
    store = FolderStore(folder, {**RUN, "seed": 9})
    assert store.load(0) is None
