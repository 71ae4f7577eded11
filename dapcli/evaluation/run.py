"""The run over all clips and methods: what is finished is not done again, and what fails stops nothing else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np
import torch

from dapcli.errors import DeviceError
from dapcli.evaluation.folder import Folder, Record
from dapcli.evaluation.methods import Method, label
from dapcli.evaluation.unit import Evaluation, Unit, restore_unit


@dataclass(frozen=True)
class Progress:
    """How many of all units are done, and seconds that the others will take as far as one can know."""

    done: int
    total: int
    left: float | None


@dataclass(frozen=True)
class Outcome:
    """Records of finished units in the order of clips and methods, and of each that failed its names and reason."""

    records: tuple[Record, ...]
    failures: tuple[tuple[str, str, str], ...]


def run(evaluation: Evaluation, folder: Folder, *, jobs: int, on_unit: Callable[[Progress], None] | None) -> Outcome:
    """Do all units that are not finished in the folder, ``jobs`` of them at the same time, each in a process.

    Args:
        evaluation: What to do.
        folder: Where finished units are, and are kept.
        jobs: With 1, units are done in this process.
        on_unit: Called at the beginning and after every unit.

    Raises:
        OutputError: The folder cannot be written.
        DeviceError: A process died, most likely for lack of memory.
    """
    units = [(clip, method) for clip in evaluation.clips for method in evaluation.methods]
    finished = {unit: record for unit in units if (record := folder.load(*unit)) is not None}
    pending = [unit for unit in units if unit not in finished]
    seconds: dict[Method, list[float]] = {}
    for (_, method), record in finished.items():
        seconds.setdefault(method, []).append(record["seconds"])
    left = [method for _, method in pending]
    reasons: dict[Unit, str] = {}
    report = on_unit or (lambda _: None)
    report(_progress(len(units), left, seconds, jobs))
    work = _one_by_one(evaluation, folder, pending) if jobs == 1 else _at_once(evaluation, folder, pending, jobs)
    for unit, reason, taken in work:
        if reason is not None:
            reasons[unit] = reason
        left.remove(unit[1])
        seconds.setdefault(unit[1], []).append(taken)
        report(_progress(len(units), left, seconds, jobs))
    return Outcome(
        tuple(record for unit in units if (record := folder.load(*unit)) is not None),
        tuple(
            (clip.name, label(method.name, method.oracle), reasons[clip, method])
            for clip, method in units
            if (clip, method) in reasons
        ),
    )


def _progress(total: int, left: list[Method], seconds: Mapping[Method, list[float]], jobs: int) -> Progress:
    """Where a run stands, by the methods of the units that are left and the seconds that each took so far."""
    known = set(left) <= seconds.keys()
    rest = sum(float(np.mean(seconds[method])) for method in left) / jobs if known else None
    return Progress(total - len(left), total, rest)


Work = Iterator[tuple[Unit, str | None, float]]


def _one_by_one(evaluation: Evaluation, folder: Folder, units: list[Unit]) -> Work:
    for unit in units:
        yield unit, *_timed(evaluation, folder, unit)


def _at_once(evaluation: Evaluation, folder: Folder, units: list[Unit], jobs: int) -> Work:
    threads = max(torch.get_num_threads() // jobs, 1)
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    pool = ProcessPoolExecutor(min(jobs, max(len(units), 1)), context, initializer=_begin, initargs=(threads,))
    try:
        futures = {pool.submit(_timed, evaluation, folder, unit): unit for unit in units}
        for future in as_completed(futures):
            yield futures[future], *future.result()
    except BrokenProcessPool as error:
        raise DeviceError(
            "a process died, most likely for lack of memory; repeat the command with fewer --jobs"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():  # nobody waits for what they are at
            process.terminate()


def _timed(evaluation: Evaluation, folder: Folder, unit: Unit) -> tuple[str | None, float]:
    started = time.perf_counter()
    return restore_unit(evaluation, folder, unit), time.perf_counter() - started


def _begin(threads: int) -> None:
    """Prepare a process: Ctrl-C is for its parent, without which it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
