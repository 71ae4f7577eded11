"""Scores of separated sources: known answers, orders, and a reason wherever there is no answer."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dapcli.errors import InputError
from dapcli.metrics import SOURCE_METRICS, SourceScores, score, score_sources
from tests import signals
from tests.signals import Samples

RATE = 8_000
BSS_METRICS = ("sdr_db", "sir_db", "sar_db")


def noise(*shape: int, seed: int = 0) -> Samples:
    return signals.noise(*shape, std=1.0, seed=seed)


def values_of(scores: SourceScores, name: str) -> list[float]:
    values = [values[name] for values, _ in scores.sources]
    assert None not in values
    return [float(value) for value in values if value is not None]


def plain_bss_eval(references: Samples, estimate: Samples, k: int) -> tuple[float, float, float]:
    """SDR, SIR and SAR of an estimate ``[N]`` of source ``k`` by least squares, as their paper defines them."""
    padded = np.pad(estimate, (0, 511))
    # Every source with every delay that a filter can give it.
    lagged = [np.stack([np.pad(each, (lag, 511 - lag)) for lag in range(512)], axis=1) for each in references]
    fitted = lagged[k], np.concatenate(lagged, axis=1)
    target, explained = (x @ np.linalg.lstsq(x, padded, rcond=None)[0] for x in fitted)
    interference, artifacts = explained - target, padded - explained
    power = [np.sum(part**2) for part in (target, interference + artifacts, interference, explained, artifacts)]
    return tuple(10 * np.log10([power[0] / power[1], power[0] / power[2], power[3] / power[4]]))


def test_bss_eval_is_least_squares_on_filtered_sources() -> None:
    references = noise(2, 1500)
    estimates = references + 0.3 * references[::-1] + 0.2 * noise(2, 1500, seed=1)
    scores = score_sources(references[:, None], estimates[:, None], RATE)
    for k, (values, notes) in enumerate(scores.sources):
        assert not notes
        assert [values[name] for name in BSS_METRICS] == pytest.approx(
            plain_bss_eval(references, estimates[k], k), abs=1e-6
        )


def test_leakage_is_interference_and_no_artifact() -> None:
    references = noise(2, 1, 20_000)
    scores = score_sources(references, references + 0.1 * references[::-1], RATE)
    assert values_of(scores, "sir_db") == pytest.approx([20.0, 20.0], abs=0.3)
    assert all(notes == {"sar_db": "the estimate has nothing but the sources"} for _, notes in scores.sources)


def test_exact_estimates_have_no_ratio_but_an_order() -> None:
    references, order = noise(3, 1, 2_000), [2, 0, 1]
    scores = score_sources(references, references[order], RATE)
    assert [order[j] for j in scores.permutation] == [0, 1, 2]
    for values, notes in scores.sources:
        assert values["envelope_distance"] == 0.0
        assert notes["sdr_db"] == "the estimate equals the reference up to a filter"
        assert set(notes) == set(SOURCE_METRICS) - {"envelope_distance"}


def test_the_order_of_the_estimates_does_not_matter_and_pairs_are_scored_as_recordings() -> None:
    references = noise(2, 2, 2_000)
    estimates = references + 0.5 * references[::-1] + 0.1 * noise(2, 2, 2_000, seed=1)
    scores, swapped = (score_sources(references, each, RATE) for each in (estimates, estimates[::-1]))
    assert (scores.permutation, swapped.permutation) == ((0, 1), (1, 0))
    assert scores.sources == swapped.sources
    for k, (values, _) in enumerate(scores.sources):
        expected, _ = score(references[k], estimates[k], RATE)
        alone = SOURCE_METRICS[len(BSS_METRICS) :]
        assert [values[name] for name in alone] == [expected[name] for name in alone]


def test_a_fixed_order_is_kept() -> None:
    references = noise(2, 1, 2_000)
    estimates = references[::-1] + 0.1 * noise(2, 1, 2_000, seed=1)
    scores = score_sources(references, estimates, RATE, fixed_order=True)
    assert scores.permutation == (0, 1)
    assert max(values_of(scores, "sir_db")) < 0
    assert values_of(scores, "snr_db") == pytest.approx([-3.0, -3.0], abs=0.3)


def test_channels_are_averaged_and_share_one_order() -> None:
    references = noise(2, 2, 2_000)
    # The first channel alone would be swapped, though not by as much as the second one is not.
    wrong, right = (0.9 * references[::-1] + references, 0.1 * references[::-1] + references)
    estimates = np.stack([wrong[::-1, 0], right[:, 1]], axis=1) + 0.01 * noise(2, 2, 2_000, seed=1)
    scores = score_sources(references, estimates, RATE)
    assert scores.permutation == (0, 1)
    alone = [score_sources(references[:, [c]], estimates[:, [c]], RATE, fixed_order=True) for c in (0, 1)]
    for name in BSS_METRICS:
        assert values_of(scores, name) == pytest.approx(np.mean([values_of(each, name) for each in alone], axis=0))


@settings(max_examples=4, deadline=None)
@given(
    seed=st.integers(0, 99),
    gains=st.lists(st.sampled_from([1e-30, 0.01, 3.0, -1.0, 1e30]), min_size=4, max_size=4),
)
def test_bss_eval_sees_neither_the_level_of_a_source_nor_that_of_an_estimate(seed: int, gains: list[float]) -> None:
    references = noise(2, 1, 1_500, seed=seed)
    estimates = references + 0.3 * references[::-1] + 0.1 * noise(2, 1, 1_500, seed=seed + 100)
    scores = score_sources(references, estimates, RATE)
    gain = np.array(gains)[:, None, None]
    scaled = score_sources(gain[:2] * references, gain[2:] * estimates, RATE)
    for name in BSS_METRICS:
        assert values_of(scaled, name) == pytest.approx(values_of(scores, name), abs=1e-6)


# Where there is no value

REFERENCES = noise(2, 2, 1_500)
ESTIMATES = REFERENCES + 0.3 * noise(2, 2, 1_500, seed=1)
SILENT = REFERENCES * np.array([[[1.0], [1.0]], [[1.0], [0.0]]])
AWKWARD = {
    "silent reference": (SILENT, ESTIMATES),
    "silent estimate": (REFERENCES, ESTIMATES * SILENT.astype(bool)),
    "all silent": (0 * REFERENCES, 0 * ESTIMATES),
    "NaN": (REFERENCES, np.where(REFERENCES > 3, np.nan, ESTIMATES)),
    "infinite": (np.where(REFERENCES > 3, np.inf, REFERENCES), ESTIMATES),
    "short": (REFERENCES[..., :1023], ESTIMATES[..., :1023]),
    "one sample": (REFERENCES[..., :1], ESTIMATES[..., :1]),
    "empty": (REFERENCES[..., :0], ESTIMATES[..., :0]),
    "one source twice": (REFERENCES[[0, 0]], ESTIMATES),
    "one estimate twice": (REFERENCES, ESTIMATES[[0, 0]]),
    "beyond 32 bits": (1e200 * REFERENCES, ESTIMATES),
    "one source": (REFERENCES[:1], ESTIMATES[:1]),
}


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.filterwarnings("error")  # of deprecations too, which other tests let pass
def test_awkward_sources_have_finite_values_or_reasons(name: str) -> None:
    scores = score_sources(*AWKWARD[name], RATE)
    assert sorted(scores.permutation) == list(range(len(AWKWARD[name][0])))
    for values, notes in scores.sources:
        assert tuple(values) == SOURCE_METRICS
        assert set(notes) == {name for name, value in values.items() if value is None}
        assert not [note for note in notes.values() if note.startswith("came out as")]
        json.dumps([values, notes], allow_nan=False)


@pytest.mark.parametrize(
    ("name", "metric", "note"),
    [
        ("silent reference", "sdr_db", "channel 2: the reference of source 2 is silent"),
        ("silent estimate", "sdr_db", "channel 2: the estimate of source 2 is silent"),
        ("one source", "sir_db", "the estimate has nothing of the other sources"),
        ("short", "sar_db", "shorter than the 2 filters of 512 samples that BSS Eval fits"),
    ],
)
def test_reasons_say_what_has_no_value(name: str, metric: str, note: str) -> None:
    assert [notes[metric] for _, notes in score_sources(*AWKWARD[name], RATE).sources] == [note] * len(AWKWARD[name][0])


def test_without_an_sir_the_order_is_that_of_the_least_error() -> None:
    assert score_sources(SILENT, ESTIMATES[::-1], RATE).permutation == (1, 0)
    short = REFERENCES[..., :100]
    assert score_sources(short, short[::-1] + 0.1, RATE).permutation == (1, 0)


@pytest.mark.parametrize(
    ("references", "estimates"),
    [(REFERENCES, ESTIMATES[:1]), (REFERENCES, ESTIMATES[:, :1]), (REFERENCES, ESTIMATES[0]), (REFERENCES[:0],) * 2],
)
def test_sources_of_different_shapes_and_none_are_refused(references: Samples, estimates: Samples) -> None:
    with pytest.raises(InputError, match=rf"\[{len(references)}, 2, 1500\].*one at least"):
        score_sources(references, estimates, RATE)
