"""Pictures: spectrograms, how fits converge, and how results spread over clips.

Spectrograms are bitmaps without axes; all else is inline SVG that takes the colour of its text from the page, in light
and dark mode.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from markupsafe import Markup, escape
from matplotlib import colormaps, rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from dapcli.audio import Recording, Samples
from dapcli.signal.stft import STFT

Levels = NDArray[np.float64]
Values2D: TypeAlias = "Sequence[Sequence[float]] | Levels"
Values: TypeAlias = "Sequence[float] | Levels"

#: Distinct for the colour-blind, and with a contrast of 3:1 on white and on black.
COLOURS = ("#1f86d0", "#d55e00", "#009e73", "#b5588e")
#: Tell curves of one colour apart.
STYLES = ("-", "--", ":")
# As wide as a phone, so that labels can be read there; wider screens enlarge it.
_WIDTH_IN = 4.0
# Stands for the page's text colour until the SVG is done: a colour that nothing else has.
_INK = "#010203"
_STYLE: Any = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), _INK),
    **{f"boxplot.{part}props.color": _INK for part in ("box", "whisker", "cap")},
    "boxplot.medianprops.color": COLOURS[1],
    "boxplot.medianprops.linewidth": 2.0,
    "axes.edgecolor": f"{_INK}66",
    "axes.labelsize": 9,
    "font.size": 8,
    "grid.alpha": 0.15,
    "legend.columnspacing": 1.2,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
}

_WINDOW_S = 0.048
_MAX_COLUMNS = 512
_MAX_ROWS = 192
# Windows averaged in the columns of a picture at the most. Those of long recordings do not overlap: it samples them.
_MAX_WINDOWS = 2048
_FLOOR_DB = -200.0
_RANGE_DB = 80.0
# 1.25 dB apart, which nobody can see; it compresses a third better than 256.
_SHADES = 64
# Of WebP; noise in a picture is noise, whatever its pixels.
_QUALITY = 50
# Where K-weighting (ITU-R BS.1770) begins to raise, and what it filters out below: Hz, quality, and gain in dB.
_SHELF_HZ, _SHELF_Q, _SHELF_DB, _HIGH_PASS_HZ, _HIGH_PASS_Q = 1681.97, 0.7072, 3.9998, 38.135, 0.5003
_GATE_DB = 10.0


@dataclass(frozen=True)
class Spectrogram:
    """Mean power of the channels ``[F, T]``, in dB of a sine at full scale.

    A row is ``row_hz`` high and the first is centred at 0 Hz; a column is ``column_s`` wide and begins at 0 s. The
    recording is ``seconds`` long and has a ``rate`` in Hz.
    """

    levels: Levels
    row_hz: float
    column_s: float
    seconds: float
    rate: int


def spectrogram(recording: Recording, most: int = _MAX_COLUMNS) -> Spectrogram:
    """Spectrogram of a recording with so many columns at the most; only what it samples is read, column by column."""
    n_fft = 2 * round(_WINDOW_S * recording.rate / 2)
    stft = STFT(n_fft, n_fft // 2)
    group = min(max(math.ceil(recording.length / (n_fft // 4) / most), 1), max(_MAX_WINDOWS // most, 1))
    hop = max(n_fft // 4, math.ceil(recording.length / (most * group)))
    columns = math.ceil(recording.length / (hop * group))
    step = math.ceil(n_fft // 2 / _MAX_ROWS)
    rows = n_fft // 2 // step

    power = np.zeros((rows, columns))
    for column in range(columns):
        centres = [(2 * index + 1) * hop // 2 for index in range(column * group, (column + 1) * group)]
        frames = np.stack([_frame(recording, centre - n_fft // 2, n_fft) for centre in centres])
        # Of the transform of one window's length, the frame in the middle is all of it.
        planes = stft.forward(torch.from_numpy(frames))[..., : rows * step, 1]
        power[:, column] = planes.square().sum(dim=2).mean(dim=(0, 1)).view(rows, step).mean(dim=1).numpy()
    # A sine of amplitude 1 has the magnitude of half the window's sum.
    power /= (n_fft / 4) ** 2
    levels = 10 * np.log10(np.maximum(power, 10 ** (_FLOOR_DB / 10)))
    rate = recording.rate
    return Spectrogram(levels, step * rate / n_fft, group * hop / rate, recording.length / rate, rate)


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


def noise_spectrogram(
    parts: Sequence[tuple[float, float, Values2D]], working_rate: int, like: Spectrogram
) -> Spectrogram:
    """Spectrogram of noise on the scale of another one, ``like``.

    Args:
        parts: Start and end, in s, and the power per Hz in bands and frames ``[F, T]``, full scale at 1, of stretches.
            They are in order and may overlap.
        working_rate: The rate in Hz to half of which the bands go.
        like: The spectrogram of the recording.
    """
    bands = len(parts[0][2])
    levels = np.full((round(bands * like.rate / working_rate), _MAX_COLUMNS), _FLOOR_DB)
    times = (np.arange(_MAX_COLUMNS) + 0.5) / _MAX_COLUMNS * like.seconds
    for start, stop, power in parts:
        inside = np.flatnonzero((start <= times) & (times < stop))
        frames = ((times[inside] - start) / (stop - start) * np.shape(power)[1]).astype(int)
        # A window's power by that of its sum, as in a spectrogram.
        found = 10 * np.log10(np.maximum(np.asarray(power)[: len(levels), frames] * 6 / _WINDOW_S, 1e-20))
        levels[: len(found), inside] = found
    return replace(like, levels=levels, row_hz=working_rate / 2 / bands, column_s=like.seconds / _MAX_COLUMNS)


def loudness(picture: Spectrogram) -> float:
    """Loudness in dB, after ITU-R BS.1770: K-weighted power of all columns but those 10 dB below the mean."""
    hz = picture.row_hz * np.arange(len(picture.levels))
    x, gain = hz / _SHELF_HZ, 10 ** (_SHELF_DB / 20)
    shelf = (1 - gain * x**2) ** 2 + (gain**0.4996 * x / _SHELF_Q) ** 2
    shelf /= (1 - x**2) ** 2 + (x / _SHELF_Q) ** 2
    x = hz / _HIGH_PASS_HZ
    weights = shelf * x**4 / ((1 - x**2) ** 2 + (x / _HIGH_PASS_Q) ** 2)
    power = weights @ 10 ** (picture.levels / 10)
    return float(10 * np.log10(max(power[power >= power.mean() * 10 ** (-_GATE_DB / 10)].mean(), 1e-20)))


def to_png(picture: Spectrogram, scale: tuple[float, float]) -> bytes:
    """A spectrogram without axes over a colour scale in dB."""
    buffer = io.BytesIO()
    imsave(buffer, picture.levels, vmin=scale[0], vmax=scale[1], cmap=_colours(), origin="lower", format="png")
    return buffer.getvalue()


def to_webp(picture: Spectrogram, scale: tuple[float, float]) -> bytes:
    """A spectrogram without axes over a colour scale in dB, a third as large as the same in PNG."""
    shown = (picture.levels[::-1] - scale[0]) / (scale[1] - scale[0])
    buffer = io.BytesIO()
    Image.fromarray(_colours()(shown, bytes=True)[..., :3]).save(buffer, "WEBP", quality=_QUALITY)
    return buffer.getvalue()


def _colours() -> Colormap:
    return colormaps["magma"].resampled(_SHADES)


@dataclass(frozen=True)
class Curve:
    """Values by iteration, from the first on, called ``title`` in the legend; ``marks`` are iterations by their marks.

    ``look`` are Matplotlib's properties of its line; without a colour it has that of text.
    """

    title: str
    values: Values
    marks: Mapping[str, int] = field(default_factory=dict)
    look: Mapping[str, Any] = field(default_factory=dict)


# How marks look, by their titles in the legend.
_MARKS: dict[str, dict[str, Any]] = {
    "kept iteration": {"marker": "o", "ls": ""},
    "blind stop": {"marker": ".", "ls": "", "color": COLOURS[1]},
    "oracle stop": {"marker": "o", "ls": "", "mfc": "none", "color": COLOURS[1]},
}


@rc_context(_STYLE)
def draw_curves(panels: Mapping[str, Sequence[Curve]], *, name: str, label: str, log: bool = False) -> Markup:
    """SVG of curves by iteration, one panel above the other; see :func:`_to_svg`.

    By the logarithm of the iteration panels are higher, so that many curves can be told apart.
    """
    figure = Figure(figsize=(_WIDTH_IN, (2.0 if log else 1.3) * len(panels) + 0.6), layout="constrained")
    rows: list[Axes] = list(figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0])
    lines: dict[str, Artist] = {}
    for axes, (title, curves) in zip(rows, panels.items(), strict=True):
        for curve in (each for each in curves if len(each.values)):
            look = {"color": _INK, **curve.look}
            (line,) = axes.plot(range(1, len(curve.values) + 1), curve.values, **look)
            lines.setdefault(curve.title, line)
            for mark, iteration in curve.marks.items():
                if iteration <= len(curve.values):
                    dotted = {"color": look["color"], **_MARKS[mark]}
                    (dot,) = axes.plot(iteration, curve.values[iteration - 1], **dotted)
                    lines.setdefault(mark, dot)
        axes.set_ylabel(title)
        axes.grid()
    rows[-1].set_xlabel("iteration")
    if log:
        rows[-1].set_xscale("log")
        rows[-1].xaxis.set_major_formatter("{x:.0f}")
    else:
        rows[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.align_ylabels(rows)
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=min(len(lines), 3))
    return _to_svg(figure, name, label)


@rc_context(_STYLE)
def draw_boxes(values: Mapping[str, Sequence[float]], title: str, *, name: str, label: str) -> Markup:
    """SVG of the values of each method: median, quartiles, whiskers to 1.5 times their distance, and every clip."""
    figure = Figure(figsize=(_WIDTH_IN, 0.3 * len(values) + 0.7), layout="constrained")
    axes = figure.add_subplot()
    # Every clip has its dot, those far out too.
    axes.boxplot(list(values.values()), orientation="horizontal", widths=0.6, showfliers=False)
    for row, points in enumerate(values.values(), 1):
        # Clips side by side, in the same order for every method, so that dots do not hide each other.
        heights = row + (np.linspace(-0.2, 0.2, len(points)) if len(points) > 1 else np.zeros(len(points)))
        axes.plot(points, heights, ".", color=COLOURS[0], alpha=0.6, markersize=4)
    axes.set_yticks(range(1, len(values) + 1), list(values))
    axes.invert_yaxis()
    axes.set_xlabel(title)
    axes.grid(axis="x")
    return _to_svg(figure, name, label)


def _to_svg(figure: Figure, name: str, label: str) -> Markup:
    """The figure as an ``<svg>`` element that fits its container.

    ``label`` is read out in place of it. Identifiers in it begin with ``name``, so that two pictures on one page do not
    refer to each other's parts, and are the same from run to run.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True)
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    names: dict[str, int] = {}
    svg = re.sub(
        r'( id="|href="#|url\(#)([^")]+)',
        lambda found: f"{found[1]}{name}{names.setdefault(found[2], len(names))}",
        svg,
    )
    svg = svg.replace("image-rendering:crisp-edges;image-rendering:pixelated", "")  # smooth is easier to read
    svg = svg.replace(_INK, "currentColor")
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1))
