"""The JSON record of a run. Its keys are a contract: keys are added, never renamed (docs/json.md)."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from math import log10
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dapcli
from dapcli.audio import Recording
from dapcli.audio.recording import BLOCK
from dapcli.audio.writing import keeps_samples
from dapcli.metrics import GAP_METRICS, METRICS, SOURCE_METRICS, describe_alignment, score_all
from dapcli.pipeline.result import Estimates, Result
from dapcli.priors import NO_PRIOR
from dapcli.signal.degradation import TOLERANCE
from dapcli.tasks.problem import Problem

# Frames in which quiet places are looked for, s, and the most of what is removed there, dB.
_FRAME_S, _MOST_DB = 0.05, 100.0

Record = dict[str, Any]
References = Mapping[Path, Recording]


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
    notes: Mapping[str, str] | None = None,
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
        notes: Notes on the files, by their keys.
    """
    settings, stft = result.settings, result.stft
    notes = dict(notes or {})
    notes |= {f"restore_{index}": note for index, note in enumerate(result.notes, 1)}
    notes |= {f"degradation_{index}": note for index, note in enumerate(problem.notes, 1)}
    known = {**_consistency(problem, result, written), **_metrics(problem, outputs, written, references, fixed_order)}
    if "sources" in known and problem.consistent and not keeps_samples(written.subtype):
        notes["consistency"] = f"the sources sum to the mixture before they are encoded as {written.subtype}, not after"
    if written.gain != 1:
        decibels = 20 * log10(written.gain)
        notes["gain"] = (
            f"peaks passed full scale; all outputs were multiplied by {written.gain:.4f} ({decibels:.2f} dB)"
        )
    notes |= known.pop("notes")
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
        "noise": {
            "std": result.noise_std,
            "input_snr_db_estimated": result.input_snr_db,
            "white": white,
            "removed_db": None if white is None else _removed_db(problem.recording, written),
        },
        **known,
        "notes": notes,
    }


def _removed_db(recording: Recording, written: Estimates) -> float | None:
    """How much lower, in dB, the quietest tenth of a recording's frames is in what is written; None where all is 0.

    There one hears hardly anything but noise. Digital silence does not count.
    """
    size = min(round(_FRAME_S * recording.rate), recording.length)
    powers: list[NDArray[np.float64]] = []
    for start in range(0, recording.length - size + 1, BLOCK // size * size):
        stop = min(start + BLOCK // size * size, recording.length)
        both = np.stack([recording.read(start, stop), written.read(start, stop)[0] / written.gain])
        frames = both[..., : (stop - start) // size * size].reshape(*both.shape[:2], -1, size)
        powers.append(np.square(frames).mean(axis=(1, 3)))
    before, after = np.concatenate(powers, axis=1)
    quiet = np.argsort(before)[np.count_nonzero(before == 0) :][: -(-np.count_nonzero(before) // 10)]
    if not before[quiet].any():
        return None
    return float(np.clip(10 * np.log10(before[quiet].sum() / max(after[quiet].sum(), 1e-30)), -_MOST_DB, _MOST_DB))


def _consistency(problem: Problem[Any], result: Result, written: Estimates) -> Record:
    """What was wrong, if it is known, and how far what is written is from what is known of the recording."""
    degradation, residual, inconsistent = problem.degradation, 0.0, 0
    if degradation is None and len(written) == 1:
        return {}
    for start in range(0, written.length, BLOCK):
        stop = min(start + BLOCK, written.length)
        observed, estimates = problem.recording.read(start, stop), written.read(start, stop) / written.gain
        if degradation is None:
            residual = max(residual, float(np.abs(observed - estimates.sum(axis=0)).max()))
        else:
            nearest = degradation.part(start, stop).project(estimates[0], observed)
            inconsistent += int((np.abs(nearest - estimates[0]) > TOLERANCE).sum())
    if degradation is None:
        return {"consistency": {"enforced": problem.consistent, "residual": residual}}
    return {
        "degradation": {**degradation.describe(problem.recording), "source": problem.source},
        "consistency": {
            "enforced": problem.consistent,
            "inconsistent_before": result.inconsistent,
            "inconsistent": inconsistent / (written.length * written.channels),
        },
        "initial_estimate": degradation.initial_estimate,
    }


def _metrics(
    problem: Problem[Any], outputs: Mapping[str, Path], written: Estimates, references: References, fixed_order: bool
) -> Record:
    """The metrics of a restoration, or of sources and their means, and of the input; ``notes`` on those without any."""
    gaps = (problem.degradation and problem.degradation.gaps) or None
    several = len(written) > 1
    groups: dict[str, Iterable[str]] = {"metrics": SOURCE_METRICS if several else METRICS}
    if gaps:
        groups["metrics_gaps"] = GAP_METRICS
    keys = {f"{group}{side}": names for group, names in groups.items() for side in ("", "_input")}
    notes: dict[str, str] = {} if references else dict.fromkeys(keys, "no --reference was given")
    sources: list[Record] = [
        {"name": name, "type": type_, "output": str(path), "reference": None}
        | {key: dict.fromkeys(names) for key, names in keys.items()}
        for (name, path), type_ in zip(outputs.items(), written.types, strict=True)
    ]
    if references:
        clean = np.stack([reference.read(0, reference.length) for reference in references.values()])
        estimates = written.read(0, written.length) / written.gain
        scores = score_all(clean, estimates, written.rate, gaps=gaps, fixed_order=fixed_order)
        mixtures = np.broadcast_to(problem.samples, clean.shape)
        before = score_all(clean, mixtures, written.rate, gaps=gaps, fixed_order=True)
        compared = zip(references, clean, scores.permutation, scores.sources, before.sources, strict=True)
        for path, truth, index, *both in compared:
            source, of = sources[index], f"{sources[index]['name']}." if several else ""
            source["reference"] = str(path)
            if words := describe_alignment(truth, estimates[index], written.rate):
                notes[f"alignment_{index + 1}"] = f"{source['name']} {words}"
            for side, (values, reasons) in zip(("", "_input"), both, strict=True):
                for name, value in values.items():
                    metric = name.removeprefix("gaps_")
                    key = f"metrics{side}" if metric == name else f"metrics_gaps{side}"
                    source[key][metric] = value
                    if value is None:
                        notes[f"{key}.{of}{metric}"] = reasons[name]
    if not several:
        return {**{key: sources[0][key] for key in keys}, "notes": notes}
    if references:
        notes["means"] = "metrics that do not suit separated sources, or that one of them lacks, are null in the means"
    means = {key: _mean([source[key] for source in sources]) for key in keys}
    return {"sources": sources, **means, "notes": notes}


def _mean(metrics: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean of each metric over the sources, None where one has no value; every key of a restoration is there."""
    means: dict[str, float | None] = dict.fromkeys((*SOURCE_METRICS, *METRICS))
    for name in SOURCE_METRICS:
        values = [each[name] for each in metrics]
        means[name] = None if None in values else float(np.mean(values))  # type: ignore[arg-type]
    return means


def _fit(result: Result) -> Record:
    """Totals over all fits, loss and validation as means over segments, and each segment by itself."""
    fits, rate = result.segments, result.restored.rate
    segments: list[Record] = [
        {
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
        for fit in fits
    ]
    seconds = sum(fit.seconds for fit in fits) + result.pretraining_seconds
    iterations = sum(len(fit.iterations) for fit in fits) + len(result.pretraining)

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


def to_json(record: Record) -> str:
    """The record as JSON text, in ASCII, for a path may have bytes or letters that a file or terminal refuses.

    NaN and infinity, which JSON does not have, are refused.
    """
    return json.dumps(record, indent=2, allow_nan=False) + "\n"
