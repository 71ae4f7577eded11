"""The run over all clips and methods: what is finished is not done again, and what fails stops nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

import dapcli
from dapcli.audio import Audio, Samples, resample
from dapcli.errors import DapError, DeviceError, OutputError
from dapcli.evaluation.clips import Clip
from dapcli.evaluation.folder import Folder, Record
from dapcli.evaluation.methods import Method, label
from dapcli.evaluation.protocols import Case, Protocol, describe, single
from dapcli.fit import choose_dtype, find_device
from dapcli.metrics import score_all
from dapcli.pipeline.cluster import SHARE, join_cluster
from dapcli.pipeline.workers import HERE, Progress, Workers, start_workers
from dapcli.settings import Settings

#: One clip and what restores it.
Unit = tuple[Clip, Method]


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated: clips of so many seconds (None: whole files), degraded by a protocol, and the methods.

    ``settings`` are those of all priors; their seed is that of the degradation, too. Clips are brought to a ``rate`` in
    Hz, or keep their own.
    """

    protocol: Protocol
    settings: Settings
    device: str
    seconds: float | None
    clips: tuple[Clip, ...]
    methods: tuple[Method, ...]
    rate: int | None = None

    def case(self, clip: Clip) -> Case:
        """The degraded clip, a function of the seed and the clip's files alone; the same for every method."""
        rng = clip.generator(self.settings.seed)
        clean = clip.read(self.seconds, rng)
        if self.rate:
            clean = [Audio(resample(each.samples, each.rate, self.rate), self.rate) for each in clean]
        return self.protocol.degrade(clean, rng)

    def configuration(self) -> dict[str, Any]:
        """All that decides a result besides its clip and its method, as JSON can hold it.

        Raises:
            DeviceError: The device is not there.
        """
        device, settings = find_device(self.device), asdict(self.settings)
        del settings["prior"]
        return {
            "dapcli": dapcli.__version__,
            "task": self.protocol.task,
            "protocol": describe(self.protocol),
            "seed": settings.pop("seed"),
            "duration_s": self.seconds,
            "rate": self.rate,
            "settings": settings,
            "device": device.type,
            "dtype": str(choose_dtype(self.settings.precision, device)).removeprefix("torch."),
        }


@dataclass(frozen=True)
class Outcome:
    """Records of finished units in the order of clips and methods, and of each that failed its names and reason."""

    records: tuple[Record, ...]
    failures: tuple[tuple[str, str, str], ...]


def run(
    evaluation: Evaluation,
    folder: Folder,
    *,
    jobs: int | None = None,
    cluster: str | None = None,
    on_unit: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Do all units that are not finished in the folder, ``jobs`` of them at the same time.

    Args:
        evaluation: What to do.
        folder: Where finished units are, and are kept.
        jobs: With 1, or None, units are done in this process, with more each in one of its own.
        cluster: The address of a Ray cluster to do them on; without ``jobs``, one on each core.
        on_unit: Called at the beginning and after every unit.

    Raises:
        OutputError: The folder cannot be written.
        DeviceError: The cluster cannot be reached any more.
    """
    units = [(clip, method) for clip in evaluation.clips for method in evaluation.methods]
    seconds: dict[Method, list[float]] = {}
    pending: list[Unit] = []
    for unit in units:
        if record := folder.load(*unit):
            seconds.setdefault(unit[1], []).append(record["seconds"])
        else:
            pending.append(unit)
    left, at_once = [method for _, method in pending], jobs or 1
    reasons: dict[Unit, str] = {}

    def tell() -> None:
        known = set(left) <= seconds.keys()
        rest = sum(float(np.mean(seconds[method])) for method in left) / at_once if known else None
        if on_unit:
            on_unit(Progress(len(units) - len(left), len(units), rest))

    tell()
    starting: AbstractContextManager[Workers] = nullcontext(HERE)
    if pending and cluster:
        starting = join_cluster(cluster, jobs, lambda _: 0.0 if evaluation.device == "cpu" else SHARE)
    elif pending and at_once > 1:
        starting = start_workers(min(at_once, len(pending)))
    with starting as workers:
        at_once = workers.width
        for unit, done in workers.map(partial(_do, evaluation, folder), pending):
            reason, taken = (str(done), 0.0) if isinstance(done, DeviceError) else done
            if reason is not None:
                reasons[unit] = reason
            left.remove(unit[1])
            seconds.setdefault(unit[1], []).append(taken)
            tell()
    failed = [(*unit, reasons[unit]) for unit in units if unit in reasons]
    return Outcome(
        tuple(record for unit in units if (record := folder.load(*unit)) is not None),
        tuple((clip.name, label(method.name, method.oracle), reason) for clip, method, reason in failed),
    )


def restore_unit(evaluation: Evaluation, folder: Folder, unit: Unit) -> str | None:
    """Degrade a clip, restore it, measure what is written of it; returns why that failed."""
    clip, method = unit
    try:
        case = evaluation.case(clip)
        folder.save_case(clip, case.truth, case.problem.samples, case.problem.rate)
        started = time.perf_counter()
        # The blind are not even handed what they must not know.
        estimate = method.restore(case.problem, case.truth if method.oracle in ("noise", "reference") else None)
        seconds = time.perf_counter() - started
        samples, metrics, notes = measure(case, single(estimate.samples))
        record = {
            "clip": clip.name,
            "files": [str(path) for path in clip.paths],
            "method": method.name,
            "oracle": method.oracle,
            "seconds": seconds,
            "metrics": metrics,
            "notes": {**{f"clip_{number}": note for number, note in enumerate(case.notes, 1)}, **notes},
            "fit": estimate.fit,
        }
        folder.save(clip, method, samples, case.problem.rate, record)
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
    references, degradation = case.truth, case.problem.degradation
    scores = score_all(references, estimate, case.problem.rate, gaps=degradation and degradation.gaps)
    suffixes = [f"_{number}" for number in range(1, len(references) + 1)] if len(references) > 1 else [""]
    values: dict[str, float | None] = {}
    notes: dict[str, str] = {}
    for suffix, (found, reasons) in zip(suffixes, scores.sources, strict=True):
        values |= {name + suffix: value for name, value in found.items()}
        notes |= {name + suffix: reason for name, reason in reasons.items()}
    return estimate[list(scores.permutation)], values, notes


def _do(evaluation: Evaluation, folder: Folder, unit: Unit) -> tuple[str | None, float]:
    """Why a unit failed if it did, and the seconds that it took."""
    started = time.perf_counter()
    return restore_unit(evaluation, folder, unit), time.perf_counter() - started
