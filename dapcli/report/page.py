"""HTML pages. That of one run needs no other file: listen to it, look at it, see how it was made."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from dapcli.audio import Audio, Recording, Samples, encode
from dapcli.pipeline.result import Estimates, Result
from dapcli.report.figures import COLOURS, Curve, draw_curves, draw_spectrogram, shared_scale, spectrogram
from dapcli.report.record import Record
from dapcli.report.table import Table, printable, result_tables, row
from dapcli.report.words import count, metric_title, notes_on_the_run, summary
from dapcli.tasks.problem import Problem

# Longest stretch in a player: 2.6 MB on the page for every 16-bit channel at 48 kHz.
_PLAYED_S = 30.0
_STYLES = ("-", "--")
_MAX_CURVES = len(COLOURS) * len(_STYLES)


@cache
def environment() -> Environment:
    """The templates; whatever is put into them is escaped, unless it is markup itself."""
    return Environment(
        loader=PackageLoader("dapcli.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, values: Mapping[str, Any]) -> str:
    """A template with these values."""
    return printable(environment().get_template(template).render(values))


def render_page(
    record: Record, problem: Problem[Any], result: Result, written: Estimates, references: Mapping[Path, Recording]
) -> str:
    """The page of a restoration or a separation for ``--report``.

    Args:
        record: What :func:`dapcli.report.record.build_record` says of it.
        problem: What was restored or separated.
        result: What came out, for its convergence curves.
        written: The estimates as their files hold them.
        references: The clean recordings by the paths in the record.
    """
    source = problem.recording
    shown = list(_recordings(record, source, written, {str(path): each for path, each in references.items()}))
    gain = 1.0 / max(1.0, *(float(np.abs(_beginning(recording)).max()) for _, recording, _ in shown))
    before, after = (PurePath(record[key]).name for key in ("input", "output"))
    return render(
        "restoration.html.j2",
        {
            "before": before,
            "after": after,
            "source": source,
            "record": record,
            "summary": summary(record),
            "cards": _cards(shown, gain, record.get("degradation", {}).get("intervals", [])),
            "tables": result_tables(record),
            "convergence": _convergence(result),
            "notes": list(dict.fromkeys(_notes(record))),  # input and output may share some
            "played_s": _PLAYED_S,
            "lowered_db": -20 * np.log10(gain),
            "settings": Table(("key", "value"), [row(*each) for each in _flat(record)], texts=2),
        },
    )


def _recordings(
    record: Record, source: Recording, written: Estimates, references: Mapping[str, Recording]
) -> Iterator[tuple[str, Recording, str]]:
    """Titles, recordings and paths of the input, of the estimates at its level, and of the references."""
    estimates = replace(written, gain=1.0)
    if "sources" not in record:
        yield "Before", source, record["input"]
        yield "After", estimates[0], record["output"]
        yield from (("Reference", reference, path) for path, reference in references.items())
        return
    yield "Mixture", source, record["input"]
    for each, estimate in zip(record["sources"], estimates, strict=True):
        yield each["name"], estimate, each["output"]
        if each["reference"] is not None:
            yield f"{each['name']}, reference", references[each["reference"]], each["reference"]


def _beginning(recording: Recording) -> Samples:
    """What the player of a recording holds, ``[C, n]``."""
    return recording.read(0, min(recording.length, round(_PLAYED_S * recording.rate)))


def _cards(
    shown: Sequence[tuple[str, Recording, str]], gain: float, intervals: Sequence[Sequence[Any]]
) -> Iterator[dict[str, Any]]:
    """Player, at this gain, and picture of recordings of the same shape, with lines above ``intervals`` in samples."""
    pictures = [spectrogram(recording) for _, recording, _ in shown]
    low, high = shared_scale(pictures)
    for number, ((title, recording, path), picture) in enumerate(zip(shown, pictures, strict=True)):
        rate = recording.rate
        extent = f"0 to {picture.seconds:.3g} s, 0 to {rate / 2000:g} kHz, colours from {low:g} to {high:g} dB"
        marked = f", {count(len(intervals), 'gap')} marked above it" if intervals else ""
        gaps = [(start / rate, stop / rate) for start, stop, *_ in intervals]
        label = f"Spectrogram, {title}: {extent}{marked}"
        svg = draw_spectrogram(picture, (low, high), gaps, name=f"picture{number}", label=label)
        wav = _wav(_beginning(recording) * gain, rate)
        yield {"title": title, "file": PurePath(path).name, "wav": wav, "picture": svg}


def _wav(samples: Samples, rate: int) -> str:
    """A 16-bit WAV in base64; browsers cannot be relied on for more than two channels."""
    if len(samples) > 2:
        samples = samples.mean(axis=0, keepdims=True)
    return base64.b64encode(encode(Audio(samples, rate, "PCM_16", "WAV"))).decode()


def _convergence(result: Result) -> dict[str, Any] | None:
    """The picture of the fits that had iterations, eight at the most, and what its caption tells; None without any."""
    fits = [fit for fit in result.segments if fit.iterations]
    if not fits:
        return None
    shown = [fits[index] for index in np.unique(np.linspace(0, len(fits) - 1, _MAX_CURVES).round().astype(int))]
    factors = {"loss": 1.0}
    if result.noise_std is not None:  # otherwise an estimate is not meant to leave over anything in particular
        factors["residual"] = result.stft.white_gain**-0.5  # white noise of level 1 has the inverse in a bin
    if any(fit.rule != "fixed" for fit in fits):  # which only counts
        factors["criterion"] = 1.0
    panels, rate = {}, result.restored.rate
    for quantity, factor in factors.items():
        before = [] if quantity == "criterion" else result.pretraining
        values = [factor * getattr(each, quantity) for each in before]
        curves = [Curve("pretraining", values, look={"ls": "--", "alpha": 0.6})]
        for number, fit in enumerate(shown):
            title = "fit" if len(fits) == 1 else f"{fit.start / rate:.1f} to {fit.stop / rate:.1f} s"
            values = [factor * getattr(each, quantity) for each in fit.iterations]
            look = {"color": COLOURS[number % len(COLOURS)], "ls": _STYLES[number // len(COLOURS)]}
            curves.append(Curve(title, values, {"kept iteration": fit.best_iteration}, look))
        if quantity == "residual" and len(fits) == 1:
            level = [fits[0].noise_std or 0.0] * len(fits[0].iterations)
            curves.append(Curve("estimated noise", level, look={"ls": ":"}))
        panels[quantity] = curves
    names, segments = " and ".join(name for name in panels if name != "criterion"), count(len(fits), "segment")
    label = f"{names.capitalize()} of {segments} by iteration, with the kept ones marked"
    return {
        "picture": draw_curves(panels, name="convergence", label=label),
        "panels": list(panels),
        "fits": fits,
        "segments": segments,
        "shown": len(shown),
        "pretraining": len(result.pretraining),
    }


def _notes(record: Record) -> Iterator[str]:
    """Notes on the run, and why there is no value of a metric."""
    yield from notes_on_the_run(record)
    for key, note in record["notes"].items():
        if key.startswith("metrics"):
            group, _, rest = key.partition(".")
            name, _, metric = rest.rpartition(".")
            inside = "gaps_" if metric and group.startswith("metrics_gaps") else ""
            heading = metric_title(inside + metric) or "metrics"
            yield f"{f'{name}, {heading}' if name else heading}: {note}"


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Keys joined with dots and values, in words, of what the page does not show elsewhere."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            if key != "notes" and not key.startswith("metrics"):
                yield from _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            yield prefix + key, "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
