"""Inline SVG that takes the colour of its text from the page, in light and dark mode."""

from __future__ import annotations

import io
import re

from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: As wide as a phone, so that labels can be read there; wider screens enlarge it.
WIDTH_IN = 4.0
#: Stands for the page's text colour until the SVG is done; a colour that nothing else has.
INK = "#010203"
#: Distinct for the colour-blind, and with a contrast of 3:1 on white and on black.
COLOURS = ("#1f86d0", "#d55e00", "#009e73", "#b5588e")


def ink(axes: Axes) -> None:
    """Draw frame, ticks and labels in the page's text colour."""
    axes.set_facecolor("none")
    axes.tick_params(colors=INK, labelsize=8)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.xaxis.get_offset_text(), axes.yaxis.get_offset_text()):
        text.set(color=INK, fontsize=9)
    for spine in axes.spines.values():
        spine.set(edgecolor=INK, alpha=0.4)


def to_svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an ``<svg>`` element that fits its container.

    ``label``, escaped by the caller, is read out in place of it. Identifiers in it begin with ``name``, so that two
    pictures on one page do not refer to each other's parts, and are the same from run to run.
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
    return svg.replace(INK, "currentColor").replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
