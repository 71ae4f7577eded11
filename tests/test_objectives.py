"""Objectives: what holds for all of them, and for each a loss or an estimate with a known answer."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dapcli.fit import Network, Objective, Step
from dapcli.objectives import Setup
from dapcli.objectives.alternating import Alternating
from dapcli.objectives.double_dip import DoubleDIP, exclusion, imbalance, roughness
from dapcli.objectives.ensemble import _LEAST_WEIGHT, Ensemble, stack
from dapcli.objectives.generate import ConsistentGeneration, FrameGeneration
from dapcli.objectives.mask import Mask
from dapcli.objectives.ratio_mask import RatioMask
from dapcli.settings import Settings
from dapcli.signal.degradation import TrainingPair
from dapcli.signal.gaps import Gaps
from dapcli.signal.missing import Missing
from dapcli.signal.noise import Noise
from dapcli.signal.stft import STFT
from dapcli.tasks import TASKS, load
from tests.signals import RATE, Samples, degraded, harmonics, noise

STFT_SMALL = STFT(64, 16)
LENGTH = 1_600
FRAMES = LENGTH // 16 + 1
PLAIN = Settings(input_noise=0.1, iterations=100)
TYPES = ("harmonic", "voice", "percussive")
KINDS = {"inpaint": "gaps", "declip": "clipping", "dequantize": "quantization"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def setup(settings: Settings = PLAIN, rate: int = RATE) -> Setup:
    return Setup(settings, STFT_SMALL, rate, seeded())


def white_noise(channels: int = 1, length: int = LENGTH) -> Noise:
    spectrum = torch.full((channels, 33), 2 * STFT_SMALL.white_gain)
    return Noise.steady(spectrum, length // 16 + 1, 16 / RATE)


class Prepared:
    """A degradation whose restorations, which take the time, are given."""

    def __init__(self, degradation: Any, candidates: Samples, pairs: list[TrainingPair]) -> None:
        self._candidates, self._pairs = candidates, pairs
        self.data_fidelity, self.affected = degradation.data_fidelity, degradation.affected

    def candidates(self, samples: Samples, rate: int) -> Samples:
        return self._candidates

    def training_pairs(self, samples: Samples, candidates: Samples, rate: int, seed: int) -> list[TrainingPair]:
        return self._pairs


@cache
def prepared(task: str, channels: int) -> tuple[Prepared, Samples]:
    degradation, samples = degraded(KINDS[task], harmonics(LENGTH, channels))
    candidates = degradation.candidates(samples, 4_000)
    return Prepared(degradation, candidates, degradation.training_pairs(samples, candidates, 4_000, 0)), samples


def make(task: str, name: str, channels: int = 1, silent: bool = False, settings: Settings = PLAIN) -> Objective:
    """The objective of an estimator for a recording of so many channels, or for silence."""
    samples = np.zeros((channels, LENGTH)) if silent else noise(channels, LENGTH)
    arguments: tuple[Any, ...] = (samples, TYPES, setup(settings))
    if task == "denoise":
        arguments = (torch.from_numpy(samples).float(), [white_noise(channels)], setup(settings))
    elif task != "separate":
        degradation, samples = degraded(KINDS[task], samples) if silent else prepared(task, channels)
        arguments = (samples, degradation, setup(settings, rate=4_000))
    made: Objective = load(TASKS[task].estimators[name].objective)(*arguments)
    return made


def network_for(objective: Objective) -> torch.nn.Module:
    takes_in, puts_out = (sum(each) for each in zip(*objective.networks, strict=True))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Conv2d(takes_in, puts_out, 1)


ALL = [(task, name) for task in TASKS for name in TASKS[task].estimators]


# All of them


@pytest.mark.parametrize(("task", "name"), ALL)
@pytest.mark.parametrize("channels", [1, 2])
def test_losses_reach_all_weights_and_steps_follow_from_state_and_seed(task: str, name: str, channels: int) -> None:
    objective, twin = (make(task, name, channels) for _ in range(2))
    network, state, twin_state = network_for(objective), objective.begin(), twin.begin()
    shape = (len(TYPES) if task == "separate" else 1, channels, 2, 33, FRAMES)
    assert objective.initial.shape == shape
    for seed in range(4):  # more than there are training pairs
        step = objective.step(network, state, seeded(seed))
        again, other = objective.step(network, state, seeded(seed)), twin.step(network, twin_state, seeded(seed))
        values = [(each.loss, each.estimate, each.validation, each.state) for each in (step, again, other)]
        for each in values[1:]:
            torch.testing.assert_close(each, values[0], rtol=0, atol=0)
        assert step.estimate.shape == shape == (step.estimate + step.observed).shape
        assert not step.estimate.requires_grad
        assert (step.validation is not None) is objective.validates
        network.zero_grad()
        step.loss.backward()  # type: ignore[no-untyped-call]
        for weights in network.parameters():
            assert weights.grad is not None
            assert torch.isfinite(weights.grad).all()
            assert weights.grad.any()
        state, twin_state = step.state, other.state


@pytest.mark.parametrize(("task", "name"), ALL)
def test_silence_has_a_finite_loss(task: str, name: str) -> None:
    objective = make(task, name, silent=True)
    network = network_for(objective)
    step = objective.step(network, objective.begin(), seeded())
    step.loss.backward()  # type: ignore[no-untyped-call]
    values = [step.loss, step.estimate, *(each.grad for each in network.parameters() if each.grad is not None)]
    assert all(torch.isfinite(each).all() for each in values)


# Several in turn


class Numbered(Objective):
    """An objective that says which one it is, and how often it was asked."""

    networks = ((3, 6),)

    def __init__(self, number: int) -> None:
        self.initial = torch.full((1, 1, 2, 3, 4), float(number))

    def step(self, network: Network, state: int, generator: torch.Generator) -> Step:
        return Step(self.initial.mean(), network(self.initial), self.initial + state, state + 1)


def turns(count: int, seed: int, iterations: int) -> list[int]:
    """Which of ``count`` objectives has its turn in each iteration."""
    alternating = Alternating([Numbered(number) for number in range(count)], iterations, seed)
    assert alternating.networks == ((3, 6),)
    order: list[int] = []
    state = alternating.begin()
    for _ in range(iterations):
        step = alternating.step(torch.neg, state, seeded())
        number = int(step.loss)
        # Each goes on from its own state.
        assert (step.observed == number + order.count(number)).all()
        assert (step.estimate == -number).all()
        order.append(number)
        state = step.state
    return order


@given(st.integers(1, 9), st.integers(0, 2**63 - 1), st.integers(1, 4))
def test_alternating_gives_everyone_a_turn_before_any_has_another(count: int, seed: int, rounds: int) -> None:
    order = turns(count, seed, count * rounds)
    for start in range(0, len(order), count):
        assert sorted(order[start : start + count]) == list(range(count))
    assert order == turns(count, seed, count * rounds)
    orders = [turns(8, each, 16) for each in range(3)]
    assert len({tuple(each[start : start + 8]) for each in orders for start in (0, 8)}) == 6


# Generate


def test_the_recording_itself_has_no_loss_when_it_is_generated() -> None:
    objective = make("denoise", "generate")
    step = objective.step(partial(torch.Tensor.view_as, objective.initial), None, seeded())
    assert float(step.loss) == 0
    torch.testing.assert_close(step.estimate, objective.initial)


@pytest.mark.parametrize("task", ["denoise", "declip", "separate"])
@pytest.mark.parametrize("input_noise", [0.0, 0.1])
def test_the_input_of_generating_networks_changes_by_the_input_noise_only(task: str, input_noise: float) -> None:
    estimator = "double-dip" if task == "separate" else "generate"
    objective = make(task, estimator, settings=replace(PLAIN, input_noise=input_noise))
    inputs: list[Tensor] = []
    for seed in (0, 1):
        objective.step(lambda z: inputs.append(z) or torch.ones_like(z), objective.begin(), seeded(seed))  # type: ignore[func-returns-value]
    assert torch.equal(*inputs) is (input_noise == 0)
    assert float((inputs[0] - inputs[1]).std()) == pytest.approx(input_noise * 2**0.5, rel=0.1, abs=1e-9)


@pytest.mark.parametrize("task", ["denoise", "declip"])
def test_a_network_of_waveforms_generates_samples(task: str) -> None:
    objective = make(task, "generate", channels=2, settings=replace(PLAIN, prior="wave-unet"))
    samples = torch.randn(1, 2, 1, LENGTH, generator=seeded())
    shapes: list[torch.Size] = []
    step = objective.step(lambda z: shapes.append(z.shape) or samples, objective.begin(), seeded())  # type: ignore[func-returns-value]
    assert (shapes, objective.networks) == ([samples.shape], ((2, 2),))
    torch.testing.assert_close(step.estimate, STFT_SMALL.forward(samples[:, :, 0]))
    if task == "denoise":
        torch.testing.assert_close(step.loss, (step.estimate - objective.initial).square().mean())


def test_frames_that_lack_a_sample_do_not_count_and_all_others_do() -> None:
    samples = noise(LENGTH)[None]
    gap = Missing(Gaps((((200, 230),),)))
    objective = FrameGeneration(samples, gap, setup())
    truth = STFT_SMALL.forward(torch.from_numpy(samples).float())[None]
    lacking = STFT_SMALL.forward(torch.from_numpy(gap.affected(samples)).float())[0].abs().sum(dim=(0, 1)) > 1e-4

    def loss(estimate: Tensor) -> float:
        return float(objective.step(partial(torch.Tensor.view_as, estimate), None, seeded()).loss)

    for frame in range(truth.shape[-1]):
        changed = truth.clone()
        changed[..., frame] += 1
        assert loss(changed) == pytest.approx(0 if lacking[frame] else 1 / int((~lacking).sum()), abs=1e-9)


@pytest.mark.parametrize("task", ["inpaint", "declip", "dequantize"])
def test_magnitudes_along_a_candidate_s_phases_are_the_candidate_and_across_a_quarter_turn(task: str) -> None:
    degradation, samples = prepared(task, 2)
    objective = ConsistentGeneration(samples, degradation, setup(rate=4_000))  # type: ignore[arg-type]
    restored = STFT_SMALL.forward(torch.from_numpy(degradation.candidates(samples, 4_000)[-1]).float())[None]
    size = restored.square().sum(dim=2).sqrt()
    none = torch.zeros_like(size)
    pairs = (torch.stack([size, none], dim=2), torch.stack([none, size], dim=2))
    along, across = (objective.step(partial(torch.Tensor.view_as, each), None, seeded()) for each in pairs)
    torch.testing.assert_close(along.estimate, restored, atol=1e-5, rtol=1e-5)
    turned = torch.stack([-restored[:, :, 1], restored[:, :, 0]], dim=2)
    torch.testing.assert_close(across.estimate, turned, atol=1e-5, rtol=1e-5)
    # The candidate is consistent.
    assert along.loss.item() < 1e-10 < across.loss.item()


# Deep Network Prior


@pytest.mark.parametrize("name", ["dnp-lsa", "dnp-wiener"])
def test_what_settles_passes_and_what_fluctuates_does_not(name: str) -> None:
    objective = make("denoise", name)
    size, state = objective.initial.square().sum(dim=2).sqrt(), objective.begin()
    bins = torch.arange(33)[:, None]
    relative = torch.where(bins < 11, 0.0, torch.where(bins < 22, 0.05, 0.5))
    gains = []
    for iteration in range(60):
        # The magnitude changes by a part of itself, in every iteration and in each third of the bins by another.
        output = objective.initial * (1 + relative * (-1) ** iteration)
        step = objective.step(lambda z, output=output: output.view_as(z), state, seeded())  # type: ignore[misc]
        state = step.state
        gains.append((step.estimate.square().sum(dim=2).sqrt() / size)[0, 0].mean(dim=1))
    assert all((each == 1).all() for each in gains[:48])
    settled, between, fluctuating = (gains[-1][start : start + 11] for start in (0, 11, 22))
    torch.testing.assert_close(settled, torch.ones(11), atol=1e-3, rtol=0)
    assert between.min() > 0.7
    assert fluctuating.max() < 0.05
    if name == "dnp-wiener":
        torch.testing.assert_close(fluctuating, torch.full((11,), 1e-3))
        # The mean of 0.1 / 1.05 and 0.1 / 0.95, over that of 1 / 1.5 and 1 / 0.5.
        torch.testing.assert_close(between, torch.full((11,), 1 - (0.1 / 1.05 + 0.1 / 0.95) / (1 / 1.5 + 1 / 0.5)))


# Mask


@pytest.mark.parametrize("scale", [0.3, 0.7, 1.0])
def test_mask_loss_estimates_the_true_error_without_the_clean_recording(scale: float) -> None:
    """The squared error of a constant gain is known in closed form, and the loss must meet it up to a constant."""
    length = 32_000
    clean = 2 * torch.sin(torch.arange(length) * 0.7)[None]
    noisy, how = clean + torch.randn(1, length, generator=seeded()), setup(Settings(recorruption_scale=scale))
    objective = Mask(noisy, [white_noise(length=length)], how)
    gains, generator, losses = [0.1, 0.4, 0.7, 0.9], seeded(1), []
    for logit in torch.tensor(gains).logit():
        # What is added to the logits of the first gains.
        networks = [lambda features, logit=logit: logit - (2 * features - 1)] * 20
        losses.append(np.mean([float(objective.step(each, objective.begin(), generator).loss) for each in networks]))
    s = STFT_SMALL.forward(clean)
    n = STFT_SMALL.white_gain * (1 + scale**2)
    truths = [float(((1 - g) * s).square().mean()) + g**2 * n for g in gains]
    assert np.ptp(np.array(losses) - truths) < 0.05 * np.ptp(truths)


def test_noise_that_the_mask_adds_has_the_given_power_in_every_bin_and_frame() -> None:
    spectrum, level = torch.linspace(4.0, 0.1, 33)[None], torch.linspace(0.2, 5.0, 401)
    moving = Noise(spectrum, spectrum[..., None] * level, 0.001)
    objective = Mask(torch.zeros(1, 6_400), [moving], setup(Settings(recorruption_scale=0.5)))
    ratios: list[Tensor] = []

    def network(features: Tensor) -> Tensor:
        ratios.append((2 * features[0]).exp() / 0.5**2)
        return features

    generator = seeded(2)
    for _ in range(50):
        objective.step(network, objective.begin(), generator)
    inner = torch.stack(ratios).mean(dim=0)[:, 1:-1, 2:-2]
    assert float(inner.mean()) == pytest.approx(1, abs=0.02)
    assert float(inner.mean(dim=2).std()) < 0.05
    assert float(inner.mean(dim=1).std()) < 0.1


# Ensemble


def made_up(weights: list[float], std: float = 0.0, count: int = 3) -> list[TrainingPair]:
    """Pairs whose truth is a mix of random candidates, where it counts."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(count):
        candidates = rng.standard_normal((len(weights), 1, LENGTH))
        scored = rng.random((1, LENGTH)) < 0.3
        mixed = np.tensordot(weights, candidates, axes=1) + std * rng.standard_normal((1, LENGTH))
        pairs.append(TrainingPair(candidates, np.where(scored, mixed, 1e3), scored))
    return pairs


def ensemble(candidates: Samples, pairs: list[TrainingPair]) -> Ensemble:
    degradation, samples = degraded("gaps", harmonics(LENGTH))
    given = Prepared(degradation, candidates, pairs)
    return Ensemble(samples, given, setup(rate=4_000))  # type: ignore[arg-type]


def zeros(outputs: int) -> Network:
    """A network of which no output depends on its input."""
    return lambda x: torch.zeros(x.shape[0], outputs, *x.shape[2:], requires_grad=True)


@given(st.lists(st.floats(-3, 3) | st.floats(0, 0.4), min_size=2, max_size=4))
def test_the_best_weights_are_found_where_they_are_positive_and_not_more_than_one(weights: list[float]) -> None:
    found = stack(made_up(weights))
    assert (found >= 0).all()
    assert found.sum() <= 1 + 1e-5
    if min(weights) >= 0 and sum(weights) <= 1:
        np.testing.assert_allclose(found, weights, atol=1e-4)


def test_the_best_weights_are_found_under_noise_and_at_any_level() -> None:
    pairs = made_up([0.3, 0.6], std=0.3)
    quiet = [TrainingPair(1e-4 * each.candidates, 1e-4 * each.truth, each.scored) for each in pairs]
    np.testing.assert_allclose(stack(pairs), [0.3, 0.6], atol=0.05)
    np.testing.assert_allclose(stack(quiet), stack(pairs), atol=1e-4)


@pytest.mark.parametrize("weights", [[0.3, 0.6], [1.0, 0.0], [-1.0, -1.0]])
def test_a_network_that_returns_zeros_mixes_by_the_best_weights(weights: list[float]) -> None:
    clean = harmonics(LENGTH)
    candidates, pairs = np.stack([clean, -0.5 * clean]), made_up(weights)
    objective = ensemble(candidates, pairs)
    step = objective.step(zeros(3), objective.begin(), seeded())
    mixed = torch.from_numpy(np.tensordot(stack(pairs), candidates, axes=1)).float()
    # Every candidate, and silence, has a least weight.
    within = 4 * _LEAST_WEIGHT * float(STFT_SMALL.forward(torch.from_numpy(clean)).abs().max())
    torch.testing.assert_close(step.estimate[0], STFT_SMALL.forward(mixed), atol=within, rtol=0)
    torch.testing.assert_close(step.estimate, objective.initial)


def test_the_loss_is_the_error_where_it_counts_and_the_last_pair_is_not_learned_from() -> None:
    pairs = made_up([0.3, 0.6], std=1.0)
    hopeless = TrainingPair(np.zeros_like(pairs[0].candidates), pairs[0].truth, pairs[0].scored)
    alone, several = ensemble(pairs[0].candidates, pairs[:1]), ensemble(pairs[0].candidates, [*pairs[:2], hopeless])
    step = alone.step(zeros(3), alone.begin(), seeded())
    mixed = STFT_SMALL.inverse(step.estimate[0], LENGTH).double().numpy()
    error, truth = (each[pairs[0].scored] for each in (mixed - pairs[0].truth, pairs[0].truth))
    assert step.loss.item() == pytest.approx((error**2).sum() / (truth**2).sum(), rel=1e-4)
    state = several.begin()
    for _ in range(4):
        step = several.step(zeros(3), state, seeded())
        assert step.loss.item() < 0.95
        assert float(step.validation or 0) == pytest.approx(1.0)
        state = step.state


# Ratio masks


def song(types: tuple[str, ...] = ("harmonic", "percussive")) -> RatioMask:
    """Notes that go on, each for a while, and drums that do not."""
    notes = np.concatenate([np.sin(np.arange(RATE // 2) * pitch) for pitch in (0.2, 0.9, 0.4, 1.5)])
    drums = noise(notes.size, std=1.0) * np.exp(-(np.arange(notes.size) % 3000) / 150)
    return RatioMask((notes + drums)[None], types, replace(setup(), stft=STFT(512, 128)))


def test_ratio_masks_follow_the_order_of_the_types_and_sum_to_the_mixture() -> None:
    straight, turned, network = song(), song(("percussive", "harmonic")), torch.nn.Conv2d(1, 2, 1)
    torch.testing.assert_close(straight.initial, turned.initial.flip(0))
    one, other = straight.step(network, None, seeded()), turned.step(lambda x: network(x).flip(1), None, seeded())
    torch.testing.assert_close((one.loss, one.estimate), (other.loss, other.estimate.flip(0)))
    torch.testing.assert_close(one.estimate.sum(dim=0), straight.initial.sum(dim=0))


# Double-DIP


def magnitudes(*shape: int) -> Tensor:
    return torch.rand(shape, generator=seeded())


def double_dip(samples: Samples, iterations: int = 100) -> DoubleDIP:
    return DoubleDIP(samples, ["any"] * 2, setup(Settings(iterations=iterations)))


def constant(*values: float) -> Network:
    """Networks whose outputs are the same everywhere: those of the sources, then those of the masks."""
    return lambda z: torch.tensor(values)[None, :, None, None].expand(1, -1, *z.shape[2:])


def test_exclusion_is_the_formula_by_hand_and_goes_over_all_pairs_alike() -> None:
    one, other = magnitudes(2, 1, 1, 2)
    phi = [2 * torch.sigmoid(x[0, 0, 1] - x[0, 0, 0]) - 1 for x in (one, other)]
    # Of three scales and two directions only this one has neighbours.
    expected = float((phi[0] ** 2 * phi[1] ** 2) ** 0.25) / 6
    assert float(exclusion(torch.stack([one, other]))) == pytest.approx(expected, abs=1e-3)
    assert exclusion(torch.stack([magnitudes(1, 16, 16), torch.ones(1, 16, 16)])) < 0.01
    sources = magnitudes(3, 2, 16, 17)
    pairs = [exclusion(sources[[j, k]]) for j, k in ((0, 1), (0, 2), (1, 2))]
    torch.testing.assert_close(exclusion(sources), torch.stack(pairs).mean())


def test_roughness_is_along_time_only_whatever_the_hop() -> None:
    steps = torch.arange(9.0).expand(2, 1, 5, 9)
    assert float(roughness(steps, 172 / 11_000)) == pytest.approx(2.0)
    assert float(roughness(steps.transpose(2, 3), 0.01)) == 0
    assert float(roughness(steps[..., ::2], 0.02)) == pytest.approx(float(roughness(steps, 0.01)))


def test_imbalance_is_the_divergence_of_energies_from_equal_ones() -> None:
    sources = magnitudes(3, 1, 8, 9)
    energies = sources.double().square().sum(dim=(1, 2, 3))
    expected = np.log(1 / (3 * energies / energies.sum())).mean()
    assert float(imbalance(100 * sources)) == pytest.approx(float(expected), abs=1e-4)
    assert float(imbalance(sources[[1, 1]])) == pytest.approx(0, abs=1e-5)
    assert imbalance(torch.stack([sources[0], 0.01 * sources[0]])) > 3
    assert torch.isfinite(imbalance(torch.zeros(2, 1, 8, 9)))


@pytest.mark.parametrize("logit", [2.3, -2.3, 5.0])
def test_no_source_gains_by_falling_silent(logit: float) -> None:
    """Two sources share a picture by a mask m, and their sum is the same for every m.

    All edges of two halves meet, the worst that exclusion knows; as one source falls silent, it vanishes.
    """
    objective = double_dip(noise(1, 800))
    picture = 3 * torch.randn(1, 1, *objective.initial.shape[-2:], generator=seeded())

    def loss(logit: Tensor) -> Tensor:
        mask = logit.expand_as(picture)
        return objective.step(lambda z: torch.cat([picture, picture, mask], dim=1), 0, seeded()).loss

    silent = torch.tensor(logit, requires_grad=True)
    assert loss(silent) > loss(torch.tensor(0.0)) + 0.05
    (slope,) = torch.autograd.grad(loss(silent), silent)
    assert slope * logit > 0  # a step down the slope brings it back


@pytest.mark.parametrize("logit", [0.0, 1.5])
def test_two_sources_are_laid_over_each_other_by_a_sigmoid(logit: float) -> None:
    samples = noise(1, 800)
    objective = double_dip(samples)
    step = objective.step(constant(2.0, 1.0, logit), 0, seeded())
    size = step.estimate[:, 0].square().sum(dim=1).sqrt()
    level = STFT_SMALL.forward(torch.from_numpy(samples)).square().sum(dim=1).sqrt().mean()
    m = torch.sigmoid(torch.tensor(logit))
    outputs = torch.nn.functional.softplus(torch.tensor([2.0, 1.0]) - 1)
    expected = level.float() * torch.stack([m, 1 - m]) * outputs
    torch.testing.assert_close(size, expected[:, None, None].expand_as(size))
    # Sources that change places with their masks are the same explanation.
    turned = objective.step(constant(1.0, 2.0, -logit), 0, seeded())
    torch.testing.assert_close(turned.estimate, step.estimate.flip(0))
    torch.testing.assert_close(turned.loss, step.loss)


def test_the_loss_does_not_depend_on_the_level_and_masks_are_to_be_binary_in_the_last_tenth_only() -> None:
    losses = []
    for gain in (1.0, 1e-3):
        objective = double_dip(gain * noise(1, 800), iterations=20)
        steps = [objective.step(constant(0.0, 0.0, 0.1), state, seeded()) for state in range(20)]
        assert [step.state for step in steps] == list(range(1, 21))
        losses.append([step.loss.item() for step in steps])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    first, late = losses[0][0], losses[0][0] + 0.01 / (1 / (1 + np.exp(-0.1)) - 0.5)
    assert losses[0] == [first] * 18 + [pytest.approx(late, rel=1e-3)] * 2
