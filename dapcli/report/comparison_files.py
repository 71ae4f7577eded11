"""An evaluation as files: Markdown, CSV and JSON, figures, spectrograms and a page.

The page refers to recordings and spectrograms in its folder, and so stays small however many there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dapcli.audio import read_audio
from dapcli.audio.files import write_files
from dapcli.evaluation.folder import INPUT, REFERENCE, Folder, Record
from dapcli.evaluation.methods import key, label
from dapcli.report.comparison import FIT_FIELDS, Comparison, metrics_in_words
from dapcli.report.figures import COLOURS, Curve, draw_boxes, draw_curves, shared_scale, spectrogram, to_png
from dapcli.report.page import render
from dapcli.report.record import to_json
from dapcli.report.table import printable, to_csv, to_markdown
from dapcli.report.words import metric_title

_BOXES = "Median, quartiles and every clip."
_CONVERGENCE = (
    "Every clip's oracle fit and their mean; the pretraining before is dashed. Dots mark the iteration that the blind "
    "fit returned, on the oracle's curve. The SNR is that of the network's estimate, before a filter or what is known "
    "of the degradation changes it."
)


def write_comparison(folder: Folder, comparison: Comparison) -> None:
    """Write tables, figures and the page to the folder of the evaluation, with the spectrograms that are not there."""
    for clip in comparison.clips:
        made = (key(each["method"], each["oracle"]) for each in comparison.of_clip(clip))
        _draw_spectrograms(folder, clip, [REFERENCE, *made])
    figures = [*_boxes(comparison), *_convergence(comparison)]
    page = {
        "title": f"dap evaluate {comparison.title}",
        "tables": comparison.tables,
        "notes": comparison.notes,
        "figures": figures,
        "clips": [_clip(folder, comparison, clip) for clip in comparison.clips],
    }
    parts = [f"# {comparison.title}", *map(to_markdown, comparison.tables)]
    parts.append("\n".join(f"- {note}" for note in comparison.notes))
    folder.write(
        {
            "results.md": printable("\n\n".join(parts).rstrip() + "\n"),
            "results.csv": to_csv(comparison.units),
            "results.json": to_object(comparison),
            **{f"{figure['name']}.svg": figure["svg"] for figure in figures},
            "index.html": render("evaluation.html.j2", page),
        }
    )


def to_object(comparison: Comparison) -> str:
    """All of it as one JSON object; docs/evaluate.md says what its keys are."""
    units = [
        {**record, "fit": record["fit"] and {name: record["fit"][name] for name in FIT_FIELDS}}
        for record in comparison.records
    ]
    return to_json(
        {
            **comparison.configuration,
            "clips": len(comparison.clips),
            "skipped": comparison.drawn.skipped,
            "unreadable": dict(comparison.drawn.unreadable),
            "failures": [
                dict(zip(("clip", "method", "reason"), failure, strict=True)) for failure in comparison.outcome.failures
            ],
            "table": [asdict(row) for row in comparison.rows],
            "differences": [{**asdict(each), "verdict": each.verdict} for each in comparison.differences],
            "units": units,
        }
    )


def _draw_spectrograms(folder: Folder, clip: str, names: Sequence[str]) -> None:
    """Pictures of the recordings of a clip that have none, on the colour scale of its reference and its input."""
    missing = [path for name in names for path in folder.audio(clip, name) if not folder.spectrogram(path).exists()]
    if not missing:
        return
    ends = [path for name in (REFERENCE, INPUT) for path in folder.audio(clip, name)]
    scale = shared_scale([spectrogram(read_audio(path)) for path in ends])
    contents = {folder.spectrogram(path): to_png(spectrogram(read_audio(path)), scale) for path in missing}
    for picture in contents:
        picture.parent.mkdir(parents=True, exist_ok=True)
    write_files(contents)


def _boxes(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """A box plot per metric."""
    for metric in comparison.metrics:
        values: dict[str, list[float]] = {label(row.method, row.oracle): [] for row in comparison.rows}
        for record in comparison.records:
            if (value := record["metrics"].get(metric)) is not None:
                values[label(record["method"], record["oracle"])].append(value)
        name, title = f"boxes_{metric}", metric_title(metric)
        svg = draw_boxes(values, title, name=name, label=f"Box plot of the {title} of each method")
        yield {"name": name, "caption": f"{title}: {_BOXES}", "svg": svg}


def _convergence(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """The convergence of each prior that has an oracle fit."""
    blind: dict[tuple[str, str], int] = {}
    oracles: dict[str, list[Record]] = {}
    for record in comparison.records:
        if record["fit"] and record["oracle"] == "reference":
            oracles.setdefault(record["method"], []).append(record)
        elif record["fit"]:
            blind[record["method"], record["clip"]] = record["fit"]["best_iteration"]
    for prior, records in oracles.items():
        panels = {}
        for title, quantity in (("SNR (dB)", "snr_db"), ("loss", "loss")):
            curves = []
            for record in records:
                marks = {"oracle stop": record["fit"]["best_iteration"]}
                if (prior, record["clip"]) in blind:
                    marks["blind stop"] = blind[prior, record["clip"]]
                values = _array(record["fit"][quantity])
                curves.append(Curve("each clip", values, marks, COLOURS[0], width=0.8, alpha=0.35))
            panels[title] = [*curves, _mean("mean", [curve.values for curve in curves], "-")]
        panels["loss"].append(_mean("pretraining", [_array(each["fit"]["pretraining_loss"]) for each in records], "--"))
        name, words = f"convergence_{prior}", f"SNR and loss of {prior} by iteration, with both stops marked"
        svg = draw_curves(panels, name=name, label=words)
        yield {"name": name, "caption": f"Convergence of {prior}: {_CONVERGENCE}", "svg": svg}


def _array(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _mean(title: str, curves: Sequence[Sequence[float]], style: str) -> Curve:
    """The mean of curves over the iterations that all have."""
    length = min(map(len, curves))
    mean = np.mean([curve[:length] for curve in curves], axis=0)
    return Curve(title, mean.tolist(), colour=COLOURS[0], style=style, width=2.0)


def _clip(folder: Folder, comparison: Comparison, clip: str) -> dict[str, Any]:
    """Players and spectrograms of one clip, for the page."""
    records = comparison.of_clip(clip)
    cards = [_card(folder, clip, REFERENCE, "reference", "the clean clip")]
    for record in records:
        method = record["method"], record["oracle"]
        cards.append(_card(folder, clip, key(*method), label(*method), metrics_in_words(record, comparison.metrics)))
    return {
        "title": ", ".join(Path(path).name for path in records[0]["files"]),
        "notes": "; ".join(note for name, note in records[0]["notes"].items() if name.startswith("clip_")),
        "cards": cards,
    }


def _card(folder: Folder, clip: str, name: str, title: str, words: str) -> dict[str, Any]:
    """Recordings of one name, of which there are several where a clip has several sources, and what is said of them."""
    paths = [(folder.spectrogram(path), path) for path in folder.audio(clip, name)]
    media = [tuple(path.relative_to(folder.path).as_posix() for path in pair) for pair in paths]
    return {"title": title, "words": words, "media": media}
