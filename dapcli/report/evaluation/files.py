"""An evaluation as files: Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict

from dapcli.evaluation.methods import label
from dapcli.evaluation.tables import GROUPS
from dapcli.report.evaluation.comparison import (
    Comparison,
    by_method,
    cell_in_words,
    column_title,
    difference_in_words,
    is_best,
)
from dapcli.report.record import to_json

HEADINGS = {"nothing": "blind", "noise": "told the noise", "reference": "oracle: told the reference"}
# Of a fit, in tables of all units; its curves are in the units' own files.
_FIT_FIELDS = ("iterations", "best_iteration", "stopped_by")


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


def _strong(words: str, strong: bool) -> str:
    return f"**{words}**" if strong else words
