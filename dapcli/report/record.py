"""The JSON record of a restoration. Its keys are a contract: keys are added, never renamed (docs/json.md)."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import dapcli
from dapcli.audio import Recording
from dapcli.audio.recording import BLOCK
from dapcli.metrics import GAP_METRICS, METRICS, score, score_gaps
from dapcli.pipeline.result import Result
from dapcli.signal.degradation import TOLERANCE, Degradation
from dapcli.signal.missing import Missing

Record = dict[str, Any]


@dataclass(frozen=True)
class Repair:
    """What was repaired: the degradation, its description, whether it is enforced, and notes on it."""

    degradation: Degradation
    description: Record
    enforced: bool
    notes: tuple[str, ...] = ()


def build_record(
    task: str,
    result: Result,
    *,
    input_path: Path,
    output_path: Path,
    written: Recording,
    gain: float,
    noisy: Recording,
    reference: Recording | None,
    repair: Repair | None = None,
) -> Record:
    """The record of one restored file: everything that decided it, and how well it went.

    ``written`` is the output as its file holds it, scaled by ``gain``; metrics compare it with ``reference`` at its
    original level, for which all are read whole, and are null without a reference.
    """
    notes = notes_of(result)
    if repair:
        notes.update({f"damage_{index}": note for index, note in enumerate(repair.notes, 1)})
    gaps = repair.degradation.gaps if repair and isinstance(repair.degradation, Missing) else None
    metrics: dict[str, dict[str, float | None]] = {}
    inside: dict[str, dict[str, float | None]] = {}
    for key, recording, scale in (("metrics", written, gain), ("metrics_input", noisy, 1.0)):
        if reference is None:
            metrics[key] = dict.fromkeys(METRICS)
            notes[key] = "no --reference was given"
            if gaps:
                inside[_gap_key(key)] = dict.fromkeys(GAP_METRICS)
                notes[_gap_key(key)] = notes[key]
        else:
            clean, samples = (each.read(0, noisy.length) for each in (reference, recording))
            metrics[key], reasons = score(clean, samples / scale, noisy.rate)
            notes.update({f"{key}.{name}": reason for name, reason in reasons.items()})
            if gaps:
                key = _gap_key(key)
                inside[key], reasons = score_gaps(clean, samples / scale, noisy.rate, gaps)
                notes.update({f"{key}.{name}": reason for name, reason in reasons.items()})

    return {
        **describe_run(task, result, written, input_path=input_path, output_path=output_path, gain=gain),
        "noise": {
            "std": result.noise_std,
            "input_snr_db_estimated": result.input_snr_db,
            "white": all(fit.white_noise for fit in result.segments) if result.segments and not repair else None,
        },
        **(_repair(repair, result, written, gain, noisy) if repair else {}),
        **metrics,
        **inside,
        "notes": notes,
    }


def describe_run(
    task: str, result: Result, written: Recording, *, input_path: Path, output_path: Path, gain: float
) -> Record:
    """What the records of all tasks have in common; ``written`` has the format of what was written."""
    return {
        "task": task,
        "input": str(input_path),
        "output": str(output_path),
        "seed": result.settings.seed,
        "device": str(result.device),
        "dtype": str(result.dtype).removeprefix("torch."),
        "sample_rate": written.rate,
        "working_rate": result.rate,
        "channels": written.channels,
        "samples": written.length,
        "format": {"container": written.format, "subtype": written.subtype},
        "stft": {
            "n_fft": result.stft.n_fft,
            "hop": result.stft.hop,
            "window_s": result.stft.n_fft / result.rate,
            "hop_s": result.stft.hop / result.rate,
        },
        "prior": {
            "name": result.settings.prior,
            "parameters": result.segments[0].parameters if result.segments else None,
            "receptive_field": {"seconds": result.receptive_field[0], "hz": result.receptive_field[1]},
        },
        "settings": asdict(result.settings),
        "fit": _fit(result),
        "parallel": result.parallel,
        "post_filter": result.settings.post_filter,
        "gain": gain,
        "seconds": result.seconds,
        "versions": {
            "dapcli": dapcli.__version__,
            "torch": version("torch"),
            "torchaudio": version("torchaudio"),
            "python": platform.python_version(),
        },
    }


def notes_of(result: Result) -> dict[str, str]:
    """What a result notes about its run, by the keys of a record."""
    return {f"restore_{index}": note for index, note in enumerate(result.notes, 1)}


def _gap_key(key: str) -> str:
    return key.replace("metrics", "metrics_gaps", 1)


def _repair(repair: Repair, result: Result, written: Recording, gain: float, damaged: Recording) -> Record:
    """What was wrong, what guided the network, and how consistent its estimate and the output are with the input."""
    outside = 0
    for start in range(0, written.length, BLOCK):
        stop = min(start + BLOCK, written.length)
        samples = written.read(start, stop) / gain
        nearest = repair.degradation.part(start, stop).project(samples, damaged.read(start, stop))
        outside += int((np.abs(nearest - samples) > TOLERANCE).sum())
    return {
        "degradation": repair.description,
        "consistency": {
            "enforced": repair.enforced,
            "outside_before": result.outside,
            "outside": outside / (written.length * written.channels),
        },
        "guide": repair.degradation.initial_estimate,
    }


def _fit(result: Result) -> Record:
    """Totals over all fits, the loss as the mean over segments, and each segment by itself."""
    fits = result.segments
    seconds = sum(fit.seconds for fit in fits) + result.learning_seconds
    iterations = sum(len(fit.steps) for fit in fits) + len(result.learning)
    return {
        "iterations": iterations,
        "best_iteration": fits[0].best_iteration if len(fits) == 1 else None,
        "stopped_by": "; ".join(sorted({f"{fit.rule}: {fit.stopped_by}" for fit in fits})) or None,
        "rule_reason": "; ".join(sorted({fit.rule_reason for fit in fits})) or None,
        "seconds": seconds,
        "iterations_per_second": iterations / seconds if seconds else None,
        "loss": sum(fit.steps[-1].loss for fit in fits) / len(fits) if fits else None,
        "segments": [
            {
                "start_s": fit.start / result.restored.rate,
                "stop_s": fit.stop / result.restored.rate,
                "iterations": len(fit.steps),
                "best_iteration": fit.best_iteration,
                "stopped_by": f"{fit.rule}: {fit.stopped_by}",
                "seconds": fit.seconds,
                "loss": fit.steps[-1].loss,
                "noise_std": fit.noise_std,
            }
            for fit in fits
        ],
    }


def to_json(record: Record) -> str:
    """The record as JSON text, in ASCII, for a path may have bytes or letters that a file or terminal refuses.

    NaN and infinity, which JSON does not have, are refused.
    """
    return json.dumps(record, indent=2, allow_nan=False) + "\n"
