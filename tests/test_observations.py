"""Observations: their losses are what they say, and their estimates fit the recording."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dapcli.objectives import ESTIMATORS, Alternating
from dapcli.objectives.mask import Mask
from dapcli.signal.noise import Noise
from dapcli.signal.stft import STFT

STFT_SMALL = STFT(64, 16)


def recording(channels: int = 1, length: int = 1600) -> Tensor:
    return torch.randn(channels, length, generator=torch.Generator().manual_seed(0))


def white_noise(channels: int = 1, length: int = 1600) -> Noise:
    spectrum = torch.full((channels, 33), 2 * STFT_SMALL.white_gain)
    return Noise.steady(spectrum, length // 16 + 1, 16 / 16_000)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_estimates_have_the_shape_of_the_recording(name: str, channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    observation = ESTIMATORS[name](
        recording(channels), STFT_SMALL, white_noise(channels), perturbation=0.5, generator=generator
    )
    ((takes_in, puts_out),) = observation.networks
    seen: list[torch.Size] = []

    def network(x: Tensor) -> Tensor:
        seen.append(x.shape)
        return torch.zeros(1, puts_out, *x.shape[2:], requires_grad=True)

    loss, estimate = observation.evaluate(network, generator)
    assert seen == [(1, takes_in, *observation.spectrogram.shape[2:])]
    assert estimate.shape == observation.spectrogram.shape == (channels, 2, 33, 101)
    assert loss.requires_grad
    assert not estimate.requires_grad


def test_generated_loss_is_zero_for_the_recording_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    observation = ESTIMATORS["generate"](recording(), STFT_SMALL, white_noise(), perturbation=0.0, generator=generator)
    loss, estimate = observation.evaluate(lambda z: observation.spectrogram, generator)
    assert float(loss) == 0
    torch.testing.assert_close(estimate, observation.spectrogram)


@pytest.mark.parametrize(("perturbation", "same"), [(0.0, True), (0.1, False)])
def test_generated_input_changes_only_by_its_perturbation(perturbation: float, same: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    observation = ESTIMATORS["generate"](
        recording(), STFT_SMALL, white_noise(), perturbation=perturbation, generator=generator
    )
    inputs: list[Tensor] = []

    def network(z: Tensor) -> Tensor:
        inputs.append(z)
        return torch.zeros_like(z)

    observation.evaluate(network, generator)
    observation.evaluate(network, generator)
    assert torch.equal(*inputs) is same
    assert float((inputs[0] - inputs[1]).std()) == pytest.approx(perturbation * 2**0.5, rel=0.1, abs=1e-9)


def constant_gain(level: float, features: Tensor) -> Tensor:
    """The network's output that gives this gain in every bin: what it adds to the first gains' logits."""
    return torch.logit(torch.tensor(level)) - (2 * features - 1)


@pytest.mark.parametrize("perturbation", [0.3, 0.7, 1.0])
def test_mask_loss_estimates_the_true_error_without_the_clean_recording(perturbation: float) -> None:
    """For a constant gain the squared error is known in closed form, and the loss must meet it up to a constant."""
    clean = 2 * torch.sin(torch.arange(32_000) * 0.7)[None]
    noisy = clean + recording(length=32_000)
    generator = torch.Generator().manual_seed(1)
    observation = Mask(noisy, STFT_SMALL, white_noise(length=32_000), perturbation=perturbation, generator=generator)
    gains = [0.1, 0.4, 0.7, 0.9]
    losses = []
    for gain in gains:
        draws = [float(observation.evaluate(partial(constant_gain, gain), generator)[0]) for _ in range(20)]
        losses.append(sum(draws) / len(draws))
    s = STFT_SMALL.forward(clean)
    n = STFT_SMALL.white_gain * (1 + perturbation**2)
    truths = [float(((1 - g) * s).square().mean()) + g**2 * n for g in gains]
    differences = [loss - truth for loss, truth in zip(losses, truths, strict=True)]
    assert max(differences) - min(differences) < 0.05 * (max(truths) - min(truths))


def test_noise_that_the_mask_adds_has_the_given_power_in_every_bin_and_frame() -> None:
    spectrum, level = torch.linspace(4.0, 0.1, 33)[None], torch.linspace(0.2, 5.0, 401)
    noise = Noise(spectrum, spectrum[..., None] * level, 0.001)
    observation = Mask(recording(length=6_400), STFT_SMALL, noise, perturbation=0.5, generator=torch.Generator())
    generator = torch.Generator().manual_seed(2)
    ratio = sum(observation._draw_noise(generator).square().sum(dim=1) for _ in range(50)) / (50 * noise.power)
    inner = ratio[:, 1:-1, 2:-2]
    assert float(inner.mean()) == pytest.approx(1, abs=0.02)
    assert float(inner.mean(dim=2).std()) < 0.05
    assert float(inner.mean(dim=1).std()) < 0.1


class Numbered:
    """An observation that says which one it is."""

    networks = ((3, 6),)
    starts_from_zero = False

    def __init__(self, number: int) -> None:
        self.spectrogram = torch.full((1, 2, 3, 4), float(number))

    def evaluate(self, network: Callable[[Tensor], Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.spectrogram.mean(), network(self.spectrogram)


def turns(count: int, seed: int, iterations: int) -> list[int]:
    """Which of ``count`` observations has its turn in each iteration."""
    alternating = Alternating([Numbered(number) for number in range(count)], seed)
    assert alternating.networks == ((3, 6),)
    assert alternating.spectrogram.shape == (1, 2, 3, 4)
    order = []
    for _ in range(iterations):
        loss, estimate = alternating.evaluate(torch.neg, torch.Generator())
        assert torch.equal(alternating.spectrogram, torch.full((1, 2, 3, 4), float(loss)))
        assert torch.equal(estimate, -alternating.spectrogram)
        order.append(int(loss))
    return order


@given(st.integers(1, 9), st.integers(0, 2**63 - 1), st.integers(1, 4))
def test_alternating_gives_everyone_a_turn_before_any_has_another(count: int, seed: int, rounds: int) -> None:
    order = turns(count, seed, count * rounds)
    for start in range(0, len(order), count):
        assert sorted(order[start : start + count]) == list(range(count))
    assert order == turns(count, seed, count * rounds)


def test_the_order_of_turns_differs_from_round_to_round_and_by_seed() -> None:
    orders = [turns(8, seed, 16) for seed in range(3)]
    rounds = {tuple(order[start : start + 8]) for order in orders for start in (0, 8)}
    assert len(rounds) == 6
