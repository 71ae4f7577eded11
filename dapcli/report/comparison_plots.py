"""Pictures of an evaluation: how results spread over clips, how fits converge, and small spectrograms."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from dapcli.evaluation.folder import Record
from dapcli.evaluation.methods import label
from dapcli.report.comparison import Comparison, column_title
from dapcli.report.html import text
from dapcli.report.plots import Spectrogram
from dapcli.report.svg import COLOURS, INK, WIDTH_IN, ink, to_svg

Curve = NDArray[np.float64]

_SHADES = 64
# Width of a letter of a tick's label, about.
_LETTER_IN = 0.06


def draw_figures(comparison: Comparison) -> dict[str, str]:
    """The figures as SVG by name: a box plot per metric, and the convergence of each prior that has an oracle fit."""
    figures = {}
    for metric in comparison.metrics:
        values = {
            label(row.method, row.told): [
                value
                for record in comparison.records
                if (record["method"], record["told"]) == (row.method, row.told)
                and (value := record["metrics"].get(metric)) is not None
            ]
            for row in comparison.rows
        }
        title = column_title(metric)
        figures[f"boxes_{metric}"] = _draw_boxes(
            values, title, name=f"boxes_{metric}", label=f"Box plot of the {text(title)} of each method"
        )
    fitted = [record for record in comparison.records if record["fit"]]
    for prior in dict.fromkeys(record["method"] for record in fitted):
        own = [record for record in fitted if record["method"] == prior]
        oracles = [record for record in own if record["told"] == "reference"]
        blind = {record["clip"]: record["fit"]["best_iteration"] for record in own if record["told"] == "nothing"}
        if oracles:
            name = f"convergence_{prior}"
            words = f"SNR and loss of {text(prior)} by iteration, with the blind and the oracle stop marked"
            figures[name] = _draw_curves(oracles, blind, name=name, label=words)
    return figures


def _draw_boxes(values: Mapping[str, Sequence[float]], title: str, *, name: str, label: str) -> str:
    """SVG of the values of each method: median, quartiles, whiskers to 1.5 times their distance, and every clip."""
    height = 0.3 * len(values) + 0.7
    figure = Figure(figsize=(WIDTH_IN, height))
    axes = figure.add_subplot()
    # A layout engine would take as long again.
    left = min(_LETTER_IN * max(map(len, values)) + 0.15, WIDTH_IN / 2)
    figure.subplots_adjust(left / WIDTH_IN, 0.5 / height, 0.97, 1 - 0.08 / height)
    line = {"color": INK, "linewidth": 1.0}
    axes.boxplot(
        list(values.values()),
        orientation="horizontal",
        widths=0.6,
        showfliers=False,  # every clip has its dot
        boxprops=line,
        whiskerprops=line,
        capprops=line,
        medianprops={"color": COLOURS[1], "linewidth": 2.0},
    )
    for row, points in enumerate(values.values(), 1):
        # Clips side by side, in the same order for every method, so that dots do not hide each other.
        heights = row + (np.linspace(-0.2, 0.2, len(points)) if len(points) > 1 else np.zeros(len(points)))
        axes.plot(points, heights, ".", color=COLOURS[0], alpha=0.6, markersize=4)
    axes.set_yticks(range(1, len(values) + 1), list(values))
    axes.invert_yaxis()
    axes.set_xlabel(title)
    axes.grid(axis="x", color=INK, alpha=0.15)
    ink(axes)
    return to_svg(figure, name, label)


def _draw_curves(oracles: Sequence[Record], best: Mapping[str, int], *, name: str, label: str) -> str:
    """SVG of SNR and loss by iteration of one prior: every clip's oracle fit, and their mean.

    Dots are the iterations that the blind fits returned, by clip in ``best``, rings those of the oracle. What the
    networks learned before is dashed.
    """
    figure = Figure(figsize=(WIDTH_IN, 3.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for axes, quantity in ((above, "snr_db"), (below, "loss")):
        curves = [_curve(record["fit"][quantity]) for record in oracles]
        for record, curve in zip(oracles, curves, strict=True):
            axes.plot(np.arange(1, len(curve) + 1), curve, color=COLOURS[0], alpha=0.35, linewidth=0.8)
            _mark(axes, curve, record["fit"]["best_iteration"], "o")
            if record["clip"] in best:
                _mark(axes, curve, best[record["clip"]], ".")
        _plot_mean(axes, curves, "-")
        axes.set_ylabel({"snr_db": "SNR (dB)", "loss": "loss"}[quantity])
    _plot_mean(below, [_curve(record["fit"]["learning_loss"]) for record in oracles], "--")
    for axes in (above, below):
        axes.grid(color=INK, alpha=0.15)
        ink(axes)
    below.set_xlabel("iteration")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.align_ylabels([above, below])
    figure.legend(
        [
            Line2D([], [], color=COLOURS[0]),
            Line2D([], [], color=COLOURS[0], alpha=0.35),
            Line2D([], [], color=COLOURS[1], marker=".", linestyle=""),
            Line2D([], [], color=COLOURS[1], marker="o", mfc="none", linestyle=""),
        ],
        ["mean", "each clip", "blind stop", "oracle stop"],
        loc="outside upper center",
        ncols=4,
        fontsize=8,
        handlelength=1.2,
        columnspacing=1.2,
        frameon=False,
        labelcolor=INK,
    )
    return to_svg(figure, name, label)


def spectrogram_png(picture: Spectrogram, scale: tuple[float, float]) -> bytes:
    """A spectrogram without axes over a colour scale in dB."""
    buffer = io.BytesIO()
    colours = colormaps["magma"].resampled(_SHADES)
    imsave(buffer, picture.levels, vmin=scale[0], vmax=scale[1], cmap=colours, origin="lower", format="png")
    return buffer.getvalue()


def _curve(values: Sequence[float | None]) -> Curve:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _mark(axes: Axes, curve: Curve, iteration: int, marker: str) -> None:
    if iteration <= len(curve):
        axes.plot(iteration, curve[iteration - 1], marker, color=COLOURS[1], mfc="none" if marker == "o" else None)


def _plot_mean(axes: Axes, curves: Sequence[Curve], style: str) -> None:
    """The mean of curves over the iterations that all have."""
    length = min(map(len, curves))
    if length:
        mean = np.mean([curve[:length] for curve in curves], axis=0)
        axes.plot(np.arange(1, length + 1), mean, style, color=COLOURS[0], linewidth=2.0)
