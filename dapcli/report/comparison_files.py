"""An evaluation as files: Markdown, CSV and JSON, figures, spectrograms and the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from dapcli.audio import read_audio
from dapcli.audio.files import Content, write_files
from dapcli.evaluation.folder import INPUT, REFERENCE, Folder
from dapcli.evaluation.methods import key, label
from dapcli.evaluation.tables import GROUPS
from dapcli.report.comparison import (
    HEADINGS,
    Comparison,
    by_method,
    cell_in_words,
    column_title,
    difference_in_words,
    is_best,
)
from dapcli.report.comparison_page import render_page
from dapcli.report.comparison_plots import draw_figures, spectrogram_png
from dapcli.report.plots import shared_scale, spectrogram
from dapcli.report.record import to_json

# Of a fit, in tables of all units; its curves are in the units' own files.
_FIT_FIELDS = ("iterations", "best_iteration", "stopped_by")


def write_comparison(folder: Folder, comparison: Comparison) -> None:
    """Write tables, figures and the page to the folder of the evaluation, with the spectrograms that are not there."""
    figures = draw_figures(comparison)
    for clip in comparison.clips:
        made = (key(each["method"], each["told"]) for each in comparison.of_clip(clip))
        _draw_spectrograms(folder, clip, [REFERENCE, *made])
    folder.write(
        {
            "results.md": to_markdown(comparison),
            "results.csv": to_csv(comparison),
            "results.json": to_object(comparison),
            **{f"{name}.svg": svg for name, svg in figures.items()},
            "index.html": render_page(folder, comparison, figures),
        }
    )


def to_markdown(comparison: Comparison) -> str:
    """The tables as Markdown."""
    titles = [column_title(metric) for metric in comparison.metrics]
    lines = [f"# {comparison.title}", "", "Mean and standard deviation over clips; the best of each group in bold.", ""]
    for told in GROUPS:
        rows = [row for row in comparison.rows if row.told == told]
        if rows:
            lines += [
                f"| {HEADINGS[told]} | {' | '.join((*titles, 's per clip'))} |",
                f"|---|{'---|' * (len(titles) + 1)}",
            ]
            for row in rows:
                cells = [
                    _strong(cell_in_words(row, metric, len(comparison.clips)), is_best(row, metric))
                    for metric in comparison.metrics
                ]
                lines.append(f"| {label(row.method, row.told)} | {' | '.join(cells)} | {row.seconds:.1f} |")
            lines.append("")
    if comparison.differences:
        lines += [
            f"Difference from {comparison.differences[0].pivot} on the same clips, the mean and its 95 % interval "
            "(percentile bootstrap over clips); bold where that excludes 0. Oracles are compared with its oracle.",
            "",
            f"| | {' | '.join(titles)} |",
            f"|---|{'---|' * len(titles)}",
        ]
        for (method, knowing), by_metric in by_method(comparison.differences).items():
            cells = [
                _strong(difference_in_words(each), each is not None and each.verdict != "open")
                for each in map(by_metric.get, comparison.metrics)
            ]
            lines.append(f"| {label(method, knowing)} | {' | '.join(cells)} |")
        lines.append("")
    lines += [f"- {note}" for note in comparison.notes]
    return "\n".join(lines).rstrip() + "\n"


def to_csv(comparison: Comparison) -> str:
    """One row per clip and method with all metrics; what has no value is empty."""
    metrics = list(dict.fromkeys(metric for record in comparison.records for metric in record["metrics"]))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["clip", "files", "method", "told", *metrics, "seconds", *_FIT_FIELDS])
    for record in comparison.records:
        fit = record["fit"] or {}
        table.writerow(
            [record["clip"], " ".join(record["files"]), record["method"], record["told"]]
            + [record["metrics"].get(metric) for metric in metrics]
            + [record["seconds"], *(fit.get(field) for field in _FIT_FIELDS)]
        )
    return text.getvalue()


def to_object(comparison: Comparison) -> str:
    """All of it as one JSON object; docs/evaluate.md says what its keys are."""
    units = [
        {**record, "fit": record["fit"] and {field: record["fit"][field] for field in _FIT_FIELDS}}
        for record in comparison.records
    ]
    return to_json(
        {
            **comparison.configuration,
            "clips": len(comparison.clips),
            "skipped": comparison.skipped,
            "unreadable": dict(comparison.unreadable),
            "failures": [
                {"clip": clip, "method": method, "reason": reason} for clip, method, reason in comparison.failures
            ],
            "table": [asdict(row) for row in comparison.rows],
            "differences": [{**asdict(each), "verdict": each.verdict} for each in comparison.differences],
            "units": units,
        }
    )


def _draw_spectrograms(folder: Folder, clip: str, names: Sequence[str]) -> None:
    """Pictures of the recordings of a clip that have none, on the colour scale of its reference and its input."""
    scale = None
    contents: dict[Path, Content] = {}
    for path in (path for name in names for path in folder.audio(clip, name)):
        picture = folder.spectrogram(path)
        if picture.exists():
            continue
        if scale is None:
            ends = [*folder.audio(clip, REFERENCE), *folder.audio(clip, INPUT)]
            scale = shared_scale([spectrogram(read_audio(each)) for each in ends])
        contents[picture] = spectrogram_png(spectrogram(read_audio(path)), scale)
    for picture in contents:
        picture.parent.mkdir(parents=True, exist_ok=True)
    write_files(contents)


def _strong(words: str, strong: bool) -> str:
    return f"**{words}**" if strong else words
