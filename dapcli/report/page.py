"""One HTML page about one restoration: listen to it, look at it, see how it was made. It needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from dapcli.audio import Audio, Recording, Samples, encode
from dapcli.pipeline.result import Result
from dapcli.report.console import (
    METRIC_TITLES,
    all_metrics,
    consistency_in_words,
    damage_in_words,
    notes_on_the_run,
    sum_in_words,
)
from dapcli.report.html import ONE_PLAYER, STYLE, text
from dapcli.report.plots import Spectrogram, draw_convergence, draw_spectrogram, shared_scale, spectrogram
from dapcli.report.template import PAGE
from dapcli.tasks._api_separation import Sources

Metrics = Mapping[str, float | None]

# Longest stretch in a player: 2.6 MB on the page for every 16-bit channel at 48 kHz.
_PLAYED_S = 30.0


@dataclass(frozen=True)
class _Shown:
    """A recording on the page, scaled by ``scaled``; a ``wide`` one has a row of its own."""

    title: str
    recording: Recording
    path: str
    scaled: float = 1.0
    wide: bool = False


def render_page(
    record: Mapping[str, Any], result: Result, noisy: Recording, written: Recording, reference: Recording | None
) -> str:
    """The page of a restoration for ``--report``.

    Args:
        record: What :func:`dapcli.report.record.build_record` says of it.
        result: The restoration, for its convergence curves.
        noisy: The input.
        written: The output as its file holds it, scaled by the record's ``gain``.
        reference: The clean recording at the input's level, if there is one.
    """
    shown = [
        _Shown("Before", noisy, record["input"]),
        # At the input's level, or the two could not be compared.
        _Shown("After", written, record["output"], record["gain"]),
    ]
    if reference is not None:
        shown.append(_Shown("Reference", reference, "the clean recording"))
    caption = "Against the reference."
    return _compose(
        record,
        result,
        shown,
        _metrics([(caption, all_metrics(record, "_input"), all_metrics(record))], ("Before", "After")),
    )


def render_separation_page(
    record: Mapping[str, Any],
    result: Result,
    mixture: Recording,
    written: Sources,
    references: Mapping[str, Recording],
) -> str:
    """The page of a separation for ``--report``.

    Args:
        record: What :func:`dapcli.report.sources.build_separation_record` says of it.
        result: The separation, for its convergence curves.
        mixture: The input.
        written: The sources as their files hold them.
        references: The sources as they were, by the paths in the record.
    """
    shown = [_Shown("Mixture", mixture, record["input"], wide=True)]
    tables = []
    for source, recording in zip(record["sources"], written, strict=True):
        name, reference = source["name"], source["reference"]
        shown.append(_Shown(name, recording, source["output"], record["gain"]))
        if reference is not None:
            shown.append(_Shown(f"{name}, reference", references[reference], reference))
            tables.append((f"{name} against {reference}.", source["metrics_input"], source["metrics"]))
    return _compose(record, result, shown, _metrics(tables, ("Mixture", "Source")))


def _compose(record: Mapping[str, Any], result: Result, shown: Sequence[_Shown], metrics: str) -> str:
    """A page of recordings of the same shape, the first of which is the input."""
    source = shown[0].recording
    peak = max(float(np.abs(_beginning(each)).max()) for each in shown)
    gain = 1.0 / max(peak, 1.0)
    pictures = [spectrogram(each.recording, each.scaled) for each in shown]
    scale = shared_scale(pictures)
    gaps = [
        (start / source.rate, stop / source.rate)
        for start, stop, *_ in record.get("degradation", {}).get("intervals", [])
    ]
    cards = [
        _card(each, _beginning(each) * gain, picture, scale, gaps, f"picture{number}")
        for number, (each, picture) in enumerate(zip(shown, pictures, strict=True))
    ]
    return PAGE.substitute(
        style=STYLE,
        script=ONE_PLAYER,
        title=f"dap {text(record['task'])}: {_name(record['input'])}",
        summary=_summary(record, result, source),
        cards="\n".join(cards),
        convergence=_convergence(result),
        metrics=metrics,
        notes=_notes(record, source, gain),
        settings="\n".join(
            f"<tr><th scope=row>{text(key).replace('.', '.<wbr>')}</th><td>{text(value)}</td></tr>"
            for key, value in _flat(record)
        ),
    )


def _name(path: str) -> str:
    return text(PurePath(path).name)


def _summary(record: Mapping[str, Any], result: Result, noisy: Recording) -> str:
    """What was done, in one sentence, and how that came out in another."""
    fit, prior, noise = record["fit"], record["prior"], record["noise"]
    channels = {1: "mono", 2: "stereo"}.get(noisy.channels, f"{noisy.channels} channels")
    source = (
        f"<strong>{_name(record['input'])}</strong> ({noisy.length / noisy.rate:.6g} s, {channels}, {noisy.rate:,} Hz)"
    )
    output = f"<strong>{_name(record['output'])}</strong>"
    if not result.segments:
        return f"<p>Nothing was fitted to {source}; {output} holds the same sound.</p>"
    estimate = "estimate"
    parts = "" if len(result.segments) == 1 else f" in {len(result.segments)} segments"
    if "degradation" in record:
        words = (
            f"Degradation: {text(damage_in_words(record))}. The network was guided by {text(record['guide'])}; "
            f"{text(consistency_in_words(record))}."
        )
    elif "sources" in record:
        estimate = f"estimates of {len(record['sources'])} sources"
        names = ", ".join(f"{source['name']} (taken for {source['kind']})" for source in record["sources"])
        words = f"Sources: {text(names)}; {text(sum_in_words(record))}."
    else:
        kind = "white" if noise["white"] else "coloured"
        words = (
            f"Estimated noise: {kind}, standard deviation {noise['std']:.3g} of full scale; SNR of the input about "
            f"{noise['input_snr_db_estimated']:.1f} dB."
        )
    return (
        f"<p>An untrained network ({text(prior['name'])}, {prior['parameters']:,} parameters) was fitted to {source}"
        f"{parts} and its {estimate} written to {output}: {fit['iterations']:,} iterations in {fit['seconds']:.1f} s "
        f"on {text(record['device'])}.</p>\n"
        f"<p>Stopped by {text(fit['stopped_by'])} ({text(fit['rule_reason'])}). {words}</p>"
    )


def _beginning(shown: _Shown) -> Samples:
    """What the player of a recording holds, ``[C, n]``, as it was before it was scaled."""
    recording = shown.recording
    return recording.read(0, min(recording.length, round(_PLAYED_S * recording.rate))) / shown.scaled


def _card(
    shown: _Shown,
    played: Samples,
    picture: Spectrogram,
    scale: tuple[float, float],
    gaps: Sequence[tuple[float, float]],
    name: str,
) -> str:
    """Player and spectrogram, called ``name``, of a recording of which the samples ``played`` can be heard."""
    rate, seconds = shown.recording.rate, shown.recording.length / shown.recording.rate
    title = text(shown.title)
    label = (
        f"Spectrogram, {title}: 0 to {seconds:.3g} s, 0 to {rate / 2000:g} kHz, "
        f"colours from {scale[0]:g} to {scale[1]:g} dB"
    )
    if gaps:
        label += f", {len(gaps)} gap{'s' * (len(gaps) > 1)} marked above it"
    wav = _wav(played, rate)
    return (
        f"<figure{' class=wide' * shown.wide}>\n<figcaption><b>{title}</b> {_name(shown.path)}</figcaption>\n"
        f'<audio controls preload="metadata" aria-label="{title}" src="data:audio/wav;base64,{wav}"></audio>\n'
        f"{draw_spectrogram(picture, scale, seconds, rate, marks=gaps, name=name, label=label)}</figure>"
    )


def _wav(samples: Samples, rate: int) -> str:
    """A 16-bit WAV in base64; browsers cannot be relied on for more than two channels."""
    if len(samples) > 2:
        samples = samples.mean(axis=0, keepdims=True)
    return base64.b64encode(encode(Audio(samples, rate, "PCM_16", "WAV"))).decode()


def _convergence(result: Result) -> str:
    if not result.segments:
        return ""
    noise = any(fit.noise_std is not None for fit in result.segments)
    first, count = result.segments[0], len(result.segments)
    curves = "Loss and residual" if noise else "Loss"
    if count == 1:
        label = f"{curves} over {len(first.steps)} iterations, with iteration {first.best_iteration} marked"
        caption = f"Iteration {first.best_iteration} of {len(first.steps)} was kept (dot)."
    else:
        label = f"{curves} of {count} segments by iteration, with the kept iterations marked"
        caption = "Dots mark the iterations that were kept."
    svg, shown = draw_convergence(
        result.segments, result.learning, result.restored.rate, result.stft.white_gain, name="convergence", label=label
    )
    if result.learning:
        caption += f" The network had learned from the recording for {len(result.learning)} iterations before (dashed)."
    if shown < count:
        caption += f" {shown} of {count} segments are shown."
    if any(fit.rule != "fixed" for fit in result.segments):
        caption += " The stopping rule keeps the one with the lowest criterion."
    if noise:
        caption += " The residual is what the estimate leaves over, in units of full scale."
    return f"<section>\n<h2>Convergence</h2>\n<figure>{svg}<figcaption>{caption}</figcaption></figure>\n</section>"


def _metrics(tables: Sequence[tuple[str, Metrics, Metrics]], columns: tuple[str, str]) -> str:
    """Input against output, one metric per row, for every caption; nothing where no metric has a value."""
    if all(value is None for _, *sides in tables for side in sides for value in side.values()):
        return ""
    shown = "\n".join(_metric_table(*table, columns) for table in tables)
    return (
        f"<section>\n<h2>Metrics</h2>\n<p>Higher is better, except for the envelope distance.</p>\n{shown}\n</section>"
    )


def _metric_table(caption: str, before: Metrics, after: Metrics, columns: tuple[str, str]) -> str:
    rows = []
    for name in after:
        old, new = before[name], after[name]
        cells = ["-" if value is None else f"{value:.3f}" for value in (old, new)]
        cells.append("-" if old is None or new is None else f"{new - old:+.3f}")
        heading = text(METRIC_TITLES.get(name, name))
        rows.append(f"<tr><th scope=row>{heading}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>\n")
    head = "".join(f"<th scope=col>{title}</th>" for title in ("Metric", *columns, "Change"))
    return (
        f"<table class=numbers>\n<caption>{text(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{''.join(rows)}</tbody>\n</table>"
    )


def _notes(record: Mapping[str, Any], noisy: Recording, gain: float) -> str:
    """What the record has to say, what the players (lowered by ``gain``) do to the sound, how to read the pictures."""
    lines = notes_on_the_run(record)
    for key, note in record["notes"].items():
        if key.startswith("metrics"):
            group, _, rest = key.partition(".")
            source, _, metric = rest.rpartition(".")
            inside = "gaps_" if group.startswith("metrics_gaps") else ""
            heading = METRIC_TITLES.get(inside + metric, "metrics")
            lines.append(f"{f'{source}, {heading}' if source else heading}: {note}")
    if record.get("degradation", {}).get("kind") == "gaps":
        lines.append("Lines above the pictures mark the gaps.")
    if record["gain"] != 1:
        written = "files are" if "sources" in record else "file is"
        lines.append(f"Peaks passed full scale; the written {written} lowered by {record['gain']:.4f}.")
    lines.append("The pictures share one colour scale, on which a sine at full scale has 0 dB.")
    if noisy.channels > 1:
        lines.append("The pictures show the mean power of the channels.")
    if noisy.length > _PLAYED_S * noisy.rate:
        lines.append(f"The players hold the first {_PLAYED_S:g} s, the pictures everything.")
    if noisy.channels > 2:
        lines.append("The players hold the mean of the channels.")
    if gain < 1:
        lines.append(f"The players are {-20 * np.log10(gain):.2f} dB lower, all alike, to stay within full scale.")
    items = "\n".join(f"<li>{text(line)}</li>" for line in dict.fromkeys(lines))  # input and output may share some
    return f"<section>\n<h2>Notes</h2>\n<ul>\n{items}\n</ul>\n</section>"


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Keys joined with dots and values of what the page does not show elsewhere."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            if key != "notes" and not key.startswith("metrics"):
                yield from _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            yield prefix + key, value
