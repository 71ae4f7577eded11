"""The loop, the optimizers and the rules that stop a fit, on networks and curves with known answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dapcli.errors import DeviceError, SettingsError
from dapcli.fit import (
    OPTIMIZERS,
    STOPPING_RULES,
    Fitted,
    Iteration,
    Network,
    Step,
    StopContext,
    check_rule,
    choose_dtype,
    find_device,
    fit,
)
from dapcli.fit.optimizers import orthogonalise
from dapcli.signal.stft import STFT

STFT_SMALL = STFT(64, 16)
LENGTH = 800
SHAPE = (1, 1, 2, 3, 4)


class Bias(nn.Module):
    """The simplest network: its output is one learned number."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x) + self.value


class Target:
    """An objective that is a constant spectrogram; its state is the number of steps done."""

    validates = True
    starts_from_zero = False
    networks = ((2, 2),)

    def __init__(self, level: float = 1.0, validation: list[float] | None = None) -> None:
        self.initial = torch.full(SHAPE, level)
        self.validation = validation
        self.states: list[int] = []

    def begin(self) -> int:
        return 0

    def step(self, network: Network, state: int, generator: torch.Generator) -> Step:
        self.states.append(state)
        estimate = network(torch.zeros(1, 2, 3, 4)).reshape(SHAPE)
        validation = None if self.validation is None else torch.tensor(self.validation[state])
        loss = (estimate - self.initial).square().mean()
        return Step(loss, estimate.detach(), self.initial, state + 1, validation)


class Script:
    """A rule that reads its criteria from a list, and keeps what it has seen."""

    needs = None

    def __init__(self, criteria: list[float], patience: int | None = None) -> None:
        self.criteria, self.patience = criteria, patience
        self.estimates: list[Tensor] = []
        self.averages: list[Tensor] = []

    def criterion(self, iteration: int, step: Step, average: Tensor) -> float:
        self.estimates.append(step.estimate)
        self.averages.append(average)
        return self.criteria[iteration - 1]


def run(rule: Any, target: Target | None = None, network: nn.Module | None = None, **options: Any) -> Fitted:
    how = {"iterations": 10, "optimizer": "adam", "learning_rate": 0.1, "ema_decay": 0.0, "dtype": torch.float32}
    network, target = network or Bias(), target or Target()
    return fit(network, target, rule, generator=torch.Generator(), **{**how, **options})  # type: ignore[arg-type]


# The loop


def test_loop_lowers_the_loss_and_reports_every_iteration() -> None:
    seen: list[Iteration] = []
    target = Target()
    fitted = run(Script([-k for k in range(10)]), target, report=seen.append)
    assert fitted.iterations == tuple(seen)
    assert [each.iteration for each in seen] == list(range(1, 11))
    assert target.states == list(range(10))
    losses = [each.loss for each in seen]
    assert losses == sorted(losses, reverse=True)
    assert (seen[0].residual, seen[0].validation) == (1.0, None)
    assert "all 10 iterations" in fitted.stopped_by


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=12), st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_loop_keeps_the_first_of_the_best_iterates_and_waits_as_long_as_asked(
    criteria: list[float], patience: int
) -> None:
    rule = Script(criteria, patience)
    fitted = run(rule, iterations=len(criteria))
    seen = [each.criterion for each in fitted.iterations]
    assert seen == criteria[: len(seen)]
    assert fitted.best_iteration == 1 + seen.index(min(seen))
    assert torch.equal(fitted.estimate, rule.averages[fitted.best_iteration - 1])
    # No earlier iterate had been the best for so long, and the last one unless all are done.
    ages = [age - seen.index(min(seen[: age + 1])) for age in range(len(seen))]
    assert max(ages[:-1], default=0) < patience
    assert len(seen) == len(criteria) or ages[-1] == patience
    assert (f"in {patience} iterations" in fitted.stopped_by) is (ages[-1] == patience)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_average_starts_as_a_plain_mean_and_goes_on_as_a_running_one(decay: float) -> None:
    rule = Script([0.0] * 8)
    run(rule, iterations=8, ema_decay=decay)
    expected = rule.estimates[0]
    for k, (estimate, average) in enumerate(zip(rule.estimates, rule.averages, strict=True), start=1):
        weight = min(decay, 1 - 1 / k)
        expected = weight * expected + (1 - weight) * estimate
        torch.testing.assert_close(average, expected)
    if decay == 0.9:
        torch.testing.assert_close(rule.averages[-1], torch.stack(rule.estimates).mean(dim=0))


def test_divergence_is_an_error_that_names_the_option() -> None:
    with pytest.raises(SettingsError, match="--learning-rate"):
        run(Script([0.0] * 10), Target(math.inf))


def test_annealed_steps_fall_to_nothing() -> None:
    rule = Script([0.0] * 10)
    network = Bias()
    run(rule, Target(100.0), network, annealed=True)
    places = [float(each.mean()) for each in rule.estimates] + [float(network.value.detach())]
    moved = [after - before for before, after in pairwise(places)]
    assert moved == sorted(moved, reverse=True)
    assert moved[-1] == pytest.approx(moved[0] / 10, rel=0.05)


def test_without_a_network_the_initial_estimate_is_left() -> None:
    target = Target()
    how: dict[str, Any] = {"iterations": 3, "optimizer": "adam", "learning_rate": 0.1, "ema_decay": 0.0}
    fitted = fit(None, target, Script([]), dtype=torch.float32, generator=torch.Generator(), **how)  # type: ignore[arg-type]
    assert fitted.estimate is target.initial
    assert (fitted.iterations, fitted.best_iteration) == ((), 0)


# Optimizers


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6))
@settings(max_examples=60, deadline=None)
def test_orthogonalised_matrices_have_singular_values_near_one(
    rows: int, columns: int, seed: int, scale: float
) -> None:
    matrix = scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    before, after = torch.linalg.svdvals(matrix), torch.linalg.svdvals(orthogonalise(matrix))
    assert after.max() < 1.3
    # Five steps are not enough for what is next to nothing beside the rest, as in some square matrices.
    assert after[before > 0.01 * matrix.norm()].min() > 0.6


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_solve_a_linear_problem(name: str) -> None:
    rate, generator = 0.05, torch.Generator().manual_seed(0)
    x, true = torch.randn(200, 6, generator=generator), torch.randn(4, 6, generator=generator)
    y = x @ true.T + torch.tensor([0.3, -0.3, 0.2, 0.0])
    model = nn.Linear(6, 4)
    optimizer = OPTIMIZERS[name](model.parameters(), rate)
    losses = []
    for iteration in range(200):
        optimizer.param_groups[0]["lr"] = rate * (1 - iteration / 200)
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.03 * losses[0]


def test_muon_moves_kernels_by_their_shape_and_biases_as_adam_does() -> None:
    model = nn.Conv2d(3, 8, 3)
    kernel, bias = (each.detach().clone() for each in (model.weight, model.bias))  # type: ignore[union-attr]
    optimizer = OPTIMIZERS["muon"](model.parameters(), 0.1)
    model(torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    optimizer.step()
    moved = torch.linalg.svdvals((model.weight.detach() - kernel).flatten(1)) / 0.1
    assert 0.6 < moved.min() <= moved.max() < 1.3
    steps = (model.bias.detach() - bias).abs()  # type: ignore[union-attr]
    torch.testing.assert_close(steps, steps[:1].expand(8))
    assert 0 < steps[0] < 0.1


# Stopping rules


@pytest.fixture
def noisy() -> tuple[Tensor, Tensor]:
    """A clean tone and the same with white noise of standard deviation 0.5, ``[1, N]``."""
    generator = torch.Generator().manual_seed(1)
    clean = torch.sin(torch.arange(LENGTH) * 0.2)[None]
    return clean, clean + 0.5 * torch.randn(1, LENGTH, generator=generator)


def judge(rule: Any, samples: Tensor, validation: float | None = None, iteration: int = 1) -> float:
    """The criterion of an estimate whose samples ``[..., C, N]`` are these."""
    average = STFT_SMALL.forward(samples.reshape(-1, *samples.shape[-2:]))
    step = Step(torch.zeros(()), average, average, None, None if validation is None else torch.tensor(validation))
    return float(rule.criterion(iteration, step, average))


def test_fixed_takes_the_last_and_validation_what_the_step_found(noisy: tuple[Tensor, Tensor]) -> None:
    context = StopContext(STFT_SMALL, noisy[1])
    fixed = [judge(STOPPING_RULES["fixed"](context), noisy[1], iteration=k) for k in (1, 2, 3)]
    assert fixed == sorted(fixed, reverse=True)
    assert judge(STOPPING_RULES["validation"](context), noisy[1], 0.25) == 0.25


def test_validation_waits_ten_iterations_for_a_better_iterate() -> None:
    errors = [0.9, 0.5, *[0.6] * 9, 0.4, *[0.7] * 10, 0.1]
    rule = STOPPING_RULES["validation"](StopContext(STFT_SMALL, torch.zeros(1, 9)))
    fitted = run(rule, Target(validation=errors), iterations=len(errors))
    assert fitted.best_iteration == 12
    assert [each.validation for each in fitted.iterations] == pytest.approx(errors[:22])
    assert "10 iterations" in fitted.stopped_by


def test_oracle_is_the_squared_error_against_the_reference(noisy: tuple[Tensor, Tensor]) -> None:
    clean, samples = noisy
    rule = STOPPING_RULES["oracle"](StopContext(STFT_SMALL, samples, references=clean[None]))
    assert judge(rule, samples) == pytest.approx(float((samples - clean).square().mean()), rel=1e-4)


@pytest.mark.parametrize("types", [("any", "any", "any"), ("any", "any", "known"), ("one", "other", "third")])
def test_oracle_lets_sources_of_one_type_come_in_any_order(types: tuple[str, ...]) -> None:
    references = torch.randn(3, 2, LENGTH, generator=torch.Generator().manual_seed(1))
    rule = STOPPING_RULES["oracle"](StopContext(STFT_SMALL, torch.zeros(2, LENGTH), references=references, types=types))
    for order in ([0, 1, 2], [1, 0, 2], [2, 0, 1]):
        allowed = [types[k] for k in order] == list(types)
        assert (judge(rule, references[order]) < 1e-6) is allowed


def test_held_out_prefers_the_clean_sound_to_silence_and_to_the_noise(noisy: tuple[Tensor, Tensor]) -> None:
    clean, samples = noisy
    rule = STOPPING_RULES["held-out"](StopContext(STFT_SMALL, samples, torch.arange(1, LENGTH - 1, 16)))
    other_noise = clean + 0.5 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    criteria = [judge(rule, each) for each in (clean, torch.zeros_like(clean), other_noise)]
    assert criteria[0] == min(criteria)


def test_rules_that_need_something_say_so() -> None:
    with pytest.raises(SettingsError, match="--reference"):
        STOPPING_RULES["oracle"](StopContext(STFT_SMALL, torch.zeros(1, LENGTH)))
    with pytest.raises(SettingsError, match="too short"):
        STOPPING_RULES["held-out"](StopContext(STFT_SMALL, torch.zeros(1, LENGTH), torch.tensor([], dtype=torch.long)))


@pytest.mark.parametrize("name", STOPPING_RULES)
def test_rules_are_refused_without_what_they_go_by(name: str) -> None:
    need = STOPPING_RULES[name].needs
    check_rule(name, ["hidden", "validation", "reference"])
    check_rule(name, [need] if need else [])
    if need is not None:
        with pytest.raises(SettingsError, match=f"--stop {name}"):
            check_rule(name, {"hidden", "validation", "reference"} - {need})


# Devices


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: find_device("tpu"), SettingsError, "auto, cpu, cuda"),
        (lambda: find_device("cpu:1"), SettingsError, "unknown device"),
        (lambda: find_device("cuda:x"), SettingsError, "unknown device"),
        (lambda: find_device("cuda:99"), DeviceError, "--device auto"),
        (lambda: choose_dtype("float16", torch.device("cpu")), SettingsError, "float32"),
    ],
)
def test_what_is_not_there_is_refused(call: Callable[[], object], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


def test_devices_and_precisions_are_what_was_asked_for() -> None:
    cpu = torch.device("cpu")
    assert find_device("cpu") == cpu
    assert choose_dtype("float32", cpu) is torch.float32
    assert choose_dtype("bfloat16", cpu) is torch.bfloat16
    assert choose_dtype("auto", cpu) in (torch.float32, torch.bfloat16)
