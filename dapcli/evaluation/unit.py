"""Evaluations, and units of them: one clip degraded, restored by one method, and measured."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import dapcli
from dapcli.audio import Samples
from dapcli.errors import DapError, OutputError
from dapcli.evaluation.clips import Clip
from dapcli.evaluation.folder import Folder
from dapcli.evaluation.methods import Method
from dapcli.evaluation.protocols import Case, Protocol, describe, single
from dapcli.fit import choose_dtype, find_device
from dapcli.metrics import score, score_gaps, score_sources
from dapcli.settings import Settings

Unit = tuple[Clip, Method]


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated: clips of so many seconds (None: whole files), degraded by a protocol, and the methods.

    ``settings`` are those of all priors; their seed is that of the degradation, too.
    """

    protocol: Protocol
    settings: Settings
    device: str
    seconds: float | None
    clips: tuple[Clip, ...]
    methods: tuple[Method, ...]

    def case(self, clip: Clip) -> Case:
        """The degraded clip, a function of the seed and the clip's files alone; the same for every method."""
        rng = clip.generator(self.settings.seed)
        return self.protocol.degrade(clip.read(self.seconds, rng), rng)

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
            "settings": settings,
            "device": device.type,
            "dtype": str(choose_dtype(self.settings.precision, device)).removeprefix("torch."),
        }


def restore_unit(evaluation: Evaluation, folder: Folder, unit: Unit) -> str | None:
    """Degrade a clip, restore it, measure what is written of it; returns why that failed."""
    clip, method = unit
    try:
        case = evaluation.case(clip)
        recording = case.problem.recording
        folder.save_case(clip, case.truth, case.problem.samples, recording.rate)
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
        folder.save(clip, method, samples, recording.rate, record)
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
    references, rate, degradation = case.truth, case.problem.rate, case.problem.degradation
    if len(references) > 1:
        scores = score_sources(references, estimate, rate)
        values, notes = (
            {f"{name}_{number}": value for number, each in enumerate(kind, 1) for name, value in each.items()}
            for kind in zip(*scores.sources, strict=True)
        )
        return estimate[list(scores.permutation)], values, notes
    values, notes = score(references[0], estimate[0], rate)
    if degradation is not None and degradation.gaps is not None:
        inside, reasons = score_gaps(references[0], estimate[0], rate, degradation.gaps)
        values |= {f"gaps_{name}": value for name, value in inside.items()}
        notes |= {f"gaps_{name}": reason for name, reason in reasons.items()}
    return estimate, values, notes
