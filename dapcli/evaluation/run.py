"""The run over all clips and methods: what is finished is not done again, and what fails stops nothing else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

import dapcli
from dapcli.audio import Samples
from dapcli.damage.missing import MissingSamples
from dapcli.errors import DapError, DeviceError, OutputError
from dapcli.evaluation.clips import Clip
from dapcli.evaluation.folder import Folder, Record
from dapcli.evaluation.methods import Method, label
from dapcli.evaluation.protocols import Case, Protocol, describe
from dapcli.metrics import score, score_gaps, score_sources
from dapcli.observations import ESTIMATORS, REPAIR_ESTIMATORS
from dapcli.restore import check_settings
from dapcli.settings import Settings


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated: clips of so many seconds, damaged by a protocol, and the methods.

    ``settings`` are those of all priors; their seed is that of the damage, too.
    """

    protocol: Protocol
    settings: Settings
    device: str
    seconds: float
    clips: tuple[Clip, ...]
    methods: tuple[Method, ...]

    def case(self, clip: Clip) -> Case:
        """The damaged clip, a function of the seed and the clip's files alone; the same for every method."""
        rng = clip.generator(self.settings.seed)
        return self.protocol.damage(clip.read(self.seconds, rng), rng)

    def configuration(self) -> dict[str, Any]:
        """All that decides a result besides its clip and its method, as JSON can hold it.

        Raises:
            SettingsError: A setting does not go with the others.
            DeviceError: The device is not there.
        """
        estimators = ESTIMATORS if self.protocol.task == "denoise" else REPAIR_ESTIMATORS
        device, dtype = check_settings(self.settings, self.device, estimators=estimators)
        settings = asdict(self.settings)
        del settings["prior"]
        return {
            "dapcli": dapcli.__version__,
            "task": self.protocol.task,
            "protocol": describe(self.protocol),
            "seed": settings.pop("seed"),
            "duration_s": self.seconds,
            "settings": settings,
            "device": device.type,
            "dtype": str(dtype).removeprefix("torch."),
        }


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


Unit = tuple[Clip, Method]


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
    pending = [unit for unit in units if folder.load(*unit) is None]
    clock = _Clock(units, pending, folder, jobs)
    if on_unit:
        on_unit(clock.progress())
    failures: dict[Unit, str] = {}
    work = _one_by_one(evaluation, folder, pending) if jobs == 1 else _at_once(evaluation, folder, pending, jobs)
    for unit, reason, seconds in work:
        if reason is not None:
            failures[unit] = reason
        if on_unit:
            clock.tick(unit, seconds)
            on_unit(clock.progress())
    return Outcome(
        tuple(record for unit in units if (record := folder.load(*unit)) is not None),
        tuple(
            (clip.name, label(method.name, method.told), failures[clip, method])
            for clip, method in units
            if (clip, method) in failures
        ),
    )


def restore_unit(evaluation: Evaluation, folder: Folder, unit: Unit) -> str | None:
    """Damage a clip, restore it, measure what is written of it; returns why that failed."""
    clip, method = unit
    try:
        case = evaluation.case(clip)
        rate = case.known.recording.rate
        folder.save_case(clip, case.truth.references, case.known.recording.samples, rate)
        started = time.perf_counter()
        # The blind are not even handed what they must not know.
        estimate = method.restore(case.known, None if method.told == "nothing" else case.truth)
        seconds = time.perf_counter() - started
        samples = estimate.samples.astype(np.float32).astype(np.float64)  # as the file holds them
        samples, metrics, notes = measure(case, samples)
        record = {
            "clip": clip.name,
            "files": [str(path) for path in clip.paths],
            "method": method.name,
            "told": method.told,
            "seconds": seconds,
            "metrics": metrics,
            "notes": {**{f"clip_{number}": note for number, note in enumerate(case.notes, 1)}, **notes},
            "fit": estimate.fit,
        }
        folder.save(clip, method, samples, rate, record)
    except (OutputError, MemoryError):
        raise  # a full disk fails all others too
    except DapError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def measure(case: Case, estimate: Samples) -> tuple[Samples, dict[str, float | None], dict[str, str]]:
    """An estimate ``[K, C, N]`` in the order of the references, all its metrics by name, and why others are None.

    Those inside of gaps begin with ``gaps_``; those of several sources end with ``_1`` and so on.
    """
    references, rate, damage = case.truth.references, case.known.recording.rate, case.known.damage
    if len(references) > 1:
        scores = score_sources(references, estimate, rate)
        values, notes = (
            {f"{name}_{number}": value for number, each in enumerate(kind, 1) for name, value in each.items()}
            for kind in zip(*scores.sources, strict=True)
        )
        return estimate[list(scores.permutation)], values, notes
    values, notes = score(references[0], estimate[0], rate)
    if isinstance(damage, MissingSamples):
        inside, reasons = score_gaps(references[0], estimate[0], rate, damage.gaps)
        values |= {f"gaps_{name}": value for name, value in inside.items()}
        notes |= {f"gaps_{name}": reason for name, reason in reasons.items()}
    return estimate, values, notes


Work = Iterator[tuple[Unit, str | None, float]]


def _one_by_one(evaluation: Evaluation, folder: Folder, units: list[Unit]) -> Work:
    for unit in units:
        started = time.perf_counter()
        reason = restore_unit(evaluation, folder, unit)
        yield unit, reason, time.perf_counter() - started


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


class _Clock:
    """Seconds left, from those that each method took so far."""

    def __init__(self, units: list[Unit], pending: list[Unit], folder: Folder, jobs: int) -> None:
        self._total = len(units)
        self._left = [method for _, method in pending]
        self._jobs = jobs
        self._seconds: dict[Method, list[float]] = {}
        for clip, method in set(units) - set(pending):
            record = folder.load(clip, method)
            if record is not None:
                self._seconds.setdefault(method, []).append(record["seconds"])

    def tick(self, unit: Unit, seconds: float) -> None:
        """Take note of a unit that is done."""
        _, method = unit
        self._left.remove(method)
        self._seconds.setdefault(method, []).append(seconds)

    def progress(self) -> Progress:
        """Where the run stands."""
        means = {method: float(np.mean(values)) for method, values in self._seconds.items()}
        left = sum(means[method] for method in self._left) / self._jobs if set(self._left) <= means.keys() else None
        return Progress(self._total - len(self._left), self._total, left)
