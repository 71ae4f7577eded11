"""What an evaluation found: in tables and words, and as files: Markdown, CSV and JSON, figures, spectrograms, a page.

The page refers to recordings and spectrograms in its folder, and so stays small however many there are.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from dapcli.audio import read_audio
from dapcli.evaluation.clips import Drawn
from dapcli.evaluation.folder import INPUT, REFERENCE, Folder, Record
from dapcli.evaluation.methods import ORACLES, key, label
from dapcli.evaluation.run import Outcome
from dapcli.evaluation.tables import FEWEST_CLIPS, Difference, Row, choose_columns, choose_pivot, compare, summarize
from dapcli.report.figures import (
    COLOURS,
    STYLES,
    Curve,
    Levels,
    Values,
    draw_boxes,
    draw_curves,
    shared_scale,
    spectrogram,
    to_png,
)
from dapcli.report.page import render
from dapcli.report.record import to_json
from dapcli.report.table import Cell, Table, printable, row, to_markdown
from dapcli.report.words import count, metric_title

# Metrics whose differences are in the third decimal.
_FINE = ("envelope_distance", "stoi")
# What is shown by iteration, and after which ones: those of the Harmonic paper's Figure 1.
_QUANTITIES = {"snr_db": "SNR (dB)", "psnr_db": "PSNR to clean (dB)", "input_psnr_db": "PSNR to input (dB)"}
_MILESTONES = (50, 200, 1000)
# Of a fit, in tables of all units; its curves are in the units' own files.
_FIT_FIELDS = ("iterations", "best_iteration", "stopped_by")


@dataclass(frozen=True)
class Comparison:
    """All that an evaluation found: what it made of the clips that were drawn, and what that amounts to.

    ``curves`` asks how the oracle's fits converge, too, where there is one reference.
    """

    configuration: Mapping[str, Any]
    outcome: Outcome
    drawn: Drawn
    curves: bool = False

    @property
    def records(self) -> Sequence[Record]:
        """The records of all clips and methods."""
        return self.outcome.records

    @cached_property
    def clips(self) -> dict[str, list[Record]]:
        """The records of each clip, in the order of the methods."""
        clips: dict[str, list[Record]] = {}
        for record in self.records:
            clips.setdefault(record["clip"], []).append(record)
        return clips

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """The columns of the tables."""
        return choose_columns(self.records, self.configuration["task"])

    @cached_property
    def rows(self) -> list[Row]:
        """The means of all methods."""
        return summarize(self.records, self.metrics)

    @cached_property
    def differences(self) -> list[Difference]:
        """How the methods differ from one of them."""
        pivot = choose_pivot(self.records)
        return compare(self.records, self.metrics, pivot) if pivot else []

    @property
    def tables(self) -> list[Table]:
        """The results of all methods, group by group, and how they differ from one of them."""
        titles = [metric_title(metric) for metric in self.metrics]
        clips = len(self.clips)
        results = Table(
            ("method", *titles, "s per clip"),
            [
                row(
                    label(each.method, each.oracle),
                    *(_result(each, metric, clips) for metric in self.metrics),
                    f"{each.seconds:.1f}",
                )
                for each in self.rows
            ],
            "Mean and standard deviation over clips; the best of each group in bold. Oracles know the noise, or pick "
            "the iteration by the clean reference, which no user has.",
            [ORACLES[each.oracle].heading for each in self.rows],
        )
        convergence = [_milestones(self.convergence)] if self.convergence else []
        if not self.differences:
            return [results, *convergence]
        grouped: dict[str, dict[str, Difference]] = {}
        for each in self.differences:
            grouped.setdefault(label(each.method, each.oracle), {})[each.metric] = each
        differences = Table(
            ("method", *titles),
            [row(name, *map(_difference, map(own.get, self.metrics))) for name, own in grouped.items()],
            f"Difference from {self.differences[0].pivot} on the same clips: the mean and its 95 % interval "
            "(percentile bootstrap over clips), bold where it is more than chance. Oracles are compared with its "
            "oracle.",
        )
        return [results, differences, *convergence]

    @cached_property
    def convergence(self) -> dict[str, dict[str, Levels]]:
        """By quantity and prior, means over clips by iteration; empty unless asked for."""
        fits: dict[str, list[dict[str, Any]]] = {}
        for record in self.records if self.curves else ():
            # Of a silent clip there is no SNR.
            if record["oracle"] == "reference" and record["fit"] and None not in record["fit"]["snr_db"]:
                fits.setdefault(record["method"], []).append(record["fit"])
        return {
            quantity: {prior: _mean([fit[quantity] for fit in found]) for prior, found in fits.items()}
            for quantity in _QUANTITIES
            if fits
        }

    @property
    def notes(self) -> list[str]:
        """What readers of the tables should know."""
        lines = []
        if len(self.clips) < FEWEST_CLIPS:
            lines.append(f"with fewer than {FEWEST_CLIPS} clips no difference counts as more than chance")
        if self.configuration["task"] == "separate":
            lines.append("sources are numbered as the clean files were named")
        if self.drawn.skipped:
            seconds = self.configuration["duration_s"]
            lines.append(f"{count(self.drawn.skipped, 'clip')} shorter than {seconds:g} s skipped")
        lines += [f"not read: {reason}" for reason in self.drawn.unreadable.values()]
        reasons: dict[tuple[str, str], list[str]] = {}
        for clip, method, reason in self.outcome.failures:
            reasons.setdefault((clip, reason), []).append(method)
        lines += [f"failed: {clip}, {', '.join(methods)}: {reason}" for (clip, reason), methods in reasons.items()]
        looped = {
            note for record in self.records for note in record["notes"].values() if note.startswith("noise looped")
        }
        return lines + sorted(looped)

    @property
    def failed(self) -> str:
        """How much failed, such as ``2 of 8 results failed; 1 clean file cannot be read``."""
        total = len(self.records) + len(self.outcome.failures)
        parts = [f"{len(self.outcome.failures)} of {total} results failed"] if self.outcome.failures else []
        if self.drawn.unreadable:
            parts.append(f"{count(len(self.drawn.unreadable), 'file')} cannot be read")
        return "; ".join(parts)

    @property
    def title(self) -> str:
        """What was evaluated, such as ``denoise, gaussian (noise_std 0.1): 8 clips of 1 s, seed 0``."""
        protocol = dict(self.configuration["protocol"])
        name = protocol.pop("name")
        values = ", ".join(f"{key} {_in_words(value)}" for key, value in protocol.items() if key != "noise")
        seconds = self.configuration["duration_s"]
        return (
            f"{self.configuration['task']}, {name}{values and f' ({values})'}: {count(len(self.clips), 'clip')}"
            f"{'' if seconds is None else f' of {seconds:g} s'}, seed {self.configuration['seed']}"
        )


def write_comparison(folder: Folder, comparison: Comparison) -> None:
    """Write tables, figures and the page to the folder of the evaluation, with the spectrograms that are not there."""
    for clip, records in comparison.clips.items():
        _draw_spectrograms(folder, clip, [REFERENCE, *(key(each["method"], each["oracle"]) for each in records)])
    figures = [*_curves(comparison), *_boxes(comparison), *_convergence(comparison)]
    page = {
        "title": f"dap evaluate {comparison.title}",
        "tables": comparison.tables,
        "notes": comparison.notes,
        "figures": figures,
        "clips": [_clip(folder, clip, records, comparison.metrics) for clip, records in comparison.clips.items()],
    }
    parts = [f"# {comparison.title}", *map(to_markdown, comparison.tables)]
    parts.append("\n".join(f"- {note}" for note in comparison.notes))
    texts = {
        "results.md": printable("\n\n".join(parts).rstrip() + "\n"),
        "results.csv": _to_csv(comparison.records),
        **({"curves.csv": _curves_to_csv(comparison.convergence)} if comparison.convergence else {}),
        "results.json": to_object(comparison),
        **{f"{figure['name']}.svg": figure["svg"] for figure in figures},
        "index.html": render("evaluation.html.j2", page),
    }
    folder.write({folder.path / name: text.encode() for name, text in texts.items()})


def to_object(comparison: Comparison) -> str:
    """All of it as one JSON object; docs/evaluate.md says what its keys are."""
    outcome, drawn = comparison.outcome, comparison.drawn
    return to_json(
        {
            **comparison.configuration,
            "clips": len(comparison.clips),
            "skipped": drawn.skipped,
            "unreadable": drawn.unreadable,
            "failures": [{"clip": clip, "method": method, "reason": why} for clip, method, why in outcome.failures],
            "table": [asdict(row) for row in comparison.rows],
            "differences": [asdict(each) for each in comparison.differences],
            "units": [
                {**each, "fit": each["fit"] and {name: each["fit"][name] for name in _FIT_FIELDS}}
                for each in outcome.records
            ],
        }
    )


def _to_csv(records: Sequence[Record]) -> str:
    """One row per clip and method with all metrics; what has no value is empty."""
    lines = [
        {
            **{name: record[name] for name in ("clip", "files", "method", "oracle")},
            "files": " ".join(record["files"]),
            **record["metrics"],
            "seconds": record["seconds"],
            **{name: (record["fit"] or {}).get(name) for name in _FIT_FIELDS},
        }
        for record in records
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, dict.fromkeys(chain.from_iterable(lines)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return printable(text.getvalue())


def _draw_spectrograms(folder: Folder, clip: str, names: Sequence[str]) -> None:
    """Pictures of the recordings of a clip that have none, on the colour scale of its reference and its input."""
    missing = [path for name in names for path in folder.audio(clip, name) if not folder.spectrogram(path).exists()]
    if not missing:
        return
    ends = [path for name in (REFERENCE, INPUT) for path in folder.audio(clip, name)]
    scale = shared_scale([spectrogram(read_audio(path)) for path in ends])
    folder.write({folder.spectrogram(path): to_png(spectrogram(read_audio(path)), scale) for path in missing})


def _boxes(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """A box plot per metric."""
    for metric in comparison.metrics:
        values: dict[str, list[float]] = {label(row.method, row.oracle): [] for row in comparison.rows}
        for record in comparison.records:
            if (value := record["metrics"].get(metric)) is not None:
                values[label(record["method"], record["oracle"])].append(value)
        name, title = f"boxes_{metric}", metric_title(metric)
        svg = draw_boxes(values, title, name=name, label=f"Box plot of the {title} of each method")
        yield {"name": name, "title": title, "svg": svg}


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
                look = {"color": COLOURS[0], "lw": 0.8, "alpha": 0.35}
                curves.append(Curve("each clip", np.array(record["fit"][quantity], dtype=float), marks, look))
            look = {"color": COLOURS[0], "lw": 2.0}
            panels[title] = [*curves, Curve("mean", _mean([curve.values for curve in curves]), look=look)]
        pretraining = _mean([each["fit"]["pretraining_loss"] for each in records])
        panels["loss"].append(Curve("pretraining", pretraining, look={**look, "ls": "--"}))
        name, words = f"convergence_{prior}", f"SNR and loss of {prior} by iteration, with both stops marked"
        svg = draw_curves(panels, name=name, label=words)
        yield {"name": name, "title": f"Convergence of {prior}", "svg": svg}


def _curves(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """The convergence of all priors in one picture."""
    panels = {
        _QUANTITIES[quantity]: [
            Curve(prior, values, look={"color": COLOURS[index % len(COLOURS)], "ls": STYLES[index // len(COLOURS)]})
            for index, (prior, values) in enumerate(priors.items())
        ]
        for quantity, priors in comparison.convergence.items()
        if quantity != "snr_db"  # which is the PSNR but for a constant
    }
    if panels:
        words = "PSNR of each prior to the clean recording and to the degraded one, by iteration"
        svg = draw_curves(panels, name="curves", label=words, log=True)
        yield {"name": "curves", "title": "Convergence", "svg": svg}


def _milestones(convergence: Mapping[str, Mapping[str, Levels]]) -> Table:
    """The SNR of each prior after some iterations, and the best."""
    curves = convergence["snr_db"]
    last = max(map(len, curves.values()))
    after = sorted({*(each for each in _MILESTONES if each < last), last})
    rows = []
    for prior, values in curves.items():
        reached = (f"{values[each - 1]:.2f}" if each <= len(values) else None for each in after)
        best = int(np.argmax(np.nan_to_num(values, nan=-np.inf)))
        rows.append(row(prior, *reached, f"{values[best]:.2f}", str(best + 1)))
    return Table(
        ("prior", *(f"after {each}" for each in after), "best", "iteration"),
        rows,
        "SNR (dB) by iteration, the mean over clips, and the best of these means.",
    )


def _curves_to_csv(convergence: Mapping[str, Mapping[str, Levels]]) -> str:
    """One row per prior and iteration."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("prior", "iteration", *convergence))
    for prior in convergence["snr_db"]:
        columns = (priors[prior] for priors in convergence.values())
        writer.writerows((prior, index, *values) for index, values in enumerate(zip(*columns, strict=True), 1))
    return text.getvalue()


def _mean(curves: Sequence[Values]) -> Levels:
    """The mean of curves over the iterations that all have."""
    length = min(map(len, curves))
    return np.asarray(np.mean([np.asarray(curve[:length], dtype=float) for curve in curves], axis=0))


def _clip(folder: Folder, clip: str, records: Sequence[Record], metrics: Sequence[str]) -> dict[str, Any]:
    """Players and spectrograms of one clip, for the page; a clip has several of one name if it has several sources."""
    cards = [(REFERENCE, "reference", "the clean clip")]
    for record in records:
        method = record["method"], record["oracle"]
        cards.append((key(*method), label(*method), metrics_in_words(record, metrics)))
    return {
        "title": ", ".join(Path(path).name for path in records[0]["files"]),
        "notes": "; ".join(note for name, note in records[0]["notes"].items() if name.startswith("clip_")),
        "cards": [
            {
                "title": title,
                "words": words,
                "media": [
                    [each.relative_to(folder.path).as_posix() for each in (folder.spectrogram(path), path)]
                    for path in folder.audio(clip, name)
                ],
            }
            for name, title, words in cards
        ],
    }


def metrics_in_words(record: Record, metrics: Sequence[str]) -> str:
    """The metrics that a record has, such as ``SNR 7.12 dB, STOI 0.873``."""
    parts = []
    for metric in metrics:
        if (value := record["metrics"].get(metric)) is not None:
            name, unit, source = metric_title(metric).partition(" (dB)")
            parts.append(f"{name}{source} {_value(metric, value)}{' dB' if unit else ''}")
    return ", ".join(parts)


def _in_words(value: Any) -> str:
    """A value of a protocol: both ends of a range, several words, or one of either."""
    if isinstance(value, (list, tuple)):
        return " and ".join(value) if isinstance(value[0], str) else ":".join(f"{each:g}" for each in value)
    return str(value)


def _value(metric: str, value: float, sign: str = "") -> str:
    """A value with the decimals that its metric deserves; ``sign`` may be ``+``."""
    return f"{value:{sign}.{3 if metric.startswith(_FINE) else 2}f}"


def _result(result: Row, metric: str, clips: int) -> Cell:
    """Mean and standard deviation, and over how many clips unless over all."""
    cell = result.cells[metric]
    if cell is None:
        return Cell(None)
    words = _value(metric, cell.mean)
    if cell.std is not None:
        words += f" ± {_value(metric, cell.std)}"
    return Cell(words if cell.count == clips else f"{words} (n={cell.count})", cell.best)


def _difference(difference: Difference | None) -> Cell:
    """The mean, and its interval below."""
    if difference is None:
        return Cell(None)
    words = _value(difference.metric, difference.mean, "+")
    if difference.low is not None and difference.high is not None:
        ends = (_value(difference.metric, end, "+") for end in (difference.low, difference.high))
        words += f"\n[{', '.join(ends)}]"
    return Cell(words, difference.verdict != "open")
