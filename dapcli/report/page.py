"""HTML pages. That of one run needs no other file: listen to it, look at it, see how it was made."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("dapcli.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, values: Mapping[str, Any]) -> str:
    """A template with these values, every one of them escaped unless it is markup itself."""
    return printable(_environment().get_template(template).render(values))


@dataclass(frozen=True)
class _Shown:
    """A recording on the page, scaled by ``scaled``; a ``wide`` one has a row of its own."""

    title: str
    recording: Recording
    path: str
    scaled: float = 1.0
    wide: bool = False

    @property
    def beginning(self) -> Samples:
        """What the player holds, ``[C, n]``, as it was before it was scaled."""
        recording = self.recording
        return recording.read(0, min(recording.length, round(_PLAYED_S * recording.rate))) / self.scaled


def render_page(
    record: Record,
    problem: Problem[Any],
    result: Result,
    written: Estimates,
    references: Mapping[Path, Recording],
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
    gain = 1.0 / max(1.0, *(float(np.abs(each.beginning).max()) for each in shown))
    title = f"dap {record['task']}: {PurePath(record['input']).name}"
    convergence, caption = _convergence(result)
    return render(
        "restoration.html.j2",
        {
            "title": title,
            "source": _source(record, source),
            "summary": summary(record),
            "cards": _cards(shown, gain, record.get("degradation", {}).get("intervals", [])),
            "tables": result_tables(record),
            "convergence": convergence,
            "caption": caption,
            "notes": _notes(record, source, gain),
            "settings": Table(("Key", "Value"), [row(*each) for each in _flat(record)], texts=2),
        },
    )


def _recordings(
    record: Record, source: Recording, written: Estimates, references: Mapping[str, Recording]
) -> Iterator[_Shown]:
    """The input, the estimates at its level, for they could not be compared otherwise, and the references."""
    if "sources" not in record:
        yield _Shown("Before", source, record["input"])
        yield _Shown("After", written[0], record["output"], record["gain"])
        for reference in references.values():
            yield _Shown("Reference", reference, "the clean recording")
        return
    yield _Shown("Mixture", source, record["input"], wide=True)
    for each, recording in zip(record["sources"], written, strict=True):
        yield _Shown(each["name"], recording, each["output"], record["gain"])
        if each["reference"] is not None:
            yield _Shown(f"{each['name']}, reference", references[each["reference"]], each["reference"])


def _source(record: Record, source: Recording) -> str:
    """Which file was restored into which."""
    channels = {1: "mono", 2: "stereo"}.get(source.channels, f"{source.channels} channels")
    before, after = (PurePath(record[key]).name for key in ("input", "output"))
    return f"{before} ({source.length / source.rate:.6g} s, {channels}, {source.rate:,} Hz) into {after}"


def _cards(shown: Sequence[_Shown], gain: float, intervals: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """Player, at this gain, and picture of recordings of the same shape, with lines above ``intervals`` in samples."""
    pictures = [spectrogram(each.recording, each.scaled) for each in shown]
    low, high = shared_scale(pictures)
    cards = []
    for number, (each, picture) in enumerate(zip(shown, pictures, strict=True)):
        rate, seconds = each.recording.rate, each.recording.length / each.recording.rate
        gaps = [(start / rate, stop / rate) for start, stop, *_ in intervals]
        label = (
            f"Spectrogram, {each.title}: 0 to {seconds:.3g} s, 0 to {rate / 2000:g} kHz, "
            f"colours from {low:g} to {high:g} dB"
        )
        if gaps:
            label += f", {count(len(gaps), 'gap')} marked above it"
        svg = draw_spectrogram(picture, (low, high), seconds, rate, marks=gaps, name=f"picture{number}", label=label)
        cards.append(
            {
                "title": each.title,
                "file": PurePath(each.path).name,
                "wide": each.wide,
                "wav": _wav(each.beginning * gain, rate),
                "picture": svg,
            }
        )
    return cards


def _wav(samples: Samples, rate: int) -> str:
    """A 16-bit WAV in base64; browsers cannot be relied on for more than two channels."""
    if len(samples) > 2:
        samples = samples.mean(axis=0, keepdims=True)
    return base64.b64encode(encode(Audio(samples, rate, "PCM_16", "WAV"))).decode()


def _convergence(result: Result) -> tuple[str, str]:
    """The picture of the fits that had iterations, eight at the most, and its caption; empty where none had."""
    fits = [fit for fit in result.segments if fit.iterations]
    if not fits:
        return "", ""
    shown = [fits[index] for index in np.unique(np.linspace(0, len(fits) - 1, _MAX_CURVES).round().astype(int))]
    factors = {"loss": 1.0}
    if result.noise_std is not None:  # otherwise an estimate is not meant to leave over anything in particular
        factors["residual"] = result.stft.white_gain**-0.5  # white noise of level 1 has the inverse in a bin
    if any(fit.rule != "fixed" for fit in fits):  # which only counts
        factors["criterion"] = 1.0
    panels, rate = {}, result.restored.rate
    for quantity, factor in factors.items():
        before = [] if quantity == "criterion" else result.pretraining
        curves = [Curve("pretraining", [factor * getattr(each, quantity) for each in before], style="--", alpha=0.6)]
        for number, fit in enumerate(shown):
            title = "fit" if len(fits) == 1 else f"{fit.start / rate:.1f} to {fit.stop / rate:.1f} s"
            values = [factor * getattr(each, quantity) for each in fit.iterations]
            colour, style = COLOURS[number % len(COLOURS)], _STYLES[number // len(COLOURS)]
            curves.append(Curve(title, values, {"kept iteration": fit.best_iteration}, colour, style))
        if quantity == "residual" and len(fits) == 1:
            curves.append(Curve("estimated noise", [fits[0].noise_std or 0.0] * len(fits[0].iterations), style=":"))
        panels[quantity] = curves

    first, steps = fits[0], len(fits[0].iterations)
    names = " and ".join(name for name in panels if name != "criterion").capitalize()
    if len(fits) == 1:
        label = f"{names} over {count(steps, 'iteration')}, with iteration {first.best_iteration} marked"
        caption = [f"Iteration {first.best_iteration} of {steps} was kept (dot)."]
    else:
        label = f"{names} of {len(fits)} segments by iteration, with the kept iterations marked"
        caption = ["Dots mark the iterations that were kept."]
    if result.pretraining:
        iterations = count(len(result.pretraining), "iteration")
        caption.append(f"The network was pretrained on the recording for {iterations} before (dashed).")
    if len(shown) < len(fits):
        caption.append(f"{len(shown)} of {len(fits)} segments are shown.")
    if "criterion" in panels:
        caption.append("The stopping rule keeps the one with the lowest criterion.")
    if "residual" in panels:
        caption.append("The residual is what the estimate leaves over, in units of full scale.")
    return draw_curves(panels, name="convergence", label=label), " ".join(caption)


def _notes(record: Record, source: Recording, gain: float) -> list[str]:
    """What the record has to say, what the players (lowered by ``gain``) do to the sound, how to read the pictures."""
    lines = notes_on_the_run(record)
    for key, note in record["notes"].items():
        if key.startswith("metrics"):
            group, _, rest = key.partition(".")
            name, _, metric = rest.rpartition(".")
            inside = "gaps_" if metric and group.startswith("metrics_gaps") else ""
            heading = metric_title(inside + metric) or "metrics"
            lines.append(f"{f'{name}, {heading}' if name else heading}: {note}")
    written = "files are" if "sources" in record else "file is"
    remarks = {
        "Lines above the pictures mark the gaps.": record.get("degradation", {}).get("kind") == "gaps",
        f"Peaks passed full scale; the written {written} lowered by {record['gain']:.4f}.": record["gain"] != 1,
        "The pictures share one colour scale, on which a sine at full scale has 0 dB.": True,
        "The pictures show the mean power of the channels.": source.channels > 1,
        f"The players hold the first {_PLAYED_S:g} s, the pictures everything.": source.length
        > _PLAYED_S * source.rate,
        "The players hold the mean of the channels.": source.channels > 2,
        f"The players are {-20 * np.log10(gain):.2f} dB lower, all alike, to stay within full scale.": gain < 1,
    }
    lines += [line for line, applies in remarks.items() if applies]
    return list(dict.fromkeys(lines))  # input and output may share some


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Keys joined with dots and values, in words, of what the page does not show elsewhere."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            if key != "notes" and not key.startswith("metrics"):
                yield from _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            yield prefix + key, "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
