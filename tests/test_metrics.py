"""The metrics: known answers, properties, and a reason wherever there is no answer."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.signal import resample_poly

from dapcli.errors import InputError
from dapcli.metrics import METRICS, Metric, MetricUndefined, score
from dapcli.metrics.perceptual import pesq_nb, pesq_wb, stoi
from dapcli.metrics.waveform import envelope_distance, psnr_db, segmental_snr_db, si_sdr_db, snr_db, spectral_snr_db
from tests import signals
from tests.signals import Samples

RATE = 16_000
COMPOSITE = ("csig", "cbak", "covl")
NEED_PESQ = {"pesq_nb", "pesq_wb", *COMPOSITE}
PESQ_NB_CEILING, PESQ_WB_CEILING = 4.5486, 4.6439


def syllables(seconds: float = 1.5, rate: int = RATE, pitch: float = 150.0) -> Samples:
    """Harmonics of a pitch, loud and soft three times a second: [1, N]."""
    t = np.arange(round(seconds * rate)) / rate
    tone = np.sum([np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, 20)], axis=0)
    return np.asarray(0.1 * tone * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * t)))[None]


def noise(shape: tuple[int, ...], seed: int = 0) -> Samples:
    return signals.noise(*shape, std=1.0, seed=seed)


def tone(cycles: int, samples: int, amplitude: float = 1.0, phase: float = 0.0) -> Samples:
    return amplitude * np.cos(2 * np.pi * cycles * np.arange(samples) / samples + phase)[None]


# Known answers


def test_the_registry_holds_the_metrics_in_the_order_of_the_report() -> None:
    assert " ".join(METRICS) == (
        "snr_db psnr_db si_sdr_db segmental_snr_db spectral_snr_db envelope_distance "
        "pesq_nb pesq_wb stoi csig cbak covl"
    )


@pytest.mark.parametrize("metric", [snr_db, segmental_snr_db, spectral_snr_db])
@pytest.mark.parametrize("expected", [-6.0, 0.0, 12.0])
def test_an_error_proportional_to_the_reference_has_its_ratio(metric: Metric, expected: float) -> None:
    s = syllables()
    assert metric(s, s * (1 + 10 ** (-expected / 20)), RATE) == pytest.approx(expected, abs=1e-9)


def test_snr_adds_up_channels_before_the_ratio() -> None:
    s, e = np.array([[3.0, 0.0], [0.0, 1.0]]), np.array([[3.0, 0.0], [0.0, 2.0]])
    assert snr_db(s, e, RATE) == pytest.approx(10.0)


def test_psnr_measures_from_the_peak_of_the_reference() -> None:
    s = np.array([[0.0, 0.2, -0.5, 0.1]])
    assert psnr_db(s, s + 0.05, RATE) == pytest.approx(20.0)


def test_si_sdr_is_the_ratio_to_an_orthogonal_error() -> None:
    s = tone(8, 1000)
    e = 3.0 * s + tone(8, 1000, amplitude=0.3, phase=np.pi / 2)
    assert si_sdr_db(s, e, RATE) == pytest.approx(20.0)


def test_segmental_snr_matches_a_plain_loop_over_frames() -> None:
    s, error = noise((2, 5000)) * np.geomspace(1e-3, 1, 5000), 0.1 * noise((2, 5000), seed=1)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1, 481) / 481)
    ratios = []
    for start in range(0, 5000 - 480 + 1, 120):
        frame = slice(start, start + 480)
        ratio = np.sum((s[:, frame] * window) ** 2) / np.sum((error[:, frame] * window) ** 2)
        ratios.append(min(35.0, max(-10.0, 10 * math.log10(ratio))))
    assert -10.0 in ratios
    assert segmental_snr_db(s, s + error, RATE) == pytest.approx(np.mean(ratios), abs=1e-6)
    assert [segmental_snr_db(s, gain * s, RATE) for gain in (1.0, 1.0001)] == [35.0, 35.0]


def test_segmental_snr_leaves_out_frames_where_both_are_silent_but_not_noise_in_a_pause() -> None:
    s = np.concatenate([syllables(0.5), np.zeros((1, 8000))], axis=1)
    halved = 0.5 * s
    assert segmental_snr_db(s, halved, RATE) == pytest.approx(20 * math.log10(2))
    halved[:, 8000:] = 1e-4
    # 130 whole frames in 16000 samples; the last of them that affects the first 8000 is number 66.
    assert segmental_snr_db(s, halved, RATE) == pytest.approx((67 * 20 * math.log10(2) - 63 * 10) / 130, abs=0.2)


def test_spectral_snr_matches_a_plain_loop_over_frames() -> None:
    s, e = noise((2, 1280)), noise((2, 1280), seed=1)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    signal = error = 0.0
    for s_channel, e_channel in zip(np.pad(s, ((0, 0), (128, 128))), np.pad(e, ((0, 0), (128, 128))), strict=True):
        for start in range(0, 1280 + 1, 128):
            magnitude_s, magnitude_e = (
                np.abs(np.fft.rfft(window * x[start : start + 256])) for x in (s_channel, e_channel)
            )
            signal += np.sum(magnitude_s**2)
            error += np.sum((magnitude_s - magnitude_e) ** 2)
    assert spectral_snr_db(s, e, RATE) == pytest.approx(10 * math.log10(signal / error))
    assert spectral_snr_db(s, -e, RATE) == spectral_snr_db(s, e, RATE)


def test_envelope_distance_is_the_difference_of_amplitudes_whatever_the_phase() -> None:
    s, e = tone(50, 2000, 0.7), tone(50, 2000, 0.4, phase=1.0)
    assert envelope_distance(s, e, RATE) == pytest.approx(0.3)
    assert envelope_distance(s, tone(50, 2000, 0.7, phase=1.0), RATE) == pytest.approx(0.0, abs=1e-9)
    both = envelope_distance(np.concatenate([s, s]), np.concatenate([s, e]), RATE)
    assert both == pytest.approx(0.3 / math.sqrt(2))


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_perceptual_metrics_of_identical_signals_are_at_their_ceilings(rate: int) -> None:
    s = syllables(rate=rate)
    assert pesq_nb(s, s, rate) == pytest.approx(PESQ_NB_CEILING, abs=1e-3)
    assert pesq_wb(s, s, rate) == pytest.approx(PESQ_WB_CEILING, abs=1e-3)
    assert stoi(s, s, rate) == pytest.approx(1.0, abs=1e-6)
    for name in COMPOSITE:  # within the scale of ratings
        assert (METRICS[name](s, s, rate), METRICS[name](s, s + noise(s.shape), rate)) == (5.0, 1.0), name


def test_a_long_recording_has_the_mean_pesq_of_its_pieces() -> None:
    # More than 50 utterances at once end the process inside the ITU's code.
    burst = np.concatenate([syllables(0.25, 8_000) + 0.05, np.zeros((1, 2_000))], axis=1)
    s = np.tile(burst, 28)
    e = s + 0.01 * noise(s.shape)
    once = pesq_nb(s, e, 8_000)
    assert 1.0 < once < 4.0
    # Five pieces of 14 s; those with nothing or only noise in place of nothing have no score of their own.
    pause, hiss = np.zeros_like(s), 0.01 * noise(s.shape, seed=1)
    long_s, long_e = np.concatenate([s, pause, s, pause, s], axis=1), np.concatenate([e, hiss, e, pause, e], axis=1)
    assert pesq_nb(long_s, long_e, 8_000) == pytest.approx(once)


def breathy(rate: int) -> Samples:
    """Syllables over a little noise, which all recordings have, with a peak of 1."""
    s = syllables(rate=rate)
    s = s + 2e-4 * noise(s.shape, seed=2)
    return np.asarray(s / np.abs(s).max())


# Values by pysepm (github.com/schmiph2/pysepm, 7ef88aff), a port of Hu and Loizou's program by others, in which only
# np.NaN and a float n_fft were replaced, which today's libraries refuse. It leaves out the last frame.
@pytest.mark.parametrize(
    ("rate", "level", "expected"),
    [
        (8_000, 0.003, [5.0, 5.0, 4.9875]),
        (8_000, 0.03, [3.8116, 4.0132, 3.5188]),
        (16_000, 0.003, [5.0, 5.0, 4.8616]),
        (16_000, 0.03, [1.4580, 3.5564, 1.8516]),
    ],
)
def test_composite_measures_agree_with_another_program(rate: int, level: float, expected: list[float]) -> None:
    s = breathy(rate)
    e = s + level * noise(s.shape)
    assert [METRICS[name](s, e, rate) for name in COMPOSITE] == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("name", sorted(NEED_PESQ))
def test_speech_at_other_rates_is_scored_at_16_khz(name: str) -> None:
    s = breathy(48_000)
    e = s + 0.03 * noise(s.shape)
    low_s, low_e = (resample_poly(x, 1, 3, axis=1) for x in (s, e))
    assert METRICS[name](s, e, 48_000) == METRICS[name](low_s, low_e, RATE) < 4.9


@pytest.mark.parametrize("gain", [1e-30, -1.0, 1e30])
def test_predictions_of_listeners_do_not_see_a_common_gain(gain: float) -> None:
    s = breathy(RATE)
    e = s + 0.02 * noise(s.shape)
    for name in (*NEED_PESQ, "stoi"):
        assert METRICS[name](gain * s, gain * e, RATE) == pytest.approx(METRICS[name](s, e, RATE), abs=1e-4), name


@pytest.mark.parametrize("name", METRICS)
def test_more_noise_scores_worse(name: str) -> None:
    s = breathy(RATE)
    sign = -1 if name == "envelope_distance" else 1
    values = [sign * METRICS[name](s, s + level * noise(s.shape), RATE) for level in (0.01, 0.03, 0.1)]
    assert values[0] > values[1] > values[2]


# Channels


@pytest.mark.parametrize("name", ["pesq_nb", "pesq_wb", "stoi", "cbak"])
def test_perceptual_metrics_average_over_channels(name: str) -> None:
    s = np.concatenate([syllables(), syllables(pitch=211.0)])
    e = s + np.array([[0.002], [0.05]]) * noise(s.shape)
    one, other = (METRICS[name](s[c : c + 1], e[c : c + 1], RATE) for c in (0, 1))
    assert abs(one - other) > 0.01
    assert METRICS[name](s, e, RATE) == pytest.approx((one + other) / 2)


@pytest.mark.parametrize("name", ["snr_db", "psnr_db", "si_sdr_db"])
def test_waveform_metrics_take_channels_as_more_samples(name: str) -> None:
    s = np.concatenate([syllables(), 0.1 * syllables(pitch=211.0)])
    e = s + 0.05 * noise(s.shape)
    assert METRICS[name](s, e, RATE) == pytest.approx(METRICS[name](s.reshape(1, -1), e.reshape(1, -1), RATE))


# Properties

SHORT = arrays(np.float64, st.tuples(st.integers(1, 2), st.just(600)), elements=st.floats(-1, 1, width=32))


@settings(max_examples=40, deadline=None)
@given(s=SHORT, seed=st.integers(0, 99), gain=st.sampled_from([-2.0, 1e-6, 0.3, 1e6]))
def test_ratios_do_not_see_a_common_gain_and_distances_scale_with_it(s: Samples, seed: int, gain: float) -> None:
    s = s + 0.1 * noise(s.shape, seed + 100)
    e = s + noise(s.shape, seed)
    for name in ("snr_db", "psnr_db", "si_sdr_db", "segmental_snr_db", "spectral_snr_db"):
        assert METRICS[name](gain * s, gain * e, RATE) == pytest.approx(METRICS[name](s, e, RATE), abs=1e-6), name
    assert si_sdr_db(s, gain * e, RATE) == pytest.approx(si_sdr_db(s, e, RATE), abs=1e-6)
    assert envelope_distance(gain * s, gain * e, RATE) == pytest.approx(abs(gain) * envelope_distance(s, e, RATE))


@settings(max_examples=80, deadline=None)
@given(data=st.data(), rate=st.sampled_from([8_000, 11_025, 16_000]))
def test_whatever_the_samples_each_metric_has_a_finite_value_or_a_reason(data: st.DataObject, rate: int) -> None:
    shape = data.draw(st.tuples(st.integers(1, 2), st.sampled_from([1, 2, 255, 256, 700, 8_000])))
    outliers = arrays(np.float64, shape, elements=st.one_of(st.floats(-1, 1), st.floats(width=32)), fill=st.just(0.0))
    gains = st.sampled_from([0.0, 1e-300, 1e-40, 1e-20, 1.0, 1e20, 1e37])
    reference, estimate = (data.draw(gains) * noise(shape, seed) + data.draw(outliers) for seed in (0, 1))
    assert_value_or_reason(reference, estimate, rate)


def assert_value_or_reason(reference: Samples, estimate: Samples, rate: int) -> None:
    values, notes = score(reference, estimate, rate)
    assert list(values) == list(METRICS)
    assert set(notes) == {name for name, value in values.items() if value is None}
    assert all(notes.values())
    assert not [note for note in notes.values() if note.startswith("came out as")]
    assert json.loads(json.dumps([values, notes], allow_nan=False)) == [values, notes]


# Where there is no value

SPEECH = syllables()
NOISY = SPEECH + 0.01 * noise(SPEECH.shape)
SILENCE = np.zeros_like(SPEECH)
STEREO = np.concatenate([SPEECH, SILENCE])
IMPULSE = np.eye(1, SPEECH.shape[1], 9000)

AWKWARD = {
    "identical": (SPEECH, SPEECH),
    "inverted": (SPEECH, -SPEECH),
    "silent reference": (SILENCE, NOISY),
    "silent estimate": (SPEECH, SILENCE),
    "both silent": (SILENCE, SILENCE),
    "silent second channel": (STEREO, STEREO + 0.01 * noise(STEREO.shape)),
    "second channel lost": (np.concatenate([SPEECH, SPEECH]), STEREO),
    "empty": (SPEECH[:, :0], NOISY[:, :0]),
    "one sample": (SPEECH[:, 100:101], NOISY[:, 100:101]),
    "10 ms": (SPEECH[:, :160], NOISY[:, :160]),
    "240 ms": (SPEECH[:, :3840], NOISY[:, :3840]),
    "250 ms": (SPEECH[:, :4000], NOISY[:, :4000]),
    "constant": (np.ones_like(SPEECH), np.ones_like(SPEECH) + 0.01 * noise(SPEECH.shape)),
    "impulse": (IMPULSE, NOISY),
    "sound after the last whole frame": (np.eye(1, 599, 598), 2 * np.eye(1, 599, 598)),
    "quiet beyond 32 bits": (1e-200 * SPEECH, 1e-200 * NOISY),
    "loud beyond 32 bits": (1e200 * SPEECH, 1e200 * NOISY),
    "near the limit of 32 bits": (1e38 * SPEECH, 1e38 * NOISY),
    "estimate far quieter": (SPEECH, 1e-30 * NOISY),
    "estimate far louder": (1e-30 * SPEECH, NOISY),
    "NaN": (SPEECH, np.where(IMPULSE, np.nan, NOISY)),
    "infinite": (np.where(IMPULSE, np.inf, SPEECH), NOISY),
}


@pytest.mark.parametrize("rate", [8_000, 44_100])
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_inputs_have_finite_values_or_reasons(name: str, rate: int) -> None:
    assert_value_or_reason(*AWKWARD[name], rate)


EXACT = {"si_sdr_db", "spectral_snr_db"}


@pytest.mark.parametrize(
    ("name", "undefined", "metric", "note"),
    [
        ("identical", {"snr_db", "psnr_db", *EXACT}, "psnr_db", "the estimate equals the reference"),
        ("inverted", EXACT, "si_sdr_db", "the estimate equals the reference up to a gain"),
        ("inverted", EXACT, "spectral_snr_db", "the magnitudes of the estimate equal those of the reference"),
        ("silent reference", set(METRICS) - {"envelope_distance"}, "covl", "the reference is silent"),
        ("silent estimate", {"si_sdr_db", *NEED_PESQ}, "si_sdr_db", "the estimate is silent"),
        ("silent estimate", {"si_sdr_db", *NEED_PESQ}, "pesq_nb", "PESQ finds no sound in the estimate"),
        ("silent second channel", {"stoi", *NEED_PESQ}, "stoi", "channel 2: the reference is silent"),
        ("silent second channel", {"stoi", *NEED_PESQ}, "pesq_nb", "channel 2: PESQ finds no speech in the reference"),
        ("second channel lost", {"csig", *NEED_PESQ}, "pesq_wb", "channel 2: PESQ finds no sound in the estimate"),
        ("10 ms", {"segmental_snr_db", "spectral_snr_db", "stoi", *NEED_PESQ}, "spectral_snr_db", "shorter than one"),
        ("240 ms", {"stoi", *NEED_PESQ}, "pesq_nb", "shorter than the 0.25 s that PESQ needs"),
        ("250 ms", {"stoi"}, "stoi", "shorter than the 0.384 s that STOI compares"),
        ("NaN", set(METRICS), "snr_db", "the estimate has samples that are NaN"),
        ("infinite", set(METRICS), "stoi", "the reference has samples that are NaN"),
    ],
)
def test_reasons_say_what_has_no_value(name: str, undefined: set[str], metric: str, note: str) -> None:
    notes = score(*AWKWARD[name], RATE)[1]
    assert set(notes) == undefined
    assert notes[metric].startswith(note)


def test_without_the_package_of_pesq_all_others_have_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    before, _ = score(SPEECH, NOISY, RATE)
    monkeypatch.setitem(sys.modules, "pesq", None)
    values, notes = score(SPEECH, NOISY, RATE)
    assert values == {**before, **dict.fromkeys(NEED_PESQ)}
    assert all("pip install pesq" in notes[name] for name in NEED_PESQ)


@pytest.mark.parametrize(
    ("metric", "reference", "estimate", "reason"),
    [
        *((si_sdr_db, SPEECH, gain * SPEECH, "up to a gain") for gain in (0.3, 7.1)),  # not the rounding error
        (si_sdr_db, tone(8, 1000), tone(9, 1000), "orthogonal"),
        (segmental_snr_db, *AWKWARD["sound after the last whole frame"], "silent in every frame of 30 ms"),
        (stoi, np.where(np.arange(SPEECH.shape[1]) < 3000, SPEECH, 0.0), NOISY, "of sound that STOI compares"),
        # Silent for PESQ, which takes both signals as 32-bit floats relative to the louder one.
        (pesq_wb, 1e-30 * SPEECH, 1e30 * NOISY, "no speech in the reference"),
    ],
)
def test_single_metrics_without_a_value_say_why(
    metric: Metric, reference: Samples, estimate: Samples, reason: str
) -> None:
    with pytest.raises(MetricUndefined, match=reason):
        metric(reference, estimate, RATE)


def test_a_metric_that_returns_nan_is_noted_and_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "snr_db", lambda *_: math.nan)
    values, notes = score(SPEECH, NOISY, RATE)
    assert (values["snr_db"], notes) == (None, {"snr_db": "came out as nan"})


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_signals_of_different_shapes_are_refused(metric: Metric) -> None:
    for s, e in ((SPEECH, SPEECH[:, 1:]), (SPEECH, STEREO), (SPEECH, SPEECH[0]), (SPEECH[0], SPEECH[0])):
        with pytest.raises(InputError, match=r"\[(1, )?24000\]"):
            metric(s, e, RATE)


def test_32_bit_samples_are_scored_in_64_bits_and_left_alone() -> None:
    s, e = (1e-6 * SPEECH).astype(np.float32), (1e-6 * NOISY).astype(np.float32)
    copies = s.astype(np.float64), e.astype(np.float64)
    assert score(s, e, RATE) == score(*copies, RATE)
    assert np.array_equal([s, e], copies)


def test_scoring_does_not_import_torch() -> None:
    code = "import sys, dapcli.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
