"""The HTML report: what it holds, that it holds it itself, and that nothing in a recording or its name breaks it."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from dapcli.audio import Audio, full_scale_gain, open_audio, write_audio
from dapcli.pipeline.result import Result
from dapcli.report import plots
from dapcli.report.page import render_page
from dapcli.report.record import build_record
from dapcli.settings import Settings
from dapcli.tasks import _api_restore as restore

Samples = NDArray[np.float64]

RATE = 16_000
SMALL = Settings(iterations=4, refinement=3, width=4)
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
        return {str(player["aria-label"]): decode(str(player["src"])) for player in self.all("audio")}

    @property
    def pictures(self) -> list[str]:
        """What is read out in place of each picture."""
        return [str(picture["aria-label"]) for picture in self.all("svg")]


def decode(uri: str) -> tuple[Samples, int]:
    assert uri.startswith("data:audio/wav;base64,")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(uri.partition(",")[2], validate=True)), always_2d=True)
    return samples.T, rate


def tone(seconds: float, channels: int = 1, rate: int = RATE) -> Samples:
    t = np.arange(round(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * 440 * t + np.arange(channels)[:, None])


def recording(clean: Samples, rate: int = RATE) -> Audio:
    return Audio(clean + 0.05 * np.random.default_rng(0).standard_normal(clean.shape), rate)


@cache
def small_result() -> Result:
    return restore.denoise(recording(tone(0.3)), SMALL, device="cpu")


def render(
    noisy: Audio,
    result: Result,
    *,
    output: Audio | None = None,
    reference: Samples | None = None,
    names: tuple[str, str] = ("in.wav", "out.wav"),
    subtype: str = "FLOAT",
) -> Page:
    restored = output or result.audio
    clean = None if reference is None else noisy.with_samples(reference)
    gain = full_scale_gain(float(np.abs(restored.samples).max()), subtype)
    written = restored.with_samples(gain * restored.samples).as_file("WAV", subtype)
    record = build_record(
        "denoise",
        result,
        input_path=Path(names[0]),
        output_path=Path(names[1]),
        written=written,
        gain=gain,
        noisy=noisy,
        reference=clean,
    )
    return Page(render_page(record, result, noisy, written, clean))


@cache
def small_page(*, reference: bool = False) -> Page:
    return render(recording(tone(0.3)), small_result(), reference=tone(0.3) if reference else None)


def show(samples: Samples, rate: int = RATE, reference: Samples | None = None) -> Page:
    """The page of a restoration that changed nothing: the small result, with these samples as its input and output."""
    audio = Audio(samples, rate)
    return render(audio, small_result(), output=audio, reference=reference)


# What is on it


def test_players_hold_what_was_read_and_written_to_16_bits() -> None:
    clean, noisy, result = tone(0.3), recording(tone(0.3)), small_result()
    page = small_page(reference=True)
    expected = {"Before": noisy.samples, "After": result.audio.samples, "Reference": clean}
    assert list(page.recordings) == list(expected)
    for name, (samples, rate) in page.recordings.items():
        assert rate == RATE
        np.testing.assert_allclose(samples, expected[name], atol=2**-15)


def test_without_a_reference_there_are_two_players_and_no_metrics() -> None:
    page = small_page()
    assert list(page.recordings) == ["Before", "After"]
    assert "Metrics" not in page.prose
    assert "no --reference was given" in page.prose


def test_metrics_stand_beside_each_other_with_their_change_and_the_reason_of_those_that_are_missing() -> None:
    clean = tone(0.3)
    page = show(2 * clean, reference=clean)
    assert "SNR (dB) 0.000 0.000 +0.000" in page.prose
    assert "STOI - - -" in page.prose
    assert page.prose.count("STOI:") == 1  # the input has the same reason as the output
    for heading in page.all("th"):
        assert heading["scope"] in ("row", "col")


def test_the_summary_says_what_was_done() -> None:
    result = small_result()
    prose = render(recording(tone(0.3)), result, names=("a/b/in.wav", "out.flac")).prose
    for words in ("in.wav (0.3 s, mono, 16,000 Hz)", "out.flac", "exp-dense", "7 iterations", "all 3 iterations done"):
        assert words in prose
    assert f"{result.segments[0].parameters:,} parameters" in prose


def test_settings_and_versions_are_folded_away() -> None:
    page = small_page()
    assert "open" not in page.all("details")[0]
    assert "learning_rate 0.05" in page.prose
    assert "versions. torch 2." in page.prose


def test_all_spectrograms_have_the_colours_of_the_loudest() -> None:
    quiet, loud = 0.001 * tone(0.3), tone(0.3)
    page = show(quiet, reference=loud)
    scales = {label.partition("colours ")[2] for label in page.pictures if label.startswith("Spectrogram")}
    assert scales == {"from -90 to -10 dB"}  # the tone's amplitude of 0.3 is -10.5 dB
    axes = [label for label in page.pictures if "0 to 0.3 s, 0 to 8 kHz" in label]
    assert len(axes) == 3


def test_stereo_is_played_in_stereo_and_more_channels_as_their_mean() -> None:
    for channels, played in ((2, tone(0.3, 2)), (5, tone(0.3, 5).mean(axis=0, keepdims=True))):
        page = show(tone(0.3, channels))
        np.testing.assert_allclose(page.recordings["Before"][0], played, atol=2**-15)
        assert ("mean of the channels" in page.prose) == (channels > 2)


def test_players_of_a_long_recording_hold_its_beginning() -> None:
    samples = tone(40.0, rate=8000)
    page = show(samples, rate=8000)
    played, rate = page.recordings["After"]
    np.testing.assert_allclose(played, samples[:, : 30 * rate], atol=2**-15)
    assert "first 30 s" in page.prose
    assert "0 to 40 s" in page.pictures[0]


def test_peaks_past_full_scale_lower_all_players_alike() -> None:
    page = show(4 * tone(0.3), reference=tone(0.3))
    peaks = {name: float(np.abs(samples).max()) for name, (samples, _) in page.recordings.items()}
    assert peaks["Before"] == pytest.approx(1.0, abs=1e-4)
    assert peaks["Reference"] == pytest.approx(0.25, abs=1e-3)
    assert "1.58 dB lower" in page.prose


def test_the_output_is_compared_at_the_level_of_the_input() -> None:
    noisy = Audio(tone(0.3), RATE)
    page = render(noisy, small_result(), output=noisy.with_samples(4 * noisy.samples), subtype="PCM_16")
    peaks = {name: float(np.abs(samples).max()) for name, (samples, _) in page.recordings.items()}
    assert peaks["After"] / peaks["Before"] == pytest.approx(4.0, rel=1e-3)
    assert "the written file is lowered by 0.8" in page.prose


def test_segments_have_their_own_curves() -> None:
    clean = tone(4.0)
    result = restore.denoise(recording(clean), replace(SMALL, segment=1.5), device="cpu")
    assert len(result.segments) > 1
    page = render(recording(clean), result)
    assert f"in {len(result.segments)} segments" in page.prose
    assert f"{len(result.segments)} segments" in page.pictures[-1]


def test_of_many_segments_few_are_drawn_the_first_and_last_among_them() -> None:
    one = small_result().segments[0]
    many = tuple(replace(one, start=RATE * start, stop=RATE * (start + 1)) for start in range(50))
    page = render(recording(tone(0.3)), replace(small_result(), segments=many))
    assert "8 of 50 segments are shown" in page.prose
    # Glyphs are paths; what they spell is a comment beside them.
    legend = re.findall(r"<!-- (\d+\.0) to", page.text)
    assert len(legend) == 8
    assert (legend[0], legend[-1]) == ("0.0", "49.0")


def test_the_kept_iteration_is_marked_and_the_criterion_shown_where_it_decides() -> None:
    fixed = small_result()
    decided = replace(fixed, segments=(replace(fixed.segments[0], rule="held-out", best_iteration=2),))
    for result, kept, panels in ((fixed, 3, ["loss", "residual"]), (decided, 2, ["loss", "residual", "criterion"])):
        page = render(recording(tone(0.3)), result)
        assert f"Iteration {kept} of 3 was kept" in page.prose
        assert re.findall(r"<!-- (loss|residual|criterion) -->", page.text) == panels


def test_criteria_that_have_not_settled_are_left_out() -> None:
    fit = small_result().segments[0]
    steps = (replace(fit.steps[0], criterion=float("inf")), *fit.steps[1:])
    unsettled = replace(small_result(), segments=(replace(fit, rule="windowed-variance", steps=steps),))
    curves = [path.get("d") or "" for path in render(recording(tone(0.3)), unsettled).all("path")]
    assert any(curves)
    assert not [curve for curve in curves if "inf" in curve or "nan" in curve]


@dataclass(frozen=True)
class Hours:
    """Many hours of a tone that exist only where they are read; ``reads`` are the lengths that were asked for."""

    hours: float
    rate: int = 8_000
    subtype: str = "PCM_16"
    format: str = "WAV"
    channels: int = 2
    reads: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        return round(self.hours * 3600 * self.rate)

    def read(self, start: int, stop: int) -> Samples:
        assert 0 <= start <= stop <= self.length
        self.reads.append(stop - start)
        return np.tile(0.3 * np.sin(2 * np.pi * 1000 / self.rate * np.arange(start, stop)), (2, 1))


def test_of_hours_only_what_is_shown_is_read() -> None:
    noisy = recording(tone(0.3))
    record = build_record(
        "denoise",
        small_result(),
        input_path=Path("in.wav"),
        output_path=Path("out.wav"),
        written=noisy,
        gain=1.0,
        noisy=noisy,
        reference=None,
    )
    read = []
    for hours in (1, 20):
        before, after = Hours(hours), Hours(hours)
        page = Page(render_page(record, small_result(), before, after, None))
        assert page.recordings["After"][0].shape == (2, 30 * before.rate)
        assert f"0 to {3600 * hours:.3g} s" in page.pictures[1]
        assert max(after.reads) == 30 * after.rate
        read.append(sum(after.reads))
    assert read[0] == pytest.approx(read[1], rel=0.1)


# That it holds it itself


def test_it_refers_to_nothing_outside() -> None:
    page = small_page(reference=True)
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "poster", "srcset", "action", "data"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:")), f"<{tag} {name}={target[:60]}>"
    assert not re.findall(r"url\((?!#)|@import|fetch\(|file:", page.text)
    policies = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert any("default-src 'none'" in str(policy) for policy in policies)


def test_its_parts_refer_to_parts_that_are_there_once() -> None:
    page = small_page(reference=True)
    count = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert set(count.values()) == {1}
    targets = {str(attributes.get("xlink:href")) for attributes in page.all("use")}
    targets |= set(re.findall(r"url\((#[^)]*)\)", page.text))
    assert targets
    assert targets <= {f"#{name}" for name in count}


def test_text_in_pictures_follows_the_page_into_dark_mode() -> None:
    page = small_page()
    assert "prefers-color-scheme: dark" in page.text
    drawn = "".join(re.findall(r"<svg.*?</svg>", page.text, flags=re.DOTALL))
    assert "currentColor" in drawn
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", drawn)) == {"#1f86d0"}  # the curve


def test_the_same_restoration_gives_the_same_page() -> None:
    assert render(recording(tone(0.3)), small_result()).text == small_page().text


def test_ten_seconds_stay_below_two_megabytes() -> None:
    samples = 0.2 * np.random.default_rng(1).standard_normal((1, 10 * RATE))  # the worst to compress
    assert len(show(samples, reference=samples).text) < 2_000_000


def test_the_command_line_does_not_import_matplotlib() -> None:
    code = "import sys, dapcli.cli, dapcli.report.console; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# That nothing breaks it


@pytest.mark.parametrize(
    "name",
    [
        "\"><img src=x onerror='alert(1)'>.wav",
        "</title></svg><script>alert(1)</script>&amp; $title ${notes} \udcff.wav",
    ],
)
def test_a_hostile_file_name_is_text(name: str) -> None:
    noisy, result = recording(tone(0.3)), small_result()
    plain = small_page()
    page = render(noisy, result, names=(name, "out-" + name))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert page.text.encode()
    shown = Path(name).name.replace("\udcff", "?")
    assert page.prose.count(shown) >= 6  # title, heading, summary and player, twice


def test_silence() -> None:
    noisy = Audio(np.zeros((2, 4000)), RATE)
    result = restore.denoise(noisy, SMALL, device="cpu")
    page = render(noisy, result, reference=noisy.samples)
    assert len(page.recordings) == 3
    assert not any(samples.any() for samples, _ in page.recordings.values())
    assert "the recording is silent" in page.prose
    assert "Convergence" not in page.prose


def test_two_samples_and_one_iteration() -> None:
    noisy = Audio(np.array([[0.1, -0.2]]), RATE)
    page = render(noisy, restore.denoise(noisy, replace(SMALL, iterations=1, refinement=1), device="cpu"))
    np.testing.assert_allclose(page.recordings["Before"][0], noisy.samples, atol=2**-15)
    assert "0.000125 s" in page.prose
    assert "Iteration 1 of 1 was kept" in page.prose


# Spectrograms


@pytest.mark.parametrize(
    ("rate", "seconds"), [(8_000, 0.1), (8_000, 60.0), (16_000, 2.0), (44_100, 0.1), (44_100, 20.0), (192_000, 2.0)]
)
def test_a_tone_has_its_level_where_it_is(rate: int, seconds: float) -> None:
    t = np.arange(round(seconds * rate)) / rate
    samples = np.stack([np.sin(2 * np.pi * 3000 * t), np.zeros_like(t)])
    samples[:, len(t) // 2 :] = 0  # silent in the second half
    picture = plots.spectrogram(Audio(samples, rate))
    rows, columns = picture.levels.shape
    assert rows <= 192
    assert columns <= 512
    assert columns * picture.column_s == pytest.approx(seconds, abs=picture.column_s)
    assert rows * picture.row_hz == pytest.approx(rate / 2, abs=picture.row_hz)
    row, column = np.unravel_index(picture.levels.argmax(), picture.levels.shape)
    assert row * picture.row_hz == pytest.approx(3000, abs=picture.row_hz)
    assert column <= columns / 2
    # The mean of a sine at full scale and nothing; the rows of high rates average the tone with its neighbours.
    assert -3.1 - 10 * np.log10(max(1, rate // 8_000)) < picture.levels.max() < -2.9
    assert picture.levels[:, columns * 3 // 4].max() < -60


def test_the_scale_of_silence_is_not_of_its_floor() -> None:
    assert plots.shared_scale([plots.spectrogram(Audio(np.zeros((1, 100)), RATE))]) == (-80.0, 0.0)


@pytest.mark.parametrize(("container", "subtype"), [("WAV", "DOUBLE"), ("OGG", "VORBIS")])
@pytest.mark.parametrize("seconds", [1.0, 150.0])
def test_a_file_and_its_samples_have_the_same_picture(
    container: str, subtype: str, seconds: float, tmp_path: Path
) -> None:
    with (tmp_path / "a").open("w+b") as stream:
        write_audio(stream, [tone(seconds, 2)], rate=RATE, channels=2, subtype=subtype, container=container)
    with open_audio(tmp_path / "a") as file:
        picture = plots.spectrogram(file)
        whole = plots.spectrogram(Audio(file.read(0, file.length), RATE))
    np.testing.assert_array_equal(picture.levels, whole.levels)


def test_scaling_can_be_undone_for_the_picture() -> None:
    loud, quiet = tone(0.3), 0.25 * tone(0.3)
    undone = plots.spectrogram(Audio(quiet, RATE), 0.25)
    np.testing.assert_array_equal(undone.levels, plots.spectrogram(Audio(loud, RATE)).levels)
