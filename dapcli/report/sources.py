"""The JSON record of a separation; its keys are a contract too (docs/json.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dapcli.audio import Recording
from dapcli.audio.recording import BLOCK
from dapcli.audio.writing import keeps_samples
from dapcli.metrics import METRICS, Scores, score_sources
from dapcli.metrics.separation import SOURCE_METRICS
from dapcli.report.record import Record, describe_run, notes_of
from dapcli.tasks._api_separation import Separation, Sources

Metrics = dict[str, float | None]


def build_separation_record(
    separation: Separation,
    *,
    input_path: Path,
    output_path: Path,
    outputs: Mapping[str, Path],
    written: Sources,
    mixture: Recording,
    references: Mapping[Path, Recording],
    fixed_order: bool,
    consistent: bool,
) -> Record:
    """The record of one separation: everything that decided it, and how well it went, by source.

    ``written`` are the sources as their files, ``outputs`` by name, hold them. Metrics compare them with ``references``
    at their original level, for which all are read whole, and are null without references.
    """
    notes = notes_of(separation.result)
    if consistent and not keeps_samples(written.subtype):
        notes["consistency"] = f"the sources sum to the mixture before they are encoded as {written.subtype}, not after"
    sources: list[Record] = [
        {"name": name, "kind": kind, "output": str(path), "reference": None}
        for (name, path), kind in zip(outputs.items(), separation.kinds, strict=True)
    ]
    if references:
        estimates = written.read(0, written.length) / written.gain
        unprocessed = np.stack([mixture.read(0, mixture.length)] * len(estimates))
        clean = np.stack([reference.read(0, reference.length) for reference in references.values()])
        after = score_sources(clean, estimates, mixture.rate, fixed_order=fixed_order)
        before = score_sources(clean, unprocessed, mixture.rate, fixed_order=True)
        for path, index, *scores in zip(references, after.permutation, after.sources, before.sources, strict=True):
            sources[index]["reference"] = str(path)
            _add_metrics(sources[index], scores, notes)
    for source in sources:
        source.setdefault("metrics", dict.fromkeys(SOURCE_METRICS))
        source.setdefault("metrics_input", dict.fromkeys(SOURCE_METRICS))
    if references:
        notes["means"] = "metrics that do not suit separated sources, or that one of them lacks, are null in the means"
    else:
        notes |= dict.fromkeys(("metrics", "metrics_input"), "no --reference was given")
    return {
        **describe_run(
            "separate",
            separation.result,
            written[0],
            input_path=input_path,
            output_path=output_path,
            gain=written.gain,
        ),
        "noise": {"std": None, "input_snr_db_estimated": None, "white": None},
        "consistency": {"enforced": consistent, "residual": _residual(written, mixture)},
        "sources": sources,
        "metrics": _mean([source["metrics"] for source in sources]),
        "metrics_input": _mean([source["metrics_input"] for source in sources]),
        "notes": notes,
    }


def _add_metrics(source: Record, scores: Sequence[Scores], notes: dict[str, str]) -> None:
    """Add the metrics of a source and of the mixture in its place, and why some have no value."""
    for key, (values, reasons) in zip(("metrics", "metrics_input"), scores, strict=True):
        source[key] = values
        notes.update({f"{key}.{source['name']}.{metric}": reason for metric, reason in reasons.items()})


def _mean(metrics: Sequence[Metrics]) -> Metrics:
    """The mean of each metric over the sources, None where one has no value; every key of a restoration is there."""
    means: Metrics = dict.fromkeys((*SOURCE_METRICS, *METRICS))
    for name in SOURCE_METRICS:
        values = [each[name] for each in metrics]
        known = [value for value in values if value is not None]
        means[name] = float(np.mean(known)) if len(known) == len(values) else None
    return means


def _residual(written: Sources, mixture: Recording) -> float:
    """How far the sum of the sources is from the mixture at the most, full scale at 1."""
    furthest = 0.0
    for start in range(0, mixture.length, BLOCK):
        stop = min(start + BLOCK, mixture.length)
        rest = mixture.read(start, stop) - written.read(start, stop).sum(axis=0) / written.gain
        furthest = max(furthest, float(np.abs(rest).max()))
    return furthest
