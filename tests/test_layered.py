"""The papers' separation: its losses, its observation, and what happens when a source stays silent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dapcli import Audio, separate
from dapcli.errors import SettingsError
from dapcli.objectives import SEPARATION_ESTIMATORS
from dapcli.objectives.double_dip import DoubleDIP, exclusion, roughness
from dapcli.priors import PRIORS
from dapcli.settings import SEPARATION_PRESETS, Settings
from dapcli.signal.stft import STFT

STFT_SMALL = STFT(64, 16)
RATE = 8_000
TINY = replace(SEPARATION_PRESETS["paper"]["quality"], width=2, iterations=3)
SOURCE_TYPES = ("harmonic", "percussive")

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return 0.1 * np.random.default_rng(seed).standard_normal(shape)


def magnitudes(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def observe(samples: NDArray[np.float64], count: int = 2, iterations: int = 100) -> DoubleDIP:
    generator = torch.Generator().manual_seed(0)
    return DoubleDIP(
        samples,
        STFT_SMALL,
        SOURCE_TYPES[:1] * count,
        RATE,
        iterations=iterations,
        perturbation=0.0,
        generator=generator,
    )


class Constant(torch.nn.Module):
    """Stands for networks whose outputs are the same everywhere: those of the sources, then those of the masks."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = torch.nn.Parameter(torch.tensor(values))

    def forward(self, z: Tensor) -> Tensor:
        return self.values[None, :, None, None].expand(1, -1, *z.shape[2:])


# Losses


def test_edges_that_do_not_meet_are_not_excluded_and_those_that_do_are() -> None:
    early, late = torch.zeros(2, 1, 16, 32)
    early[:, :, 3:9], late[:, :, 19:25] = 2.0, 2.0
    apart, together = exclusion(torch.stack([early, late])), exclusion(torch.stack([early, early]))
    assert apart < 0.01 < 0.1 < together
    assert exclusion(torch.stack([early, torch.ones_like(early)])) < 0.01


def test_exclusion_is_the_formula_by_hand() -> None:
    one, other = magnitudes(2, 1, 1, 2)
    phi = [2 * torch.sigmoid(x[0, 0, 1] - x[0, 0, 0]) - 1 for x in (one, other)]
    # Of three scales and two directions only this one has neighbours.
    expected = float((phi[0] ** 2 * phi[1] ** 2) ** 0.25) / 6
    assert float(exclusion(torch.stack([one, other]))) == pytest.approx(expected, abs=1e-3)


def test_exclusion_goes_over_all_pairs_alike() -> None:
    sources = magnitudes(3, 2, 16, 17)
    pairs = [exclusion(sources[[j, k]]) for j, k in ((0, 1), (0, 2), (1, 2))]
    torch.testing.assert_close(exclusion(sources), torch.stack(pairs).mean())
    torch.testing.assert_close(exclusion(sources), exclusion(sources.flip(0)))


def test_roughness_is_along_time_only() -> None:
    steps = torch.arange(9.0).expand(2, 1, 5, 9)
    assert float(roughness(steps)) == pytest.approx(2.0)
    assert float(roughness(steps.transpose(2, 3))) == 0


# The observation


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_all_networks_learn_and_the_estimate_has_all_sources(count: int, channels: int) -> None:
    observation = observe(noise(channels, 800), count)
    assert observation.networks == ((channels, channels),) * (2 * count - 1)
    size = (2 * count - 1) * channels
    network = torch.nn.Conv2d(size, size, 1)
    loss, estimate = observation.evaluate(network, torch.Generator())
    assert estimate.shape == observation.spectrogram.shape == (count * channels, 2, 33, 51)
    assert not estimate.requires_grad
    loss.backward()  # type: ignore[no-untyped-call]
    assert network.bias is not None
    assert network.bias.grad is not None
    assert (network.bias.grad != 0).all()


@pytest.mark.parametrize("logit", [0.0, 1.5])
def test_two_sources_are_laid_over_each_other_by_a_sigmoid(logit: float) -> None:
    samples = noise(1, 800)
    _, estimate = observe(samples).evaluate(Constant(2.0, 1.0, logit), torch.Generator())
    size = estimate.square().sum(dim=1).sqrt()
    level = STFT_SMALL.forward(torch.from_numpy(samples)).square().sum(dim=1).sqrt().mean()
    m = torch.sigmoid(torch.tensor(logit))
    outputs = torch.nn.functional.softplus(torch.tensor([2.0, 1.0]) - 1)
    expected = level.float() * torch.stack([m, 1 - m]) * outputs
    torch.testing.assert_close(size, expected[:, None, None].expand_as(size))


def test_the_loss_does_not_depend_on_the_level() -> None:
    samples, network = noise(1, 800), Constant(0.3, -0.2, 0.1)
    losses = [observe(gain * samples).evaluate(network, torch.Generator())[0].item() for gain in (1.0, 1e-3)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_masks_are_to_be_binary_in_the_last_tenth_only() -> None:
    observation = observe(noise(1, 800), iterations=20)
    undecided = Constant(0.0, 0.0, 0.1)
    losses = [observation.evaluate(undecided, torch.Generator())[0].item() for _ in range(20)]
    m = 1 / (1 + np.exp(-0.1))
    assert losses[:18] == [losses[0]] * 18
    assert losses[18:] == [pytest.approx(losses[0] + 0.01 / (m - 0.5), rel=1e-3)] * 2


@pytest.mark.parametrize("length", [2, 40, 200])
def test_silence_and_short_recordings_have_finite_losses(length: int) -> None:
    for samples in (np.zeros((1, length)), noise(1, length)):
        network = Constant(0.3, -0.2, 0.1)
        loss, estimate = observe(samples).evaluate(network, torch.Generator())
        loss.backward()  # type: ignore[no-untyped-call]
        assert network.values.grad is not None
        assert torch.isfinite(network.values.grad).all()
        assert torch.isfinite(estimate).all()


# Separation


@pytest.mark.parametrize("prior", PRIORS)
def test_every_prior_separates(prior: str) -> None:
    mixture = Audio(noise(1, 2_000), RATE)
    separation = separate(mixture, SOURCE_TYPES, replace(TINY, prior=prior), device="cpu")
    assert len(separation.sources) == 2
    assert separation.kinds == ("source", "source")
    assert separation.result.segments[0].rule == "fixed"
    np.testing.assert_allclose(sum(each.samples for each in separation.audio), mixture.samples, atol=1e-6)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    mixture = Audio(noise(2, 1_500), RATE)
    kinds = ("voice", "voice", "percussive")
    one, same, other = (
        np.stack([each.samples for each in separate(mixture, kinds, replace(TINY, seed=seed), device="cpu").audio])
        for seed in (0, 0, 1)
    )
    assert one.shape == (3, 2, 1_500)
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_long_mixtures_keep_their_sources_apart_from_segment_to_segment() -> None:
    mixture = Audio(noise(1, 3 * RATE), RATE)
    separation = separate(mixture, SOURCE_TYPES, replace(TINY, segment=1.5, iterations=1), device="cpu")
    assert len(separation.result.segments) == 3
    np.testing.assert_allclose(sum(each.samples for each in separation.audio), mixture.samples, atol=1e-6)


def test_sources_as_fitted_need_not_sum_to_the_mixture() -> None:
    mixture = Audio(noise(1, 2_000), RATE)
    fitted = separate(mixture, SOURCE_TYPES, TINY, consistent=False, device="cpu")
    assert np.abs(sum(each.samples for each in fitted.audio) - mixture.samples).max() > 0.01
    np.testing.assert_allclose(np.concatenate([each.samples for each in fitted.audio]), fitted.result.audio.samples)


def test_shares_cannot_but_sum_to_the_mixture() -> None:
    with pytest.raises(SettingsError, match="--method paper"):
        separate(Audio(noise(1, 2_000), RATE), consistent=False)


def test_the_oracle_takes_references_in_any_order() -> None:
    sources = [Audio(noise(1, 2_000, seed=seed), RATE) for seed in (0, 1)]
    mixture = Audio(sources[0].samples + sources[1].samples, RATE)
    settings = replace(TINY, stop="oracle", iterations=6)
    results = [
        separate(mixture, SOURCE_TYPES, settings, references=references, device="cpu").result
        for references in (sources, sources[::-1])
    ]
    assert results[0].segments[0].rule == "oracle"
    np.testing.assert_array_equal(results[0].audio.samples, results[1].audio.samples)
    criteria = [[step.criterion for step in result.segments[0].steps] for result in results]
    assert criteria[0] == pytest.approx(criteria[1])


# Presets


def test_presets_are_those_of_their_method() -> None:
    for method, presets in SEPARATION_PRESETS.items():
        assert {each.estimator for each in presets.values()} == {method}
        assert {"quality", "fast"} <= presets.keys()
    assert SEPARATION_PRESETS.keys() == SEPARATION_ESTIMATORS.keys()


# Collapse


class Scripted(DoubleDIP):
    """An observation whose second source is this much of the mixture, by seed, whatever the networks say."""

    seconds: dict[int, float]

    def evaluate(self, network: object, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        assert callable(network)
        whole = self.spectrogram.sum(dim=0, keepdim=True)
        return network(self._z).mean(), torch.cat([whole, self.seconds[generator.initial_seed()] * whole])


def fit_scripted(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], settings: Settings = TINY
) -> tuple[tuple[str, ...], float]:
    """What is noted on a fit, and how loud its second source is, relative to the first."""
    monkeypatch.setitem(SEPARATION_ESTIMATORS, "paper", Scripted)
    monkeypatch.setattr(Scripted, "seconds", seconds, raising=False)
    mixture = Audio(noise(1, 2_000), RATE)
    separation = separate(mixture, SOURCE_TYPES, settings, consistent=False, device="cpu")
    first, second = (np.abs(each.samples).max() for each in separation.audio)
    return separation.result.notes, second / first


def test_sources_that_are_all_heard_are_fitted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    notes, level = fit_scripted(monkeypatch, {0: 0.2})
    assert not notes
    assert level == pytest.approx(0.2, rel=1e-3)


def test_a_silent_source_is_fitted_again_with_another_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    notes, level = fit_scripted(monkeypatch, {5: 0.0, 6: 0.05, 7: 0.3}, replace(TINY, seed=5))
    assert notes == (
        "source 2 was silent; fitted again with seed 6",
        "source 2 was silent; fitted again with seed 7",
    )
    assert level == pytest.approx(0.3, rel=1e-3)


def test_the_best_fit_is_kept_where_a_source_is_always_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    notes, level = fit_scripted(monkeypatch, {0: 0.0, 1: 0.02, 2: 0.05, 3: 0.01})
    assert len(notes) == 4
    assert notes[-1] == "source 2 was silent; the fit with seed 2 is kept"
    assert level == pytest.approx(0.05, rel=1e-3)


def test_notes_on_long_mixtures_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SEPARATION_ESTIMATORS, "paper", Scripted)
    monkeypatch.setattr(Scripted, "seconds", {0: 0.0, 1: 0.5}, raising=False)
    settings = replace(TINY, segment=1.5, iterations=1)
    notes = separate(Audio(noise(1, 2 * RATE), RATE), SOURCE_TYPES, settings, device="cpu").result.notes
    assert notes == (
        "from 0.00 to 1.25 s source 2 was silent; fitted again with seed 1",
        "from 0.75 to 2.00 s source 2 was silent; fitted again with seed 1",
    )
