"""The report: what it holds, that the page holds it itself, and that nothing in a recording or its name breaks it."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from rich.console import Console

from dapcli import TASKS, Audio, Result, Settings, denoise, separate
from dapcli.audio import open_audio, write_audio
from dapcli.audio.view import View, view
from dapcli.pipeline.result import Estimates
from dapcli.pipeline.segments import Joined
from dapcli.report import figures
from dapcli.report.page import environment, render_page
from dapcli.report.record import Record, build_record, to_json
from dapcli.report.table import Table, row, to_console, to_markdown
from dapcli.tasks.problem import Problem

Samples = NDArray[np.float64]

RATE = 16_000
SMALL = Settings(iterations=4, finetune_iterations=3, base_channels=4)
# Elements without an end tag.
VOID = {"meta", "wbr", "br", "img", "link", "input", "hr"}


@dataclass
class Page(HTMLParser):
    """Parses a page; fails on tags that do not match."""

    text: str
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []
        self.feed(self.text)
        self.close()
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"an attribute of {tag} appears twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self._open, f"<{tag}/> is an end only in SVG"
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> without a start"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self._open):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def prose(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def recordings(self) -> dict[str, tuple[Samples, int]]:
        """Samples [C, N] and rate of each player, by its label."""
        found = {}
        for player in self.all("audio"):
            head, _, content = str(player["src"]).partition(",")
            assert head == "data:audio/ogg;base64"
            samples, rate = soundfile.read(io.BytesIO(base64.b64decode(content, validate=True)), always_2d=True)
            found[str(player["aria-label"])] = samples.T, rate
        return found


def tone(seconds: float, channels: int = 1) -> Samples:
    t = np.arange(round(seconds * RATE)) / RATE
    return 0.3 * np.sin(2 * np.pi * 440 * t + np.arange(channels)[:, None])


def recording(clean: Samples) -> Audio:
    return Audio(clean + 0.05 * np.random.default_rng(0).standard_normal(clean.shape), RATE)


@cache
def small_result() -> Result:
    return denoise(recording(tone(0.3)), SMALL, device="cpu")


def report(
    noisy: Audio,
    result: Result,
    *references: Samples,
    task: str = "denoise",
    names: tuple[str, ...] = ("in.wav", "out.wav"),
    subtype: str = "FLOAT",
) -> tuple[Record, Page]:
    """The record and the page of a result; of several outputs the last name is that of their folder."""
    source, *outputs = map(Path, names)
    problem: Problem[Any] = Problem(noisy)
    written = result.estimates.as_file("WAV", subtype)
    clean = {Path(f"clean{index}.wav"): noisy.with_samples(each) for index, each in enumerate(references)}
    record = build_record(
        task,
        problem,
        result,
        input_path=source,
        outputs={path.stem: path for path in outputs[: len(written)]},
        output_path=outputs[-1],
        written=written,
        references=clean,
    )
    assert to_json(record)
    return record, Page(render_page(record, problem, result, written, clean))


def with_output(noisy: Audio, output: Samples) -> Result:
    """The small result as if it were that of another recording, with this as its estimate."""
    shape, seen = (noisy.rate, noisy.channels, noisy.length, "FLOAT", "WAV"), view(noisy)
    joined = Joined([(0, noisy.length)], ("",), seen.channels, lambda _: seen.gain * output[None, list(seen.kept)])
    estimates = Estimates(joined, seen, lambda each, *others: others[2] * each, ("",), *shape)
    return replace(small_result(), estimates=estimates)


@cache
def small_page() -> Page:
    return report(recording(tone(0.3)), small_result(), tone(0.3))[1]


def show(samples: Samples, *references: Samples) -> Page:
    """The page of a restoration that changed nothing."""
    audio = Audio(samples, RATE)
    return report(audio, with_output(audio, samples), *references)[1]


# What is on the page


def assert_sounds_like(heard: Samples, truth: Samples) -> None:
    """A lossy codec keeps length, level and place."""
    assert heard.shape == truth.shape
    assert np.sum((heard - truth) ** 2) < 0.02 * np.sum(truth**2) + 1e-6


def test_players_hold_what_was_read_and_written_and_what_was_removed() -> None:
    page = small_page()
    before, after = recording(tone(0.3)).samples, small_result().audio.samples
    expected = {"Before": before, "After": after, "Removed": before - after, "Reference": tone(0.3)}
    assert list(page.recordings) == list(expected)
    for name in ("Before", "After", "Reference"):
        samples, rate = page.recordings[name]
        assert rate == RATE
        assert_sounds_like(samples, expected[name])
    pictures = [str(picture["alt"]) for picture in page.all("img")]
    assert pictures == [f"Spectrogram, {name}: 0 to 0.3 s, 0 to 8 kHz" for name in (*expected, "Noise found")]


def test_every_player_has_a_choice_and_versions_that_are_compared_are_equally_loud() -> None:
    page = show(4 * tone(1.0), tone(1.0))
    choices = [each for each in page.all("input") if each.get("type") == "radio"]
    volumes = {str(each["aria-label"]): float(str(each["data-volume"])) for each in page.all("audio")}
    assert len(choices) == len(volumes) == 4
    assert volumes == {"Before": 0.25, "After": 0.25, "Removed": 1.0, "Reference": 1.0}


def test_segments_are_marked_where_they_are() -> None:
    one = small_result().segments[0]
    two = tuple(replace(one, start=start, stop=start + 3000) for start in (0, 1800))
    _, page = report(recording(tone(0.3)), replace(small_result(), segments=two))
    marks = [str(each["style"]) for each in page.all("span") if "title" in each]
    assert marks == ["left:0.000%;width:62.500%", "left:37.500%;width:62.500%"]


def test_the_noise_that_was_found_has_its_level_in_its_bands() -> None:
    noise = Audio(0.05 * np.random.default_rng(0).standard_normal((1, 2 * RATE)), RATE)
    like = figures.spectrogram(noise)
    white = np.full((48, 8), 0.05**2 / RATE)
    white[24:] = 0.0
    found = figures.noise_spectrogram([(0.0, 2.0, white)], RATE, like)
    assert found.levels[:24].mean() == pytest.approx(10 * np.log10(np.mean(10 ** (like.levels / 10))), abs=0.3)
    assert found.levels[24:].max() < -150


def test_metrics_stand_beside_each_other_with_their_change() -> None:
    assert "SNR (dB) 0.000 0.000 +0.000" in show(2 * tone(0.3), tone(0.3)).prose


@pytest.mark.parametrize("channels", [2, 5])
def test_stereo_is_played_in_stereo_and_more_channels_as_their_mean(channels: int) -> None:
    samples, mean = tone(0.3, channels), channels > 2
    page = show(samples)
    played = samples.mean(axis=0, keepdims=True) if mean else samples
    assert_sounds_like(page.recordings["Before"][0], played)
    assert ("mean of the channels" in page.prose) == mean


def test_the_output_is_compared_at_the_level_of_the_input_and_players_are_lowered_alike() -> None:
    noisy = Audio(tone(0.3), RATE)
    _, page = report(noisy, with_output(noisy, 4 * noisy.samples), subtype="PCM_16")
    levels = {name: float(samples.std()) for name, (samples, _) in page.recordings.items() if name != "Removed"}
    assert levels == {"Before": pytest.approx(0.25 * 2**-0.5, rel=0.03), "After": pytest.approx(2**-0.5, rel=0.03)}
    assert re.search(r"multiplied by 0\.8\d+ \(-1\.58 dB\)", page.prose)
    assert "1.58 dB lower" in page.prose


@pytest.mark.parametrize("length", [300, 4_800])
def test_what_was_removed_is_told_by_the_quietest_frames(length: int) -> None:
    loud = np.arange(length) >= length // 2
    samples = np.where(loud, 0.5, 0.01)[None] * np.random.default_rng(0).standard_normal((1, length))
    noisy = Audio(samples, RATE)
    record, _ = report(noisy, with_output(noisy, np.where(loud | (length < 800), 0.5, 0.1) * samples))
    assert record["noise"]["removed_db"] == pytest.approx(6.02 if length < 800 else 20.0, abs=0.01)


def test_of_many_segments_few_are_drawn_the_first_and_last_among_them() -> None:
    one = small_result().segments[0]
    many = tuple(replace(one, start=RATE * start, stop=RATE * (start + 1)) for start in range(50))
    _, page = report(recording(tone(0.3)), replace(small_result(), segments=many))
    assert "in 50 segments" in page.prose
    assert "8 of 50 segments are shown" in page.prose
    # Glyphs are paths; what they spell is a comment beside them.
    legend = re.findall(r"<!-- (\d+\.0) to", page.text)
    assert (len(legend), legend[0], legend[-1]) == (8, "0.0", "49.0")


@pytest.mark.parametrize(("rule", "kept", "panels"), [("fixed", 3, 2), ("held-out", 2, 3)])
def test_the_kept_iteration_is_marked_and_the_criterion_shown_where_it_decides(
    rule: str, kept: int, panels: int
) -> None:
    fit = small_result().segments[0]
    unsettled = (replace(fit.iterations[0], criterion=float("inf")), *fit.iterations[1:])
    segments = (replace(fit, rule=rule, best_iteration=kept, iterations=unsettled),)
    _, page = report(recording(tone(0.3)), replace(small_result(), segments=segments))
    assert f"Iteration {kept} of 3 was kept" in page.prose
    drawn = re.findall(r"<!-- (loss|residual|criterion) -->", page.text)
    assert drawn == ["loss", "residual", "criterion"][:panels]
    assert not [path for path in page.all("path") if "inf" in str(path.get("d")) or "nan" in str(path.get("d"))]


@pytest.mark.parametrize("hours", [1, 20])
def test_of_hours_only_what_is_shown_is_read(hours: int) -> None:
    shape: dict[str, Any] = {"rate": 8_000, "channels": 2, "length": hours * 3600 * 8_000}
    lengths: list[int] = []

    def read(start: int, stop: int) -> Samples:
        assert 0 <= start <= stop <= shape["length"]
        lengths.append(stop - start)
        return np.tile(0.3 * np.sin(2 * np.pi * 1000 / 8_000 * np.arange(start, stop)), (2, 1))

    before = cast(Any, SimpleNamespace(read=read, subtype="PCM_16", format="WAV", **shape))
    joined = cast(Joined, SimpleNamespace(read=lambda *part: read(*part)[None]))
    record, _ = report(recording(tone(0.3)), small_result())
    written = replace(
        small_result().estimates, joined=joined, source=View(before, 1.0, (0, 1), ((0, 1), (1, 1))), **shape
    )
    page = Page(render_page(record, Problem(before), small_result(), written, {}))
    assert page.recordings["After"][0].shape == (2, 60 * 8_000)
    assert max(lengths) == 60 * 8_000
    assert sum(lengths) < 1_400 * 8_000


# That it holds it itself


def test_it_refers_to_nothing_outside_and_to_parts_that_are_there_once() -> None:
    page = small_page()
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "poster", "srcset", "action", "data"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:")), f"<{tag} {name}={target[:60]}>"
    assert not re.findall(r"url\((?!#)|@import|fetch\(|file:", page.text)
    policies = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert any("default-src 'none'" in str(policy) for policy in policies)
    count = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert set(count.values()) == {1}
    targets = {str(attributes.get("xlink:href")) for attributes in page.all("use")}
    targets |= set(re.findall(r"url\((#[^)]*)\)", page.text))
    assert targets
    assert targets <= {f"#{name}" for name in count}


def test_the_same_restoration_gives_the_same_page() -> None:
    assert report(recording(tone(0.3)), small_result(), tone(0.3))[1].text == small_page().text


@pytest.mark.parametrize(("seconds", "megabytes"), [(4, 1), (60, 3)])
def test_the_page_stays_small(seconds: int, megabytes: int) -> None:
    samples = 0.2 * np.random.default_rng(1).standard_normal((1, seconds * RATE))  # the worst to compress
    assert len(show(samples).text) < megabytes * 1_000_000


# That nothing breaks it


@pytest.mark.parametrize("name", ["\"><img src=x onerror='x()'>", "</title>/<script>{{ title }} &amp; \udcff"])
def test_a_hostile_file_name_is_text(name: str) -> None:
    _, page = report(recording(tone(0.3)), small_result(), tone(0.3), names=(name, f"{name}-out"))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in small_page().elements]
    assert page.text.encode()
    # In the title, the heading, the line below and the player of the input, and of the output in the latter two.
    assert page.prose.count(Path(name).name.replace("\udcff", "?")) >= 6


@pytest.mark.parametrize("samples", [np.zeros((2, 4000)), np.array([[0.1, -0.2]])], ids=["silence", "two samples"])
def test_hardly_any_sound(samples: Samples) -> None:
    noisy = Audio(samples, RATE)
    _, page = report(noisy, denoise(noisy, SMALL, device="cpu"), samples)
    assert np.abs(page.recordings["Before"][0]).max() <= 2 * np.abs(samples).max() + 1e-9
    assert ("the recording is silent" in page.prose) != ("Convergence" in page.prose) == samples.any()


def test_sources_without_a_network_have_players_metrics_and_no_curves() -> None:
    clicks = 0.5 * (np.arange(RATE) % 2000 == 0.0)[None]
    mixture = Audio(tone(1.0) + clicks, RATE)
    result = separate(mixture, settings=replace(TASKS["separate"].presets["fast"], prior="none"), device="cpu")
    record, page = report(
        mixture, result, tone(1.0), clicks, task="separate", names=("mix.wav", "o/<b>.wav", "o/c.wav", "o")
    )
    assert list(page.recordings) == ["Mixture", "<b>", "<b>, reference", "c", "c, reference"]
    assert "<b> against clean0.wav" in page.prose
    assert "no network; classical separation alone" in page.prose
    assert "Convergence" not in page.prose
    assert [source["type"] for source in record["sources"]] == ["harmonic", "percussive"]
    assert record["fit"]["loss"] is record["fit"]["validation"] is record["prior"]["receptive_field"]["hz"] is None


# Tables


def test_every_rendering_of_a_table_has_the_same_cells_and_breaks_on_none() -> None:
    hostile = '[bold]<b>|"*,'
    lines: list[list[str | None]] = [[hostile, "1.5"], ["b", None], ["c", "-2"]]
    rows = [row(*line, strong=line == lines[0]) for line in lines]
    table = Table(("method", "SNR"), rows, "A caption", groups=("blind", "blind", "oracle"))

    stream = io.StringIO()
    Console(file=stream, width=80).print(to_console(table))
    shown = [line.split() for line in stream.getvalue().splitlines() if line.strip()]
    assert shown == [["method", "SNR"], *([each or "-" for each in line] for line in lines)]
    assert [line for line in to_markdown(table).splitlines() if "---" not in line] == [
        *("A caption", "", "| blind | SNR |", r'| **[bold]\<b\>\|"\*,** | **1.5** |', "| b | - |"),
        *("", "| oracle | SNR |", "| c | -2 |"),
    ]
    page = Page(str(cast(Any, environment().get_template("table.html.j2").module).show(table)))
    assert page.prose == f"A caption method SNR blind {hostile} 1.5 b - oracle c -2"
    assert len(page.all("b")) == 2 + 2  # the strong cells and the headings


# Spectrograms


@pytest.mark.parametrize(("rate", "seconds"), [(8_000, 0.1), (8_000, 60.0), (44_100, 20.0), (192_000, 2.0)])
def test_a_tone_has_its_level_where_it_is(rate: int, seconds: float) -> None:
    t = np.arange(round(seconds * rate)) / rate
    samples = np.stack([np.sin(2 * np.pi * 3000 * t) * (t < seconds / 2), np.zeros_like(t)])
    picture = figures.spectrogram(Audio(samples, rate))
    rows, columns = picture.levels.shape
    assert (rows <= 192, columns <= 512) == (True, True)
    assert columns * picture.column_s == pytest.approx(seconds, abs=picture.column_s)
    assert rows * picture.row_hz == pytest.approx(rate / 2, abs=picture.row_hz)
    top, column = np.unravel_index(picture.levels.argmax(), picture.levels.shape)
    assert top * picture.row_hz == pytest.approx(3000, abs=picture.row_hz)
    assert column <= columns / 2
    # The mean of a sine at full scale and nothing; the rows of high rates average the tone with its neighbours.
    assert -3.1 - 10 * np.log10(max(1, rate // 8_000)) < picture.levels.max() < -2.9
    assert picture.levels[:, columns * 3 // 4].max() < -60


@pytest.mark.parametrize(("container", "subtype", "seconds"), [("WAV", "DOUBLE", 150.0), ("OGG", "VORBIS", 1.0)])
def test_a_file_has_the_picture_of_its_samples(container: str, subtype: str, seconds: float, tmp_path: Path) -> None:
    with (tmp_path / "a").open("w+b") as stream:
        write_audio(stream, Audio(tone(seconds, 2), RATE, subtype, container))
    with open_audio(tmp_path / "a") as file:
        whole = figures.spectrogram(Audio(file.read(0, file.length), RATE))
        np.testing.assert_array_equal(figures.spectrogram(file).levels, whole.levels)
