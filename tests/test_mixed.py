"""Observations of damaged recordings: shares with a known answer, and losses and estimates over all degradations."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dapcli.audio import Recording
from dapcli.errors import SettingsError
from dapcli.fit import STOPPING_RULES, Fit, StopContext
from dapcli.objectives import REPAIR_ESTIMATORS
from dapcli.objectives.ensemble import _LEAST_SHARE, Ensemble, best_shares
from dapcli.objectives.generate import ConsistentGeneration
from dapcli.signal.clipping import Clipping
from dapcli.signal.degradation import Degradation, TrainingPair
from dapcli.signal.gaps import Gaps
from dapcli.signal.missing import Missing
from dapcli.signal.quantization import Quantization
from dapcli.signal.stft import STFT

Samples = NDArray[np.float64]

RATE = 4_000
LENGTH = 2_400
STFT_SMALL = STFT(64, 16)


def music(channels: int = 1) -> Samples:
    t = np.arange(LENGTH) / RATE
    rows = [sum(0.4 / k * np.sin(2 * np.pi * f * k * t + k) for k in range(1, 4)) for f in (220, 330)[:channels]]
    return np.asarray(np.stack(rows) * np.exp(-t))


def missing(samples: Samples) -> tuple[Degradation, Samples]:
    degradation = Missing(Gaps((((500, 560),),) * len(samples)))
    return degradation, np.where(degradation.gaps.mask(0, LENGTH), 0.0, samples)


def clipped(samples: Samples) -> tuple[Degradation, Samples]:
    degradation = Clipping((-0.25,) * len(samples), (0.3,) * len(samples))
    return degradation, degradation.clip(samples)


def quantized(samples: Samples) -> tuple[Degradation, Samples]:
    degradation = Quantization(1 / 8, 1 / 16)
    return degradation, degradation.quantize(samples)


DAMAGES = {"missing": missing, "clipped": clipped, "quantized": quantized}


class Prepared:
    """A degradation whose restorations, which take the time, are given."""

    guide: ClassVar[str] = "what is given"

    def __init__(self, degradation: Degradation, candidates: Samples, training_pairs: list[TrainingPair]) -> None:
        self._damage, self._candidates, self._exercises = degradation, candidates, training_pairs

    def part(self, start: int, stop: int) -> Degradation:
        return self

    def describe(self, recording: Recording) -> dict[str, Any]:
        return self._damage.describe(recording)

    def affects(self, samples: Samples) -> bool:
        return True

    def candidates(self, samples: Samples, rate: int) -> Samples:
        return self._candidates

    def training_pairs(self, samples: Samples, candidates: Samples, rate: int, seed: int) -> list[TrainingPair]:
        return self._exercises

    def data_fidelity(self, estimate: Tensor, samples: Tensor) -> Tensor:
        return self._damage.data_fidelity(estimate, samples)

    def finish(self, estimate: Samples, samples: Samples, rate: int, seed: int) -> Samples:
        return estimate

    def project(self, estimate: Samples, samples: Samples) -> Samples:
        return self._damage.project(estimate, samples)


@lru_cache
def prepared(name: str, channels: int) -> tuple[Degradation, Samples]:
    degradation, samples = DAMAGES[name](music(channels))
    candidates = degradation.candidates(samples, RATE)
    return Prepared(degradation, candidates, degradation.training_pairs(samples, candidates, RATE, 0)), samples


def observe(estimator: str, degradation: Degradation, samples: Samples) -> Ensemble | ConsistentGeneration:
    return REPAIR_ESTIMATORS[estimator](
        samples, STFT_SMALL, degradation, RATE, perturbation=0.1, generator=torch.Generator().manual_seed(0)
    )


def made_up(shares: list[float], noise: float = 0.0, count: int = 3) -> list[TrainingPair]:
    """Exercises whose truth is a mix of random candidates, where it counts."""
    rng = np.random.default_rng(0)
    training_pairs = []
    for _ in range(count):
        candidates = rng.standard_normal((len(shares), 1, LENGTH))
        scored = rng.random((1, LENGTH)) < 0.3
        mixed = np.tensordot(shares, candidates, axes=1) + noise * rng.standard_normal((1, LENGTH))
        training_pairs.append(TrainingPair(candidates, np.where(scored, mixed, 1e3), scored))
    return training_pairs


def zeros(outputs: int) -> torch.nn.Module:
    """A network of which no output depends on its input."""

    class Zeros(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.values = torch.nn.Parameter(torch.zeros(1, outputs, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.values.expand(x.shape[0], -1, *x.shape[2:])

    return Zeros()


# All estimators and degradations


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("estimator", REPAIR_ESTIMATORS)
def test_losses_can_be_differentiated_and_estimates_have_the_shape_of_the_recording(
    estimator: str, channels: int, name: str
) -> None:
    observation = observe(estimator, *prepared(name, channels))
    network = torch.nn.Conv2d(*observation.networks[0], 1)
    assert observation.spectrogram.shape == (channels, 2, 33, LENGTH // 16 + 1)
    for _ in range(4):  # more than there are training_pairs
        loss, estimate = observation.evaluate(network, torch.Generator().manual_seed(1))
        assert estimate.shape == observation.spectrogram.shape
        assert not estimate.requires_grad
        assert torch.isfinite(loss)
        network.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for weights in network.parameters():
            assert weights.grad is not None
            assert torch.isfinite(weights.grad).all()
            assert weights.grad.any()


@pytest.mark.parametrize("estimator", REPAIR_ESTIMATORS)
def test_silence_has_a_finite_loss(estimator: str) -> None:
    degradation, _ = missing(music())
    observation = observe(estimator, degradation, np.zeros((1, LENGTH)))
    network = torch.nn.Conv2d(*observation.networks[0], 1)
    loss, estimate = observation.evaluate(network, torch.Generator())
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert not estimate.any()
    assert all(torch.isfinite(weights.grad).all() for weights in network.parameters() if weights.grad is not None)


# Mixing


@pytest.mark.parametrize("shares", [[0.3, 0.6], [1.0, 0.0], [0.0, 0.0, 0.4], [0.25, 0.25, 0.25, 0.25]])
def test_the_best_shares_are_found(shares: list[float]) -> None:
    np.testing.assert_allclose(best_shares(made_up(shares)), shares, atol=1e-4)


def test_the_best_shares_are_found_under_noise() -> None:
    np.testing.assert_allclose(best_shares(made_up([0.3, 0.6], noise=0.3)), [0.3, 0.6], atol=0.05)


@pytest.mark.parametrize("shares", [[-0.5, 0.4], [2.0, 0.5], [-1.0, -1.0], [3.0, -2.0, 0.1]])
def test_shares_are_never_negative_or_more_than_one_together(shares: list[float]) -> None:
    found = best_shares(made_up(shares))
    assert (found >= 0).all()
    assert found.sum() <= 1 + 1e-5


def test_the_best_shares_do_not_depend_on_the_level() -> None:
    training_pairs = made_up([0.3, 0.6], noise=0.3)
    quiet = [TrainingPair(1e-4 * each.candidates, 1e-4 * each.truth, each.scored) for each in training_pairs]
    np.testing.assert_allclose(best_shares(quiet), best_shares(training_pairs), atol=1e-4)


@pytest.mark.parametrize("shares", [[0.3, 0.6], [1.0, 0.0], [-1.0, -1.0]])
def test_a_network_that_returns_zeros_mixes_by_the_best_shares(shares: list[float]) -> None:
    degradation, samples = missing(music())
    candidates = np.stack([music() * k for k in (1.0, -0.5)])
    training_pairs = made_up(shares)
    observation = observe("mix", Prepared(degradation, candidates, training_pairs), samples)
    _, estimate = observation.evaluate(zeros(observation.networks[0][1]), torch.Generator())
    mixed = torch.from_numpy(np.tensordot(best_shares(training_pairs), candidates, axes=1)).float()
    # Every candidate, and silence, has a least share.
    within = 4 * _LEAST_SHARE * float(STFT_SMALL.forward(torch.from_numpy(music())).abs().max())
    torch.testing.assert_close(estimate, STFT_SMALL.forward(mixed), atol=within, rtol=0)


def test_the_loss_is_the_error_where_it_counts_relative_to_the_sound() -> None:
    degradation, samples = missing(music())
    (training_pair,) = made_up([0.3, 0.6], noise=1.0, count=1)
    observation = observe("mix", Prepared(degradation, training_pair.candidates, [training_pair]), samples)
    loss, estimate = observation.evaluate(zeros(3), torch.Generator())
    mixed = STFT_SMALL.inverse(estimate, LENGTH).double().numpy()
    error = (mixed - training_pair.truth)[training_pair.scored]
    assert loss.item() == pytest.approx(
        (error**2).sum() / (training_pair.truth[training_pair.scored] ** 2).sum(), rel=1e-4
    )
    # With one training_pair there is no other to validate.
    assert isinstance(observation, Ensemble)
    assert observation.validate() == pytest.approx(loss.item())


def test_the_last_exercise_is_rehearsed_and_not_learned_from() -> None:
    degradation, samples = missing(music())
    training_pairs = made_up([0.3, 0.6])
    hopeless = TrainingPair(
        np.zeros_like(training_pairs[0].candidates), training_pairs[0].truth, training_pairs[0].scored
    )
    observation = observe(
        "mix", Prepared(degradation, training_pairs[0].candidates, [*training_pairs[:2], hopeless]), samples
    )
    assert isinstance(observation, Ensemble)
    for _ in range(4):
        loss, _ = observation.evaluate(zeros(3), torch.Generator())
        assert loss.item() < 0.9
        assert observation.validate() == pytest.approx(1.0)


# Generating


@pytest.mark.parametrize("name", DAMAGES)
def test_along_the_candidate_s_phase_its_magnitudes_are_the_candidate(name: str) -> None:
    degradation, samples = prepared(name, 2)
    observation = observe("generate", degradation, samples)
    restored = STFT_SMALL.forward(torch.from_numpy(degradation.candidates(samples, RATE)[-1]).float())
    size = restored.square().sum(dim=1).sqrt()
    along = torch.stack([size, torch.zeros_like(size)], dim=1)

    def network(z: Tensor) -> Tensor:
        return along.reshape(z.shape)

    loss, estimate = observation.evaluate(network, torch.Generator())
    torch.testing.assert_close(estimate, restored, atol=1e-5, rtol=1e-5)
    # The candidate is consistent.
    assert loss.item() < 1e-10


def test_across_the_candidate_s_phase_is_a_quarter_turn() -> None:
    degradation, samples = prepared("missing", 1)
    observation = observe("generate", degradation, samples)
    restored = observation.spectrogram
    size = restored.square().sum(dim=1).sqrt()
    _, estimate = observation.evaluate(
        lambda z: torch.stack([torch.zeros_like(size), size], dim=1).reshape(z.shape), torch.Generator()
    )
    turned = torch.stack([-restored[:, 1], restored[:, 0]], dim=1)
    torch.testing.assert_close(estimate, turned, atol=1e-5, rtol=1e-5)


# Validation


def test_rehearsal_needs_exercises() -> None:
    with pytest.raises(SettingsError, match="--estimator mix"):
        STOPPING_RULES["validation"](StopContext(STFT_SMALL, torch.zeros(1, LENGTH)))


class Rehearsed:
    """An observation whose estimates count up, with errors on an training_pair that are given."""

    networks = ((1, 1),)
    starts_from_zero = True

    def __init__(self, errors: list[float]) -> None:
        self.spectrogram = torch.zeros(1, 2, 3, 4)
        self._errors = errors
        self._count = 0

    def evaluate(self, network: torch.nn.Module, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        self._count += 1
        return network(torch.zeros(1, 1, 3, 4)).sum(), torch.full((1, 2, 3, 4), float(self._count))

    def validate(self) -> float:
        return self._errors[self._count - 1]


def rehearsed(errors: list[float]) -> Fit:
    observation = Rehearsed(errors)
    rule = STOPPING_RULES["validation"](StopContext(STFT_SMALL, torch.zeros(1, 9), validate=observation.validate))
    fit = Fit(
        zeros(1),
        observation,  # type: ignore[arg-type]
        rule,
        iterations=len(errors),
        optimizer="adam",
        learning_rate=0.1,
        averaging=0.0,
        dtype=torch.float32,
        generator=torch.Generator(),
    )
    assert [step.criterion for step in fit] == errors[: fit.best_iteration + 10]
    return fit


def test_rehearsal_takes_the_iterate_that_did_the_exercise_best() -> None:
    fit = rehearsed([0.9, 0.5, 0.3, 0.4, 0.35, 0.6])
    assert fit.best_iteration == 3
    assert float(fit.estimate.mean()) == 3


def test_rehearsal_waits_ten_iterations_for_a_better_one() -> None:
    fit = rehearsed([0.9, 0.5] + 9 * [0.6] + [0.4] + 10 * [0.7] + [0.1])
    assert fit.best_iteration == 12
    assert "10 iterations" in fit.stopped_by
