"""HTML pages. That of one run needs no other file: listen to it, look at it, see how it was made."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from dapcli.audio import Audio, Recording, Samples, encode, resample
from dapcli.pipeline.result import Estimates, Result
from dapcli.report.figures import (
    COLOURS,
    Curve,
    draw_curves,
    loudness,
    noise_spectrogram,
    shared_scale,
    spectrogram,
    to_webp,
)
from dapcli.report.record import Record
from dapcli.report.table import Table, printable, result_tables, row
from dapcli.report.words import count, headline, metric_title, notes_on_the_run, summary
from dapcli.tasks.problem import Problem

# Longest stretch in a player, and the bytes and bits per second that all players may have together, and each.
_PLAYED_S, _PLAYERS_BYTES = 60.0, 1_400_000
_LEAST_BITRATE, _MOST_BITRATE = 24_000, 96_000
# Rates of Opus in Hz, and bits per second for a channel from the most to the least compression by libsndfile.
_OPUS_RATES, _OPUS_BITRATES = (8_000, 12_000, 16_000, 24_000, 48_000), (256_000, 6_000)
_COLUMNS = 2048
# Segments beyond which their bounds are not marked: they would be nothing but lines.
_MARKED = 200
# So coarse that the shortest can be seen.
_BARS = 512
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
    gain = 1.0 / max(1.0, *(float(np.abs(_beginning(each)).max()) for _, each, _ in shown))
    before, after = (PurePath(record[key]).name for key in ("input", "output"))
    seconds = source.length / source.rate
    segments = [(fit.start / source.rate, fit.stop / source.rate) for fit in result.segments]
    cards, scale = _cards(shown, gain, result)
    return render(
        "restoration.html.j2",
        {
            "before": before,
            "after": after,
            "source": source,
            "record": record,
            "summary": [headline(record), *summary(record)],
            "cards": cards,
            "scale": scale,
            "seconds": seconds,
            "played": min(_PLAYED_S, seconds),
            "bars": _bars(record.get("degradation", {}).get("intervals", []), source),
            "segments": segments if 1 < len(segments) <= _MARKED else [],
            "tables": result_tables(record),
            "convergence": _convergence(result),
            "notes": list(dict.fromkeys(_notes(record))),  # input and output may share some
            "lowered_db": -20 * np.log10(gain),
            "settings": Table(("key", "value"), [row(*each) for each in _flat(record)], texts=2),
        },
    )


@dataclass(frozen=True)
class _Difference:
    """What was removed from a recording: a recording itself."""

    before: Recording
    after: Recording
    rate: int
    channels: int
    length: int
    subtype: str = "FLOAT"
    format: str = "WAV"

    def read(self, start: int, stop: int) -> Samples:
        """Samples ``[C, stop - start]``."""
        return self.before.read(start, stop) - self.after.read(start, stop)


def _recordings(
    record: Record, source: Recording, written: Estimates, references: Mapping[str, Recording]
) -> Iterator[tuple[str, Recording, str]]:
    """Titles, recordings and paths of the input, of the estimates at its level, of what was removed, and references."""
    estimates = replace(written, gain=1.0)
    if "sources" not in record:
        yield "Before", source, record["input"]
        yield "After", estimates[0], record["output"]
        name = "Removed" if record["task"] == "denoise" else "Changed"
        yield name, _Difference(source, estimates[0], source.rate, source.channels, source.length), ""
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
    shown: Sequence[tuple[str, Recording, str]], gain: float, result: Result
) -> tuple[list[dict[str, Any]], tuple[float, float]]:
    """Players, at this gain, and pictures of recordings of the same shape, and the colour scale of all pictures, dB.

    What was found of the noise has a picture alone.
    """
    pictures = [spectrogram(recording, _COLUMNS) for _, recording, _ in shown]
    scale = shared_scale(pictures)
    # Of what was removed one wants to hear how much it is.
    same = [not isinstance(recording, _Difference) for _, recording, _ in shown]
    levels = [loudness(picture) for picture in pictures]
    lowest = min((level for level, each in zip(levels, same, strict=True) if each and level > scale[0]), default=0.0)
    cards = [
        {
            "title": title,
            "file": PurePath(path).name,
            "sound": _opus(_beginning(recording) * gain, recording.rate, len(shown)),
            "volume": min(1.0, 10 ** ((lowest - level) / 20)) if each else 1.0,
            "picture": base64.b64encode(to_webp(picture, scale)).decode(),
        }
        for (title, recording, path), picture, level, each in zip(shown, pictures, levels, same, strict=True)
    ]
    found = [(fit.start / result.restored.rate, fit.stop / result.restored.rate, fit.noise) for fit in result.segments]
    if found and all(noise for *_, noise in found):
        picture = noise_spectrogram(found, result.rate, pictures[0])
        encoded = base64.b64encode(to_webp(picture, scale)).decode()
        cards.append({"title": "Noise found", "file": "", "sound": "", "volume": 0.0, "picture": encoded})
    return cards, scale


def _opus(samples: Samples, rate: int, players: int) -> str:
    """Ogg Opus in base64, which all browsers play; they cannot be relied on for more than two channels."""
    if len(samples) > 2:
        samples = samples.mean(axis=0, keepdims=True)
    coded = next((each for each in _OPUS_RATES if each >= rate), _OPUS_RATES[-1])
    samples = resample(samples, rate, coded)
    channels, length = samples.shape
    bitrate = 8 * _PLAYERS_BYTES / players * coded / length
    highest, lowest = _OPUS_BITRATES
    each = min(max(bitrate, _LEAST_BITRATE), _MOST_BITRATE * channels) / channels
    audio = Audio(samples, coded, "OPUS", "OGG")
    return base64.b64encode(encode(audio, compression=(highest - each) / (highest - lowest))).decode()


def _bars(intervals: Sequence[Sequence[Any]], source: Recording) -> list[tuple[float, float]]:
    """Start and end, in s, of bars over intervals in samples; what lies closely together has one."""
    marked = np.zeros(_BARS, dtype=np.bool_)
    width = source.length / _BARS
    for start, stop, *_ in intervals:
        marked[int(start / width) : math.ceil(stop / width)] = True
    edges = np.flatnonzero(np.diff(marked, prepend=False, append=False)).reshape(-1, 2)
    return [(start * width / source.rate, stop * width / source.rate) for start, stop in edges.tolist()]


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
