"""Gaps: given, masked and detected ones are what they should be, and what cannot be meant is refused."""

from __future__ import annotations

import math
import re
from itertools import groupby, pairwise
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dapcli.audio import Audio, open_audio, recording
from dapcli.errors import InputError, SettingsError
from dapcli.signal.gaps import Gaps, Interval, describe, make_gaps, merge, parse_gap, read_mask, warn_of_long
from dapcli.signal.gaps_detection import DEFAULT_MIN_GAP, detect_gaps
from tests.signals import Samples, noise

RATE = 16_000
SECOND = Audio(np.zeros((1, RATE)), RATE)
STEREO = Audio(np.zeros((2, RATE)), RATE)

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
intervals = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)).map(lambda pair: (pair[0], sum(pair))))


def covered(some: tuple[Interval, ...] | list[Interval]) -> set[int]:
    return {n for start, stop in some for n in range(start, stop)}


def in_16_bits(samples: Samples) -> Samples:
    return np.asarray(np.round(samples * 2**15) / 2**15)


def sound(seconds: float = 1.0, channels: int = 1, level: float = 0.3) -> Samples:
    """A few tones and a little noise, in 16 bits."""
    t = np.arange(round(seconds * RATE)) / RATE
    tones = sum(np.sin(2 * np.pi * frequency * t) for frequency in (110, 523, 1_234)) / 3
    return in_16_bits(level * (tones + noise(channels, len(t), std=0.02)))


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# Intervals


@given(intervals)
def test_merging_covers_the_same_samples_with_the_fewest_intervals(some: list[Interval]) -> None:
    merged = merge(some)
    assert covered(merged) == covered(some)
    assert all(this[1] < following[0] for this, following in pairwise(merged))


@given(intervals, intervals, st.integers(0, 80), st.integers(0, 20))
def test_all_views_of_gaps_agree(left: list[Interval], right: list[Interval], start: int, length: int) -> None:
    some = Gaps((merge(left), merge(right)))
    expected = np.array([[n in covered(channel) for n in range(start, start + length)] for channel in some.channels])
    np.testing.assert_array_equal(some.mask(start, start + length), expected.reshape(2, length))
    whole = some.mask(0, 80)
    assert some.missing == whole.sum()
    assert some.count == len(some.merged())
    assert covered(some.merged()) == set(np.flatnonzero(whole.any(axis=0)))
    assert bool(some) == whole.any()
    assert some.longest == max((b - a for channel in some.channels for a, b in channel), default=0)


def test_gaps_that_are_not_in_order_and_apart_cannot_be_made() -> None:
    for channel in (((5, 5),), ((5, 4),), ((-1, 4),), ((4, 6), (1, 2)), ((1, 2), (2, 3))):
        with pytest.raises(ValueError, match="intervals"):
            Gaps((channel,))


def test_gaps_are_described_by_time_length_and_channels() -> None:
    some = Gaps((((8_000, 8_960), (12_000, 12_001)), ((8_000, 8_960), (32_000, 52_000))))
    assert describe(some, RATE) == [
        "0.500-0.560 s (60 ms), both channels",
        "0.750-0.750 s (0.06 ms), channel 1",
        "2.000-3.250 s (1250 ms), channel 2",
    ]
    gap = ((0, 16),)
    for channels, where in (((gap,), ""), ((gap,) * 3, ", all channels"), ((gap, (), gap), ", channels 1, 3")):
        assert describe(Gaps(channels), RATE) == [f"0.000-0.001 s (1 ms){where}"]
    assert describe(Gaps(((), ())), RATE) == []


# Given


@given(st.integers(0, 10**9), st.integers(1, 10**6), st.sampled_from([8_000, 11_025, 44_100, 48_000, 192_000]))
def test_every_interval_can_be_given_in_both_forms(start: int, length: int, rate: int) -> None:
    interval = (start, start + length)
    assert parse_gap(f"{start}n:{start + length}n", rate) == interval
    assert parse_gap(f"{start / rate}:{(start + length) / rate}", rate) == interval
    assert parse_gap(" .07 : 7e-1 ", 44_100) == (3_087, 30_870)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *((text, "START:END in seconds") for text in ("", "1:", "1:2:3", "0,5:0,6", "1n:2", "1.5n:2n", "-1n:2n")),
        ("0.6:0.5", "ends before it starts"),
        ("8000n:8000n", "needs a length"),
        ("0.5:0.50001", "needs a length"),
        ("-0.5:0.5", "begins at 0"),
        ("nan:1", "finite"),
        (f"0n:{'9' * 400}n", "finite"),
    ],
)
def test_gaps_that_cannot_be_are_refused(text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        parse_gap(text, RATE)


@given(st.text(st.sampled_from("0123456789.:-+en \n"), max_size=12) | st.text(max_size=12))
def test_any_text_is_a_gap_or_refused_on_one_line(text: str) -> None:
    try:
        start, stop = parse_gap(text, RATE)
        assert 0 <= start < stop
    except SettingsError as error:
        assert "\n" not in str(error)  # noqa: PT017


@given(intervals)
def test_given_gaps_apply_to_all_channels_and_merging_is_said(some: list[Interval]) -> None:
    made, notes = make_gaps(some, STEREO)
    assert made.channels == (merge(some), merge(some))
    assert len(notes) == (len(merge(some)) < len(some))
    assert all(f"merged: {len(some)} become {len(merge(some))}" in note for note in notes)


def test_gaps_outside_the_recording_or_of_all_of_it_are_refused() -> None:
    assert make_gaps([(0, RATE - 1)], SECOND)[0].missing == RATE - 1
    with pytest.raises(InputError, match="all samples of channel 1 are missing"):
        make_gaps([(0, 9_000), (9_000, RATE)], SECOND)
    with pytest.raises(InputError, match=r"gap 1\.000-1\.001 s .* ends at 1\.000 s \(16000 samples\)"):
        make_gaps([(1, 2), (RATE, RATE + 9)], SECOND)


def test_gaps_too_long_to_know_are_noted() -> None:
    some = Gaps((((0, 100), (4_000, 8_001)), ((0, 8_001),)))
    guess, unknown = warn_of_long(some, STEREO)
    assert guess.startswith("0.000-0.500 s is 0.500 s long")
    assert "longer than all that is known of channel 2, 0.500 s" in unknown
    assert not warn_of_long(Gaps((((0, 4_000), (8_000, 12_000)), ())), STEREO)


# Masks in text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "start,end\n0.5,0.56\n0.75,0.8"),
        ("a.csv", '"start","end","what"\n"0.5","0.56","0,5, or so"\n0.75,0.8,"unclosed\n'),
        ("a.CSV", "# found by ear\n\n start (s) , end (s), what\n 0.75 ,  0.8,\n  \n0.5, 0.56, click; pop\n"),
        ("a.csv", "\ufeff0.5,0.56\r\n0.75,0.8\r\n"),
        ("a.csv", "0.5,0.56\r0.75,0.8\r"),
        ("a.csv", "\ufeffstart,end\n0.5,0.56\n0.75,0.8\n".encode("utf-16-le")),
        ("a.txt", '0.500000\t0.560000\tclick, 1\n0.750000\t0.800000\t"\n'),
        ("a.txt", "0.500000\t0.560000\ta\n\\\t100.000000\t2000.000000\n0.750000\t0.800000\tb\n\\\t-1.0\t-1.0\n"),
        ("a.txt", "0.5\t0.56\tKnack\u2028s\n0.75\t0.8\tgr\u00fcn\n"),
        ("a.txt", "0.5\t0.56\tgr\u00fcn\n0.75\t0.8\n".encode("latin-1")),
    ],
)
def test_tables_and_labels_hold_gaps_of_all_channels(name: str, content: str | bytes, tmp_path: Path) -> None:
    masked, notes = read_mask(write(tmp_path / name, content), STEREO)
    assert masked.channels == (((8_000, 8_960), (12_000, 12_800)),) * 2
    assert notes == []


def test_merged_gaps_of_a_table_are_noted_by_its_name_and_none_are_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "0.5,0.6\n0.1,0.2\n0.55,0.7\n")
    (note,) = read_mask(path, SECOND)[1]
    assert note.startswith(f"{path}: ")
    for content in ("", "start,end\n", "# nothing\n"):
        assert not read_mask(write(path, content), SECOND)[0]


@pytest.mark.parametrize(
    ("name", "content", "line", "reason"),
    [
        ("a.txt", "0.1\t0.2\n0.3\t0.3\tpoint\n", 2, "needs a length"),
        ("a.csv", "start,end\n0.3,0.2\n", 2, "ends before it starts"),
        ("a.csv", "nan,inf\n", 1, "finite"),
        ("a.csv", "# a\n\n0.9,1.1\n", 3, r"0\.900-1\.100 s .* outside the recording, which ends at 1\.000 s"),
        ("a.csv", "0.5\t0.6\n", 1, "write START,END in seconds"),
        ("a.csv", "0.1,0.2\nstart,end\n", 2, "write START,END in seconds"),
        # Labels at whole seconds are no decimal commas.
        ("a.txt", "1\t2\t3\n", 1, r"1\.000-2\.000 s .* outside the recording"),
        ("a.txt", "0.5,0.6\n", 1, "write START, a tab, END in seconds"),
        ("a.txt", "0,5\t0,56\tclick\n", 1, "decimal points"),
        ("a.csv", "0,5;0,56\n", 1, "decimal points"),
        ("a.csv", "0,5,1\n", 1, "decimal commas"),
        ("a.csv", '"0,5","0,56"\n', 1, "decimal commas"),
        ("a.csv", "\0\x01\x02" * 500, 1, "write START,END in seconds"),
    ],
)
def test_lines_that_are_no_gaps_are_refused_by_number(
    name: str, content: str, line: int, reason: str, tmp_path: Path
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(InputError, match=reason) as caught:
        read_mask(path, SECOND)
    assert str(caught.value).startswith(f"{path}, line {line}: ")
    assert len(str(caught.value)) < len(str(path)) + 260


@given(
    st.sampled_from(["a.csv", "a.txt"]),
    st.binary(max_size=60) | st.text(st.sampled_from('0123456789.,\t\n\r"#\\-e'), max_size=60),
)
@SAME_FOLDER
def test_any_text_file_is_a_mask_or_refused_on_one_line(tmp_path: Path, name: str, content: str | bytes) -> None:
    path = write(tmp_path / name, content)
    try:
        assert read_mask(path, STEREO)[0].missing < 2 * RATE
    except InputError as error:
        assert str(error).startswith(str(path))  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("name", ["a.csv", "a.wav", "a"])
def test_masks_that_are_not_there_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_mask(tmp_path / name, SECOND)
    (tmp_path / "a.json").write_text("[[0.5, 0.6]]")
    with pytest.raises(InputError, match="is a text file"):
        read_mask(tmp_path / "a.json", SECOND)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=r"cannot be read|is a folder"):
        read_mask(tmp_path / name, SECOND)


# Masks in audio


def audio_mask(path: Path, here: NDArray[np.bool_], rate: int = RATE, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, np.where(here, 0.5, 0.0).T, rate, subtype=subtype)
    return path


@given(st.lists(intervals.map(merge), min_size=1, max_size=2), st.integers(1, 9))
@SAME_FOLDER
def test_an_audio_mask_is_zero_where_samples_of_its_channel_or_of_all_are_missing(
    tmp_path: Path, channels: list[tuple[Interval, ...]], block: int
) -> None:
    path = audio_mask(tmp_path / "mask.flac", ~Gaps(tuple(channels)).mask(0, 100))
    expected = Gaps((channels[0], channels[-1]))
    with patch.object(recording, "BLOCK", block):
        assert read_mask(path, Audio(np.ones((2, 100)), RATE)) == (expected, [])


@pytest.mark.parametrize(
    ("channels", "length", "rate"), [(1, RATE - 1, RATE), (1, RATE, 22_050), (3, RATE, RATE), (2, 2 * RATE, RATE)]
)
def test_an_audio_mask_must_match(channels: int, length: int, rate: int, tmp_path: Path) -> None:
    path = audio_mask(tmp_path / "mask.wav", np.ones((channels, length), dtype=np.bool_), rate)
    with pytest.raises(InputError, match=rf"{length} samples at {rate} Hz.* 2 channels of 16000 samples at 16000 Hz"):
        read_mask(path, STEREO)


def test_a_lossy_audio_mask_and_one_in_which_a_channel_is_missing_are_refused(tmp_path: Path) -> None:
    path = audio_mask(tmp_path / "mask.ogg", np.ones((1, RATE), dtype=np.bool_), subtype="VORBIS")
    with pytest.raises(InputError, match=r"save the mask as WAV or FLAC"):
        read_mask(path, SECOND)
    path = audio_mask(tmp_path / "mask.wav", np.array([[True], [False]]).repeat(RATE, axis=1))
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))}: all samples of channel 2 are missing"):
        read_mask(path, STEREO)


# Detection


def with_dropouts(samples: Samples, *some: Interval, held: bool = False) -> Samples:
    damaged: Samples = np.copy(samples)
    for start, stop in some:
        damaged[:, start:stop] = damaged[:, start - 1 : start] if held else 0
    return damaged


@pytest.mark.parametrize("held", [False, True], ids=["zeros", "held"])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_dropouts_of_a_file_are_found_to_the_sample(subtype: str, held: bool, tmp_path: Path) -> None:
    # Begin and end where the sound is neither zero nor the same as beside.
    where = [(3_007, 3_407), (8_001, 8_961), (70_003, 71_003)]
    damaged = with_dropouts(sound(5.0, channels=2), *where, held=held)
    path = tmp_path / "a.wav"
    soundfile.write(path, damaged.T, RATE, subtype=subtype)
    with open_audio(path) as file:
        found, notes = detect_gaps(file)
    assert found.channels == (tuple(where), tuple(where))
    assert notes == []


def test_sound_and_constants_have_no_dropouts() -> None:
    for samples in (sound(), np.zeros((2, RATE)), np.full((1, RATE), 0.25), np.zeros((1, 1))):
        assert not detect_gaps(Audio(samples, RATE))[0]


def test_silence_at_the_ends_is_no_gap_but_noted() -> None:
    found, notes = detect_gaps(Audio(with_dropouts(sound(), (0, 4_000), (12_000, RATE)), RATE))
    assert not found
    assert ["2 runs of one value at the beginning or the end" in note for note in notes] == [True]


T2 = np.arange(2 * RATE) / RATE


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.clip(4 * np.sin(2 * np.pi * 25 * T2) + 0.1, -0.6, 0.8)[None], "clipping"),
        (in_16_bits(sound(2.0) * np.exp(-T2 / 0.2)), "beside near silence"),
        (in_16_bits(sound(2.0) * np.clip(4 * np.sin(4 * np.pi * T2), 0, 1) ** 4), "beside near silence"),
    ],
    ids=["clipping", "rounding", "noise gate"],
)
def test_runs_that_are_no_dropouts_are_left_out_with_a_reason(samples: Samples, reason: str) -> None:
    found, notes = detect_gaps(Audio(np.tile(samples, 3), RATE))
    assert not found
    assert any(reason in note for note in notes)


@pytest.mark.parametrize(("decibels", "expected"), [(-70, 0), (-50, 1)])
def test_near_silence_begins_60_db_below_the_peak_whatever_the_offset(decibels: float, expected: int) -> None:
    loud, quiet = sound(level=1.0), sound(level=10 ** (decibels / 20))
    samples = np.concatenate([loud, quiet], axis=1) + noise(1, 2 * RATE, std=1e-9)  # steps much smaller
    for offset in (0.0, 5.0):
        audio = Audio(with_dropouts(samples, (20_007, 20_407), held=True) + offset, RATE)
        assert detect_gaps(audio)[0].count == expected


def faded(samples: Samples, interval: Interval, length: int, shape: float) -> Samples:
    """Zeros in an interval, with fades of some length into and out of them."""
    start, stop = interval
    distance = np.arange(samples.shape[1])
    outside = np.maximum(start - distance, distance - stop + 1).clip(0, length) / length
    return np.asarray(samples * outside**shape)


@pytest.mark.parametrize("shape", [1, 2])
@pytest.mark.parametrize("ms", [1, 3, 10])
@pytest.mark.parametrize(("scale", "offset"), [(1e-4, 0.0), (1.0, 0.0), (1.0, 0.25), (1e4, 0.0)])
def test_a_pause_between_fades_is_no_gap_and_a_dropout_is_at_any_level(
    ms: int, shape: float, scale: float, offset: float
) -> None:
    samples = faded(sound(), (4_000, 4_280), ms * RATE // 1_000, shape)
    dropout = (10_007, 10_327)
    audio = Audio(scale * (with_dropouts(samples, dropout) + offset), RATE)
    if offset:
        audio.samples[:, slice(*dropout)] = 0
    found, notes = detect_gaps(audio)
    assert found.channels == ((dropout,),)
    assert ["beside a fade" in note for note in notes] == [True]


def test_a_hit_out_of_digital_silence_after_a_decay_is_no_gap() -> None:
    hit = sound(0.5) * np.exp(-np.arange(RATE // 2) / 800)
    samples = in_16_bits(np.concatenate([hit, np.zeros((1, 3_000)), hit], axis=1))
    assert not detect_gaps(Audio(samples, RATE))[0]


def test_a_dropout_of_one_channel_is_found_and_one_of_all_is_in_the_quiet_channel_too() -> None:
    samples = sound(channels=2)
    samples[1] = faded(samples[1:], (3_007, 3_407), 160, 2)
    samples[0, 8_001:8_401] = 0
    assert detect_gaps(Audio(samples, RATE))[0].channels == (((8_001, 8_401),), ())
    samples[0, 3_007:3_407] = 0
    assert detect_gaps(Audio(samples, RATE))[0].channels == (((3_007, 3_407), (8_001, 8_401)), ((3_007, 3_407),))


def test_every_run_is_said_to_be_taken_or_not() -> None:
    samples = with_dropouts(faded(sound(), (4_000, 4_280), 80, 2), (0, 900), (10_007, 10_327))
    _, notes = detect_gaps(Audio(samples, RATE), each=True)
    assert [note.split(":")[0] for note in notes] == ["not taken for gaps"] * 2 + ["taken for a gap"]
    assert ["0.625-0.645 s" in note for note in notes] == [False, False, True]


@pytest.mark.parametrize(("length", "expected"), [(79, 0), (80, 1)])
def test_the_shortest_dropout_is_5_ms_unless_another_is_asked_for(length: int, expected: int) -> None:
    assert round(DEFAULT_MIN_GAP * RATE) == 80
    for held in (False, True):
        audio = Audio(with_dropouts(sound(), (3_007, 3_007 + length), held=held), RATE)
        assert detect_gaps(audio)[0].count == expected
        assert detect_gaps(audio, 0.002)[0].count == 1


def test_a_shortest_dropout_that_cannot_be_is_refused() -> None:
    for min_gap in (0.0, -1.0, 1.1, math.nan, math.inf):
        with pytest.raises(SettingsError, match="--min-gap"):
            detect_gaps(SECOND, min_gap)


def slow_detection(samples: Samples, rate: int, shortest: int) -> list[tuple[Interval, ...]]:
    """The rule of :func:`detect_gaps` on whole channels, run by run."""
    channels: list[dict[Interval, bool]] = []
    for channel in samples:
        runs = [(value, len(list(group))) for value, group in groupby(channel.tolist())]
        steps = [abs(after[0] - before[0]) for before, after in pairwise(runs)]
        high, low = max(channel), min(channel)
        reach = max(1, round(0.001 * rate))
        stop = 0
        channels.append({})
        for value, length in runs:
            start, stop = stop, stop + length
            missing = (start + (value != 0), stop)
            if start == 0 or stop == len(channel) or (value != 0 and value in (high, low)):
                continue
            beside = (channel[max(0, start - reach) : start], channel[stop : stop + reach])
            enough = max(4 * min(steps), 1e-3 * (high - low) / 2)
            if shortest <= stop - missing[0] <= rate:
                channels[-1][missing] = all(max(abs(side - value)) >= enough for side in beside)
    # What is a dropout in one channel is not left out in others as quiet.
    dropouts = {gap for found in channels for gap, is_dropout in found.items() if is_dropout}
    return [merge([gap for gap in found if gap in dropouts]) for found in channels]


RUNS = st.lists(st.tuples(st.sampled_from([0, 0, 1, 2, 6, -7, 50, -90]), st.integers(1, 14)), min_size=1, max_size=12)


@given(st.lists(RUNS, min_size=1, max_size=2), st.integers(1, 9), st.integers(2, 4))
@settings(deadline=None, max_examples=150)
def test_detection_in_blocks_is_that_of_the_whole_recording(
    runs: list[list[tuple[int, int]]], block: int, shortest: int
) -> None:
    rate = 10  # so that a run of a few samples is as long as silence
    rows = [np.repeat(*np.transpose(row)) for row in runs]
    samples = np.array([row[: min(map(len, rows))] for row in rows]) / 128
    with patch.object(recording, "BLOCK", block):
        found, _ = detect_gaps(Audio(samples, rate), shortest / rate)
    assert list(found.channels) == slow_detection(samples, rate, shortest)
