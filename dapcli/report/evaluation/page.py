"""The page of an evaluation: tables, figures, and every clip to listen to and to look at.

It refers to recordings and spectrograms in its folder, and so stays small however many there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from urllib.parse import quote

from dapcli.audio import read_audio
from dapcli.evaluation.folder import INPUT, REFERENCE, Folder, Record
from dapcli.evaluation.methods import key, label
from dapcli.evaluation.tables import GROUPS, Difference
from dapcli.files import Content, write_files
from dapcli.report.evaluation.comparison import (
    Comparison,
    by_method,
    cell_in_words,
    column_title,
    difference_in_words,
    is_best,
    value_in_words,
)
from dapcli.report.evaluation.files import HEADINGS, to_csv, to_markdown, to_object
from dapcli.report.evaluation.plots import draw_boxes, draw_curves, spectrogram_png
from dapcli.report.html import ONE_PLAYER, STYLE, text
from dapcli.report.plots import shared_scale, spectrogram


def write_comparison(folder: Folder, comparison: Comparison) -> None:
    """Write tables, figures and the page to the folder of the evaluation, with the spectrograms that are not there."""
    figures = draw_figures(comparison)
    for clip in comparison.clips:
        _draw_spectrograms(folder, clip, [REFERENCE, *(_key(each) for each in _of_clip(comparison, clip))])
    folder.write(
        {
            "results.md": to_markdown(comparison),
            "results.csv": to_csv(comparison),
            "results.json": to_object(comparison),
            **{f"{name}.svg": svg for name, svg in figures.items()},
            "index.html": render_page(folder, comparison, figures),
        }
    )


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
        figures[f"boxes_{metric}"] = draw_boxes(
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
            figures[name] = draw_curves(oracles, blind, name=name, label=words)
    return figures


def render_page(folder: Folder, comparison: Comparison, figures: Mapping[str, str]) -> str:
    """The page, with the figures in it."""
    captions = {
        "boxes": "Median, quartiles and every clip.",
        "convergence": "Every clip's oracle fit and their mean; what the network learned before is dashed. Dots mark "
        "the iteration that the blind fit returned, on the oracle's curve.",
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
        f"<section class=wide><table class=numbers>\n<caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{''.join(rows)}\n</tbody></table></section>"
    )


def _clip(folder: Folder, comparison: Comparison, clip: str, *, first: bool) -> str:
    """Players and spectrograms of one clip, shown at once or when they are asked for."""
    records = _of_clip(comparison, clip)
    cards = [_card(folder, clip, REFERENCE, "reference", "the clean clip")]
    for record in records:
        values = [
            _value(metric, value)
            for metric in comparison.metrics
            if (value := record["metrics"].get(metric)) is not None
        ]
        cards.append(_card(folder, clip, _key(record), label(record["method"], record["told"]), ", ".join(values)))
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
        picture = _spectrogram_path(folder, path)
        sources = [quote(each.relative_to(folder.path).as_posix()) for each in (picture, path)]
        parts.append(
            f'<img loading=lazy alt="Spectrogram, {text(title)}" src="{sources[0]}">\n'
            f'<audio controls preload=none aria-label="{text(title)}" src="{sources[1]}"></audio>\n'
        )
    return f"<figure><figcaption><b>{text(title)}</b> {text(words)}</figcaption>\n{''.join(parts)}</figure>\n"


def _draw_spectrograms(folder: Folder, clip: str, names: Sequence[str]) -> None:
    """Pictures of the recordings of a clip that have none, on the colour scale of its reference and its input."""
    scale = None
    contents: dict[Path, Content] = {}
    for path in (path for name in names for path in folder.audio(clip, name)):
        picture = _spectrogram_path(folder, path)
        if picture.exists():
            continue
        if scale is None:
            ends = [*folder.audio(clip, REFERENCE), *folder.audio(clip, INPUT)]
            scale = shared_scale([spectrogram(read_audio(each)) for each in ends])
        contents[picture] = spectrogram_png(spectrogram(read_audio(path)), scale)
    for picture in contents:
        picture.parent.mkdir(parents=True, exist_ok=True)
    write_files(contents)


def _spectrogram_path(folder: Folder, audio: Path) -> Path:
    return folder.path / "spectrograms" / audio.parent.name / f"{audio.stem}.png"


def _of_clip(comparison: Comparison, clip: str) -> list[Record]:
    return [record for record in comparison.records if record["clip"] == clip]


def _key(record: Record) -> str:
    return key(record["method"], record["told"])


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
.wide { margin: 1rem 0; overflow-x: auto; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1rem; }
.cards figure { padding: 0; }
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
