"""The page of an evaluation: tables, figures, and every clip to listen to and to look at.

It refers to recordings and spectrograms in its folder, and so stays small however many there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from urllib.parse import quote

from dapcli.evaluation.folder import REFERENCE, Folder
from dapcli.evaluation.methods import key, label
from dapcli.evaluation.tables import GROUPS, Difference
from dapcli.report.comparison import (
    HEADINGS,
    Comparison,
    by_method,
    cell_in_words,
    column_title,
    difference_in_words,
    is_best,
    value_in_words,
)
from dapcli.report.html import ONE_PLAYER, STYLE, text


def render_page(folder: Folder, comparison: Comparison, figures: Mapping[str, str]) -> str:
    """The page, with the figures in it."""
    captions = {
        "boxes": "Median, quartiles and every clip.",
        "convergence": "Every clip's oracle fit and their mean; what the network learned before is dashed. Dots mark "
        "the iteration that the blind fit returned, on the oracle's curve. The SNR is that of the network's estimate, "
        "before a filter or what is known of the degradation changes it.",
    }
    drawn = "\n".join(
        f"<figure>{svg}<figcaption>{_figure_title(name)}: {captions[name.partition('_')[0]]} "
        f'<a href="{quote(name)}.svg">SVG</a></figcaption></figure>'
        for name, svg in figures.items()
    )
    notes = "\n".join(f"<li>{text(note)}</li>" for note in comparison.notes)
    return _PAGE.substitute(
        style=STYLE,
        script=ONE_PLAYER,
        title=f"dap evaluate {text(comparison.title)}",
        table=_table(comparison),
        differences=_differences(comparison) if comparison.differences else "",
        notes=f"<section><h2>Notes</h2><ul>{notes}</ul></section>" if notes else "",
        figures=drawn,
        clips="\n".join(
            _clip(folder, comparison, clip, first=not index) for index, clip in enumerate(comparison.clips)
        ),
    )


def _table(comparison: Comparison) -> str:
    titles = [column_title(metric) for metric in comparison.metrics]
    parts = []
    for told in GROUPS:
        rows = [row for row in comparison.rows if row.told == told]
        if rows:
            parts.append(f"<tr><th scope=rowgroup colspan={len(titles) + 2}><b>{HEADINGS[told]}</b></th></tr>")
        for row in rows:
            cells = [
                f"<td>{_strong(cell_in_words(row, metric, len(comparison.clips)), is_best(row, metric))}</td>"
                for metric in comparison.metrics
            ]
            parts.append(
                f"<tr><th scope=row>{text(label(row.method, row.told))}</th>{''.join(cells)}"
                f"<td>{row.seconds:.1f}</td></tr>"
            )
    return _numbers(
        ["method", *titles, "s per clip"],
        parts,
        "Mean and standard deviation over clips; the best of each group in bold. An oracle picks the iteration by the "
        "clean reference, which no user has.",
    )


def _differences(comparison: Comparison) -> str:
    parts = []
    for (method, told), by_metric in by_method(comparison.differences).items():
        cells = [
            f"<td>{_strong(_two_lines(each), each is not None and each.verdict != 'open')}</td>"
            for each in map(by_metric.get, comparison.metrics)
        ]
        parts.append(f"<tr><th scope=row>{text(label(method, told))}</th>{''.join(cells)}</tr>")
    return _numbers(
        ["method", *(column_title(metric) for metric in comparison.metrics)],
        parts,
        f"Difference from {text(comparison.differences[0].pivot)} on the same clips: the mean and its 95 % interval "
        "(percentile bootstrap over clips), bold where it is more than chance. Oracles are compared with its oracle.",
    )


def _numbers(titles: Sequence[str], rows: Sequence[str], caption: str) -> str:
    head = "".join(f"<th scope=col>{text(title)}</th>" for title in titles)
    return (
        f"<section>\n<p>{caption}</p>\n<div class=wide><table class=numbers>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{''.join(rows)}\n</tbody></table></div>\n</section>"
    )


def _clip(folder: Folder, comparison: Comparison, clip: str, *, first: bool) -> str:
    """Players and spectrograms of one clip, shown at once or when they are asked for."""
    records = comparison.of_clip(clip)
    cards = [_card(folder, clip, REFERENCE, "reference", "the clean clip")]
    for record in records:
        values = [
            _value(metric, value)
            for metric in comparison.metrics
            if (value := record["metrics"].get(metric)) is not None
        ]
        cards.append(
            _card(
                folder,
                clip,
                key(record["method"], record["told"]),
                label(record["method"], record["told"]),
                ", ".join(values),
            )
        )
    notes = [note for name, note in records[0]["notes"].items() if name.startswith("clip_")]
    files = ", ".join(Path(path).name for path in records[0]["files"])
    return (
        f"<details{' open' if first else ''}>\n<summary>{text(files)}</summary>\n"
        f"<p>{text('; '.join(notes))}</p>\n<div class=cards>\n{''.join(cards)}</div>\n</details>"
    )


def _value(metric: str, value: float) -> str:
    """Such as ``SNR 7.12 dB``."""
    name, unit, source = column_title(metric).partition(" (dB)")
    return f"{name}{source} {value_in_words(metric, value)}{' dB' if unit else ''}"


def _card(folder: Folder, clip: str, name: str, title: str, words: str) -> str:
    parts = []
    for path in folder.audio(clip, name):
        picture = folder.spectrogram(path)
        sources = [quote(each.relative_to(folder.path).as_posix()) for each in (picture, path)]
        parts.append(
            f'<img loading=lazy alt="Spectrogram, {text(title)}" src="{sources[0]}">\n'
            f'<audio controls preload=none aria-label="{text(title)}" src="{sources[1]}"></audio>\n'
        )
    return f"<figure><figcaption><b>{text(title)}</b></figcaption>\n{''.join(parts)}<p>{text(words)}</p></figure>\n"


def _figure_title(name: str) -> str:
    kind, _, what = name.partition("_")
    return text(column_title(what) if kind == "boxes" else f"Convergence of {what}")


def _two_lines(difference: Difference | None) -> str:
    return difference_in_words(difference).replace(" ", "<br>", 1)


def _strong(words: str, strong: bool) -> str:
    return f"<b>{words}</b>" if strong else words


_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
$style
section { margin: 1rem 0; }
section > p { max-width: none; color: var(--soft); font-size: .9rem; }
.wide { overflow-x: auto; }
.numbers { font-size: .9rem; }
.numbers tbody th { white-space: nowrap; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1rem; }
.cards figure { padding: 0; }
.cards p { color: var(--soft); font-size: .8rem; line-height: 1.35; }
.cards img { display: block; width: 100%; height: 8rem; background: #000; }
details { margin: 1rem 0; }
</style>
</head>
<body>
<main>
<h1>$title</h1>
$table
$differences
$notes
<div class="grid">
$figures
</div>
<h2>Clips</h2>
<p>Spectrograms show the whole clip from 0 Hz to half its sample rate; those of a clip share one colour scale.</p>
$clips
</main>
<script>
$script
</script>
</body>
</html>
""")
