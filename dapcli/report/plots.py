"""Pictures of a restoration for its report page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from dapcli.audio import Recording, Samples
from dapcli.fit import Step
from dapcli.report.svg import COLOURS, INK, WIDTH_IN, ink, to_svg
from dapcli.tasks import SegmentFit

Levels = NDArray[np.float64]

_STYLES = ("-", "--")
_MAX_CURVES = len(COLOURS) * len(_STYLES)
_MAX_POINTS = 400

_WINDOW_S = 0.048
_MAX_COLUMNS = 512
_MAX_ROWS = 192
# Windows averaged in one column at the most. Those of long recordings do not overlap: the picture samples them.
_MAX_GROUP = 4
_FLOOR_DB = -200.0
_RANGE_DB = 80.0
# 1.25 dB apart, which nobody can see; it compresses a third better than 256.
_SHADES = 64


@dataclass(frozen=True)
class Spectrogram:
    """Mean power of the channels ``[F, T]``, in dB of a sine at full scale.

    A row is ``row_hz`` high and the first is centred at 0 Hz; a column is ``column_s`` wide and begins at 0 s.
    """

    levels: Levels
    row_hz: float
    column_s: float


def spectrogram(recording: Recording, scaled: float = 1.0) -> Spectrogram:
    """Spectrogram, no larger than a picture needs, of a recording as it was before it was scaled by ``scaled``.

    Only what the picture samples is read, column by column.
    """
    n_fft = 2 * round(_WINDOW_S * recording.rate / 2)
    group = min(max(math.ceil(recording.length / (n_fft // 4) / _MAX_COLUMNS), 1), _MAX_GROUP)
    hop = max(n_fft // 4, math.ceil(recording.length / (_MAX_COLUMNS * group)))
    columns = math.ceil(recording.length / (hop * group))
    step = math.ceil(n_fft // 2 / _MAX_ROWS)
    rows = n_fft // 2 // step

    window = np.hanning(n_fft + 1)[:-1]
    weights = window / (window.sum() / 2)
    power = np.zeros((columns, rows))
    for column in range(columns):
        centres = [(2 * index + 1) * hop // 2 for index in range(column * group, (column + 1) * group)]
        frames = np.stack([_frame(recording, centre - n_fft // 2, n_fft) for centre in centres], axis=1)
        for channel in frames:
            spectrum = np.abs(np.fft.rfft(channel / scaled * weights)[:, : rows * step]) ** 2
            power[column] += spectrum.reshape(group, rows, step).mean(axis=(0, 2)) / recording.channels
    levels = 10 * np.log10(np.maximum(power.T, 10 ** (_FLOOR_DB / 10)))
    return Spectrogram(levels, step * recording.rate / n_fft, group * hop / recording.rate)


def _frame(recording: Recording, start: int, size: int) -> Samples:
    """Samples ``[C, size]`` from ``start`` on, with silence before and after the recording."""
    first, last = (min(max(place, 0), recording.length) for place in (start, start + size))
    frame = np.zeros((recording.channels, size))
    frame[:, first - start : last - start] = recording.read(first, last)
    return frame


def shared_scale(spectrograms: Sequence[Spectrogram]) -> tuple[float, float]:
    """Lowest and highest level, dB, of one colour scale that suits all of these."""
    loudest = max(float(each.levels.max()) for each in spectrograms)
    top = 10 * math.ceil(loudest / 10) if loudest > _FLOOR_DB else 0.0
    return top - _RANGE_DB, top


def draw_spectrogram(
    picture: Spectrogram,
    scale: tuple[float, float],
    seconds: float,
    rate: int,
    *,
    marks: Sequence[tuple[float, float]] = (),
    name: str,
    label: str,
) -> str:
    """SVG of a spectrogram of ``seconds`` at ``rate`` Hz over a colour scale in dB; see :func:`to_svg`.

    A line above it marks every stretch of ``marks``, in s.
    """
    figure = Figure(figsize=(WIDTH_IN, 2.2))
    axes = figure.add_subplot()
    figure.subplots_adjust(left=0.12, right=0.98, bottom=0.19, top=0.96)  # a layout engine would take as long again
    rows, columns = picture.levels.shape
    khz = picture.row_hz / 1000
    image = axes.imshow(
        picture.levels,
        cmap=colormaps["magma"].resampled(_SHADES),
        vmin=scale[0],
        vmax=scale[1],
        origin="lower",
        aspect="auto",
        interpolation="none",  # embeds the pixels as they are
        extent=(0.0, columns * picture.column_s, -khz / 2, (rows - 0.5) * khz),
    )
    axes.set(xlim=(0.0, seconds), ylim=(0.0, rate / 2000), xlabel="time (s)", ylabel="frequency (kHz)")
    axes.locator_params(axis="x", nbins=5)
    if marks:
        widest = seconds / _MAX_COLUMNS  # so that the shortest can be seen
        spans = [(start, max(stop - start, widest)) for start, stop in _thinned(marks, widest)]
        axes.broken_barh(spans, (1.01, 0.03), transform=axes.get_xaxis_transform(), clip_on=False, color=INK, lw=0)
    bar = figure.colorbar(image, label="level (dB)", pad=0.02, fraction=0.17, aspect=30)
    for each in (axes, bar.ax):
        ink(each)
    return to_svg(figure, name, label)


def _thinned(spans: Sequence[tuple[float, float]], least: float) -> list[tuple[float, float]]:
    """Spans in order of their start, those merged that are closer than ``least``."""
    merged: list[tuple[float, float]] = []
    for start, stop in spans:
        if merged and start - merged[-1][1] < least:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((start, stop))
    return merged


def draw_convergence(
    fits: Sequence[SegmentFit], learning: Sequence[Step], rate: int, white_gain: float, *, name: str, label: str
) -> tuple[str, int]:
    """SVG of loss, residual and stopping criterion by iteration, and of how many fits it shows (at most eight).

    The steps of ``learning``, which came before all fits, are dashed in the colour of text.

    Residuals are in units of full scale, by the spectrogram's mean square ``white_gain`` for white noise of level 1;
    ``rate`` is that of the recording in Hz. See :func:`to_svg`.
    """
    shown = [fits[index] for index in np.unique(np.linspace(0, len(fits) - 1, _MAX_CURVES).round().astype(int))]
    panels = ["loss", "residual", "criterion"]
    if all(fit.rule == "fixed" for fit in shown):
        panels.pop()  # it only counts
    if all(fit.noise_std is None for fit in shown):
        panels.remove("residual")  # a repair is not meant to leave over anything in particular
    figure = Figure(figsize=(WIDTH_IN, 1.3 * len(panels) + 0.5), layout="constrained")
    rows: list[Axes] = list(figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0])
    lines: dict[str, Artist] = {}
    if learning:
        for axes, quantity in zip(rows[:2], panels, strict=False):
            factor = white_gain**-0.5 if quantity == "residual" else 1.0
            values = [factor * getattr(step, quantity) for step in learning]
            (lines["learning"],) = axes.plot([step.iteration for step in learning], values, "--", color=INK, alpha=0.6)
    for number, fit in enumerate(shown):
        colour, style = COLOURS[number % len(COLOURS)], _STYLES[number // len(COLOURS)]
        steps = fit.steps[:: math.ceil(len(fit.steps) / _MAX_POINTS)]
        best = fit.steps[fit.best_iteration - 1]
        for axes, quantity in zip(rows, panels, strict=True):
            factor = white_gain**-0.5 if quantity == "residual" else 1.0
            # A criterion that has not settled is infinite, and is not drawn.
            values = [factor * getattr(step, quantity) for step in steps]
            (line,) = axes.plot([step.iteration for step in steps], values, style, color=colour)
            (dot,) = axes.plot(best.iteration, factor * getattr(best, quantity), "o", color=colour)
        lines[f"{fit.start / rate:.1f} to {fit.stop / rate:.1f} s"] = line
    if len(shown) == 1:
        learned = {"learning": lines["learning"]} if learning else {}
        lines = {**learned, "fit": line, "kept iteration": dot}
        if shown[0].noise_std is not None:
            lines["estimated noise"] = rows[1].axhline(shown[0].noise_std, color=INK, linestyle=":")
    figure.legend(
        lines.values(),
        lines.keys(),
        loc="outside upper center",
        ncols=3,
        fontsize=8,
        handlelength=1.6,
        columnspacing=1.2,
        frameon=False,
        labelcolor=INK,
    )
    for axes, quantity in zip(rows, panels, strict=True):
        axes.set_ylabel(quantity)
        axes.grid(color=INK, alpha=0.15)
        ink(axes)
    rows[-1].set_xlabel("iteration")
    rows[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.align_ylabels(rows)
    return to_svg(figure, name, label), len(shown)
