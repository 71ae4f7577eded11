"""The JSON record of a restoration. Its keys are a contract: keys are added, never renamed (docs/json.md)."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dapcli
from dapcli.audio import Recording
from dapcli.metrics import METRICS, score
from dapcli.restore import Result

Record = dict[str, Any]


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
) -> Record:
    """The record of one restored file: everything that decided it, and how well it went.

    ``written`` is the output as its file holds it, scaled by ``gain``; metrics compare it with ``reference`` at its
    original level, for which all are read whole, and are null without a reference.
    """
    notes: dict[str, str] = {f"restore_{index}": note for index, note in enumerate(result.notes, 1)}
    metrics: dict[str, dict[str, float | None]] = {}
    for key, recording, scale in (("metrics", written, gain), ("metrics_input", noisy, 1.0)):
        if reference is None:
            metrics[key] = dict.fromkeys(METRICS)
            notes[key] = "no --reference was given"
        else:
            clean, samples = (each.read(0, noisy.length) for each in (reference, recording))
            metrics[key], reasons = score(clean, samples / scale, noisy.rate)
            notes.update({f"{key}.{name}": reason for name, reason in reasons.items()})

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
        "noise": {
            "std": result.noise_std,
            "input_snr_db_estimated": result.input_snr_db,
            "white": all(fit.white_noise for fit in result.segments) if result.segments else None,
        },
        "post_filter": result.settings.post_filter,
        "gain": gain,
        **metrics,
        "seconds": result.seconds,
        "versions": {
            "dapcli": dapcli.__version__,
            "torch": version("torch"),
            "torchaudio": version("torchaudio"),
            "python": platform.python_version(),
        },
        "notes": notes,
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
