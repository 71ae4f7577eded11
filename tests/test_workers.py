"""Calls in processes side by side: what they return, and what becomes of those whose process dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from dapcli.errors import DeviceError
from dapcli.pipeline.workers import HERE, Workers, postpone, start_workers


def double(item: int) -> int:
    return 2 * item


def process_of(item: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def die(item: Path) -> str:
    """Die always, once, or not at all, as the file's name says; a file is made at every call."""
    calls = len(list(item.parent.glob(f"{item.name}.*")))
    item.with_name(f"{item.name}.{calls}").touch()
    if item.name == "always" or (item.name == "once" and not calls):
        os.kill(os.getpid(), signal.SIGKILL)
    return item.name


def refuse(item: int) -> None:
    raise ValueError(f"not {item}")


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with start_workers(2) as started:
        yield started


def test_every_item_comes_back_with_its_result_from_processes_that_stay(workers: Workers) -> None:
    assert dict(workers.map(double, range(20))) == dict(HERE.map(double, range(20))) == {n: 2 * n for n in range(20)}
    processes = {result for _, result in workers.map(process_of, range(12))}
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert processes == {result for _, result in workers.map(process_of, range(6))}


def test_items_are_taken_as_they_are_needed(workers: Workers) -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(1_000):
            taken.append(item)
            yield item

    results = workers.map(double, items())
    for _ in range(10):
        next(results)
    assert len(taken) < 20


def test_what_a_call_raises_is_raised(workers: Workers) -> None:
    with pytest.raises(ValueError, match="not 1"):
        list(workers.map(refuse, [1]))
    assert list(workers.map(double, [1])) == [(1, 2)]


def test_a_process_that_dies_is_replaced_and_takes_no_other_item_with_it(workers: Workers, tmp_path: Path) -> None:
    items = [tmp_path / name for name in ("a", "always", "b", "once", "c", "d")]
    results = {item.name: result for item, result in workers.map(die, items)}
    assert isinstance(results.pop("always"), DeviceError)
    assert results == {name: name for name in ("a", "b", "once", "c", "d")}
    calls = {item.name: len(list(tmp_path.glob(f"{item.name}.*"))) for item in items}
    assert calls == {"a": 1, "always": 2, "b": 1, "once": 2, "c": 1, "d": 1}


class Raising:
    """An object that a signal meets in its destructor, which drops all exceptions."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_an_interruption_is_not_lost_in_a_destructor() -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        if not postpone(number, frame, test_an_interruption_is_not_lost_in_a_destructor):
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the second line waits for it
            Raising()
            time.sleep(5)
    finally:
        signal.signal(signal.SIGINT, before)
