"""The JSON record of a run. Its keys are a contract: keys are added, never renamed (docs/json.md)."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import dapcli
from dapcli.audio import Recording, Samples
from dapcli.audio.recording import BLOCK
from dapcli.audio.writing import keeps_samples
from dapcli.metrics import GAP_METRICS, METRICS, SOURCE_METRICS, Scores, score, score_gaps, score_sources
from dapcli.pipeline.result import Estimates, Result
from dapcli.pipeline.solver import SegmentFit
from dapcli.priors import NO_PRIOR
from dapcli.signal.degradation import TOLERANCE
from dapcli.tasks.problem import Problem

Record = dict[str, Any]
References = Mapping[Path, Recording]

_NO_REFERENCE = "no --reference was given"


def build_record(
    task: str,
    problem: Problem[Any],
    result: Result,
    *,
    input_path: Path,
    outputs: Mapping[str, Path],
    output_path: Path,
    written: Estimates,
    references: References,
    fixed_order: bool = False,
) -> Record:
    """The record of one run: everything that decided it, and how well it went.

    Args:
        task: The name of the task.
        problem: What was restored or separated.
        result: What came out.
        input_path: The file of the recording.
        outputs: The file of every estimate by name.
        output_path: The one file of a restoration, or the folder of a separation.
        written: The estimates as their files hold them.
        references: The clean recordings by their files, compared with what is written at their level, for which all
            are read whole. Without any the metrics are null.
        fixed_order: Compare the sources of a separation with the references in their order, and not in the best.
    """
    settings, stft = result.settings, result.stft
    notes = {f"restore_{index}": note for index, note in enumerate(result.notes, 1)}
    notes |= {f"degradation_{index}": note for index, note in enumerate(problem.notes, 1)}
    if len(written) > 1:
        known = _separation(problem, outputs, written, references, notes, fixed_order)
    else:
        known = _restoration(problem, result, written, references, notes)
    seconds, hz = (None, None) if settings.prior == NO_PRIOR else result.receptive_field
    white = None if result.noise_std is None else all(fit.white_noise for fit in result.segments)
    versions = {name: version(name) for name in ("torch", "torchaudio")}
    return {
        "task": task,
        "input": str(input_path),
        "output": str(output_path),
        "seed": settings.seed,
        "device": str(result.device),
        "dtype": str(result.dtype).removeprefix("torch."),
        "sample_rate": written.rate,
        "working_rate": result.rate,
        "channels": written.channels,
        "samples": written.length,
        "format": {"container": written.format, "subtype": written.subtype},
        "stft": {**asdict(stft), "window_s": stft.n_fft / result.rate, "hop_s": stft.hop / result.rate},
        "prior": {
            "name": settings.prior,
            "parameters": result.segments[0].parameters if result.segments else None,
            "receptive_field": {"seconds": seconds, "hz": hz},
        },
        "settings": asdict(settings),
        "fit": _fit(result),
        "parallel": result.parallel,
        "post_filter": settings.post_filter,
        "gain": written.gain,
        "seconds": result.seconds,
        "versions": {"dapcli": dapcli.__version__, **versions, "python": platform.python_version()},
        "noise": {"std": result.noise_std, "input_snr_db_estimated": result.input_snr_db, "white": white},
        **known,
        "notes": notes,
    }


def _restoration(
    problem: Problem[Any], result: Result, written: Estimates, references: References, notes: dict[str, str]
) -> Record:
    """What was wrong, how consistent the output is with what is known of it, and its metrics; adds to ``notes``."""
    degradation, known = problem.degradation, Record()
    if degradation is not None:
        inconsistent = 0
        for start, observed, estimates in _blocks(problem, written):
            nearest = degradation.part(start, start + observed.shape[1]).project(estimates[0], observed)
            inconsistent += int((np.abs(nearest - estimates[0]) > TOLERANCE).sum())
        known = {
            "degradation": {**degradation.describe(problem.recording), "source": problem.source},
            "consistency": {
                "enforced": problem.consistent,
                "inconsistent_before": result.inconsistent,
                "inconsistent": inconsistent / (written.length * written.channels),
            },
            "initial_estimate": degradation.initial_estimate,
        }
    metrics: dict[str, tuple[Iterable[str], Callable[..., Scores]]] = {"metrics": (METRICS, score)}
    if gaps := degradation and degradation.gaps:
        metrics["metrics_gaps"] = GAP_METRICS, partial(score_gaps, gaps=gaps)
    compared: list[tuple[Samples, Samples]] = []
    for reference in references.values():
        clean = reference.read(0, reference.length)
        compared = [(clean, written.read(0, written.length)[0] / written.gain), (clean, problem.samples)]
    for name, (names, compute) in metrics.items():
        for index, key in enumerate((name, f"{name}_input")):
            if compared:
                known[key], reasons = compute(*compared[index], written.rate)
                notes.update({f"{key}.{metric}": reason for metric, reason in reasons.items()})
            else:
                known[key], notes[key] = dict.fromkeys(names), _NO_REFERENCE
    return known


def _separation(
    problem: Problem[Any],
    outputs: Mapping[str, Path],
    written: Estimates,
    references: References,
    notes: dict[str, str],
    fixed_order: bool,
) -> Record:
    """The sources, how far their sum is from the mixture, and their metrics; adds to ``notes``."""
    if problem.consistent and not keeps_samples(written.subtype):
        notes["consistency"] = f"the sources sum to the mixture before they are encoded as {written.subtype}, not after"
    sources: list[Record] = [
        {"name": name, "type": type_, "output": str(path), "reference": None}
        | {key: dict.fromkeys(SOURCE_METRICS) for key in ("metrics", "metrics_input")}
        for (name, path), type_ in zip(outputs.items(), written.types, strict=True)
    ]
    if references:
        notes["means"] = "metrics that do not suit separated sources, or that one of them lacks, are null in the means"
        clean = np.stack([reference.read(0, reference.length) for reference in references.values()])
        mixtures = np.broadcast_to(problem.samples, clean.shape)
        estimates = written.read(0, written.length) / written.gain
        after = score_sources(clean, estimates, written.rate, fixed_order=fixed_order)
        before = score_sources(clean, mixtures, written.rate, fixed_order=True)
        for path, index, *scores in zip(references, after.permutation, after.sources, before.sources, strict=True):
            source = sources[index]
            source["reference"] = str(path)
            for key, (source[key], reasons) in zip(("metrics", "metrics_input"), scores, strict=True):
                notes.update({f"{key}.{source['name']}.{metric}": reason for metric, reason in reasons.items()})
    else:
        notes |= dict.fromkeys(("metrics", "metrics_input"), _NO_REFERENCE)
    residual = max(
        float(np.abs(observed - estimates.sum(axis=0)).max()) for _, observed, estimates in _blocks(problem, written)
    )
    return {
        "consistency": {"enforced": problem.consistent, "residual": residual},
        "sources": sources,
        "metrics": _mean([source["metrics"] for source in sources]),
        "metrics_input": _mean([source["metrics_input"] for source in sources]),
    }


def _blocks(problem: Problem[Any], written: Estimates) -> Iterator[tuple[int, Samples, Samples]]:
    """Starts of blocks, and there the recording ``[C, n]`` and what is written ``[K, C, n]``, at the same level."""
    for start in range(0, written.length, BLOCK):
        stop = min(start + BLOCK, written.length)
        yield start, problem.recording.read(start, stop), written.read(start, stop) / written.gain


def _mean(metrics: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean of each metric over the sources, None where one has no value; every key of a restoration is there."""
    means: dict[str, float | None] = dict.fromkeys((*SOURCE_METRICS, *METRICS))
    for name in SOURCE_METRICS:
        values = [value for each in metrics if (value := each[name]) is not None]
        means[name] = float(np.mean(values)) if len(values) == len(metrics) else None
    return means


def _fit(result: Result) -> Record:
    """Totals over all fits, loss and validation as means over segments, and each segment by itself."""
    fits = result.segments
    segments = [_segment(fit, result.restored.rate) for fit in fits]
    seconds = sum(fit.seconds for fit in fits) + result.pretraining_seconds
    iterations = sum(segment["iterations"] for segment in segments) + len(result.pretraining)

    def mean(key: str) -> float | None:
        values = [segment[key] for segment in segments if segment[key] is not None]
        return float(np.mean(values)) if values else None

    return {
        "iterations": iterations,
        "best_iteration": segments[0]["best_iteration"] if len(segments) == 1 else None,
        "stopped_by": "; ".join(sorted({segment["stopped_by"] for segment in segments})) or None,
        "rule_reason": "; ".join(sorted({fit.rule_reason for fit in fits if fit.iterations})) or None,
        "seconds": seconds,
        "iterations_per_second": iterations / seconds if seconds else None,
        "loss": mean("loss"),
        "validation": mean("validation"),
        "segments": segments,
    }


def _segment(fit: SegmentFit, rate: int) -> Record:
    return {
        "start_s": fit.start / rate,
        "stop_s": fit.stop / rate,
        "iterations": len(fit.iterations),
        "best_iteration": fit.best_iteration if fit.iterations else None,
        "stopped_by": f"{fit.rule}: {fit.stopped_by}" if fit.iterations else fit.stopped_by,
        "seconds": fit.seconds,
        "loss": fit.iterations[-1].loss if fit.iterations else None,
        "validation": fit.validation,
        "noise_std": fit.noise_std,
    }


def to_json(record: Record) -> str:
    """The record as JSON text, in ASCII, for a path may have bytes or letters that a file or terminal refuses.

    NaN and infinity, which JSON does not have, are refused.
    """
    return json.dumps(record, indent=2, allow_nan=False) + "\n"
