"""The loop, the optimizers and the rules that stop a fit, on networks and curves with known answers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dapcli.errors import SettingsError
from dapcli.fit import (
    STOPPING_RULES,
    Fitted,
    Iteration,
    Network,
    Step,
    StopContext,
    StoppingRule,
    check_rule,
    choose_dtype,
    find_device,
    fit,
)
from dapcli.fit.optimizers import Adam, Muon, orthogonalise
from dapcli.settings import Settings
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


_BIAS = Bias()  # stands for a new one


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


class Script(StoppingRule):
    """A rule that reads its criteria from a list, and keeps what it has seen."""

    def __init__(self, criteria: list[float], patience: int | None = None) -> None:
        self.criteria, self.patience = criteria, patience  # type: ignore[misc]
        self.estimates: list[Tensor] = []
        self.averages: list[Tensor] = []

    def criterion(self, iteration: int, step: Step, average: Tensor) -> float:
        self.estimates.append(step.estimate)
        self.averages.append(average)
        return self.criteria[iteration - 1]


def run(
    rule: Any, target: Target | None = None, network: nn.Module | None = _BIAS, how: Any = None, **options: Any
) -> Fitted:
    chosen = {"iterations": 10, "optimizer": "adam", "learning_rate": 0.1, "ema_decay": 0.0, **options}
    objective: Any = target or Target()
    network = Bias() if network is _BIAS else network
    everything = {"dtype": torch.float32, "generator": torch.Generator(), **(how or {})}
    return fit(network, objective, [rule], Settings(**chosen), **everything)[0]


# The loop


def test_loop_lowers_the_loss_and_reports_every_iteration() -> None:
    seen: list[Iteration] = []
    target = Target()
    fitted = run(Script([-k for k in range(10)]), target, how={"reports": [seen.append]})
    assert fitted.iterations == tuple(seen)
    assert [each.iteration for each in seen] == [state + 1 for state in target.states] == list(range(1, 11))
    assert [each.loss for each in seen] == sorted((each.loss for each in seen), reverse=True)
    assert (seen[0].residual, seen[0].validation) == (1.0, None)


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=12), st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_loop_keeps_the_first_best_iterate_and_waits_as_asked(criteria: list[float], patience: int) -> None:
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
    said = f"in {patience} iterations" if ages[-1] == patience else f"all iterations done ({len(criteria)})"
    assert said in fitted.stopped_by


@given(st.floats(0, 0.99))
@settings(max_examples=10, deadline=None)
def test_average_starts_as_a_plain_mean_and_goes_on_as_a_running_one(decay: float) -> None:
    rule = Script([0.0] * 8)
    run(rule, iterations=8, ema_decay=decay)
    for k, average in enumerate(rule.averages, start=1):
        if decay >= 1 - 1 / k:
            torch.testing.assert_close(average, torch.stack(rule.estimates[:k]).mean(dim=0))
        else:
            torch.testing.assert_close(average, decay * rule.averages[k - 2] + (1 - decay) * rule.estimates[k - 1])


class Pair(Target):
    """Two segments side by side, with targets of their own."""

    def step(self, network: Network, state: int, generator: torch.Generator) -> Step:
        estimate = network(torch.zeros(1, 4, 3, 4)).reshape(1, 2, 2, 3, 4)
        observed = torch.stack([torch.ones(2, 3, 4), torch.full((2, 3, 4), 2.0)])[None]
        losses = (estimate - observed).square().flatten(2).mean(dim=2)[0]
        return Step(losses, estimate.detach(), observed, state + 1)


def test_a_segment_that_has_stopped_keeps_its_estimate_while_another_goes_on() -> None:
    rules: Any = [Script([3, 1, 2, 2, 0], 2), Script([5, 4, 3, 2, 1], 2)]
    seen: list[list[Iteration]] = [[], []]
    chosen, objective = Settings(iterations=5, optimizer="adam", learning_rate=0.1, ema_decay=0.0), Pair()
    reports = [each.append for each in seen]
    fits = fit(Bias(), objective, rules, chosen, torch.float32, torch.Generator(), reports)  # type: ignore[arg-type]
    assert [(each.best_iteration, len(each.iterations)) for each in fits] == [(2, 4), (5, 5)]
    assert [list(each.iterations) for each in fits] == seen
    assert torch.equal(fits[0].estimate, rules[0].averages[1])
    assert [each.iterations[0].loss for each in fits] == [1.0, 4.0]
    assert [each.iterations[0].residual for each in fits] == [1.0, 2.0]


def test_annealed_steps_fall_to_nothing() -> None:
    rule, network = Script([0.0] * 10), Bias()
    run(rule, Target(100.0), network, finetune_iterations=10, how={"finetune": True})
    places = [float(each.mean()) for each in rule.estimates] + [float(network.value.detach())]
    moved = [after - before for before, after in pairwise(places)]
    assert moved == sorted(moved, reverse=True)
    assert moved[-1] == pytest.approx(moved[0] / 10, rel=0.05)


def test_a_fit_without_a_network_is_the_initial_estimate() -> None:
    target = Target()
    fitted = run(Script([]), target, None)
    assert torch.equal(fitted.estimate, target.initial)
    assert (fitted.iterations, fitted.best_iteration) == ((), 0)


# Optimizers


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6))
@settings(max_examples=60, deadline=None)
def test_orthogonalised_singular_values_are_near_one(rows: int, columns: int, seed: int, scale: float) -> None:
    matrix = scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    before, after = torch.linalg.svdvals(matrix), torch.linalg.svdvals(orthogonalise(matrix))
    assert after.max() < 1.3
    # Five steps are not enough for what is next to nothing beside the rest, as in some square matrices.
    assert after[before > 0.01 * matrix.norm()].min() > 0.6


def test_muon_moves_kernels_side_by_side_as_it_moves_each() -> None:
    kernels = torch.randn(3, 4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    together = nn.Parameter(kernels.clone())
    alone = [nn.Parameter(each.clone()) for each in kernels]
    for parameters, losses in ((alone, alone), ([together], together)):
        sum((factor * each).sin().sum() for factor, each in zip((1, 2, 30), losses, strict=True)).backward()
        Muon(parameters, 0.1).step()
    torch.testing.assert_close(together, torch.stack(list(alone)))


def test_muon_moves_kernels_by_their_shape_and_biases_as_adam_does() -> None:
    model = nn.Conv2d(3, 8, 3)
    kernel, bias = (each.detach().clone() for each in (model.weight, model.bias))  # type: ignore[union-attr]
    optimizer = Muon(model.parameters(), 0.1)
    model(torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    optimizer.step()
    moved = torch.linalg.svdvals((model.weight.detach() - kernel).flatten(1)) / 0.1
    assert 0.6 < moved.min() <= moved.max() < 1.3
    steps = (model.bias.detach() - bias).abs()  # type: ignore[union-attr]
    torch.testing.assert_close(steps, steps[:1].expand(8))
    assert 0 < steps[0] < 0.1


def test_adam_is_adam() -> None:
    ours, theirs = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3)
    theirs.load_state_dict(ours.state_dict())
    optimizer, reference = Adam(ours.parameters(), 0.1), torch.optim.Adam(theirs.parameters(), lr=0.1)
    for seed in range(4):
        x = torch.randn(1, 2, 9, 9, generator=torch.Generator().manual_seed(seed))
        for network in (ours, theirs):
            network(x).square().sum().backward()
        optimizer.step()
        reference.step()
        reference.zero_grad()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


# Stopping rules


CLEAN = torch.sin(torch.arange(LENGTH) * 0.2)[None]
NOISE = 0.5 * torch.randn(2, 1, LENGTH, generator=torch.Generator().manual_seed(1))


def judge(rule: Any, samples: Tensor) -> float:
    """The criterion of an estimate whose samples ``[..., C, N]`` are these."""
    average = STFT_SMALL.forward(samples.reshape(-1, *samples.shape[-2:]))
    return float(rule.criterion(1, Step(torch.zeros(()), average, average), average))


def test_validation_waits_ten_iterations_for_a_better_iterate_and_fixed_takes_the_last() -> None:
    errors, context = [0.9, 0.5, *[0.6] * 9, 0.4, *[0.7] * 10, 0.1], StopContext(STFT_SMALL, torch.zeros(1, 9))
    fitted = run(STOPPING_RULES["validation"](context), Target(validation=errors), iterations=len(errors))
    assert (fitted.best_iteration, len(fitted.iterations)) == (12, 22)
    assert [each.validation for each in fitted.iterations] == pytest.approx(errors[:22])
    assert run(STOPPING_RULES["fixed"](context)).best_iteration == 10


def test_oracle_is_the_squared_error_relative_to_the_reference() -> None:
    rule = STOPPING_RULES["oracle"](StopContext(STFT_SMALL, CLEAN + NOISE[0], references=CLEAN[None]))
    assert judge(rule, CLEAN + NOISE[0]) == pytest.approx(
        float(NOISE[0].square().mean() / CLEAN.square().mean()), rel=1e-4
    )


@pytest.mark.parametrize("types", [("any", "any", "any"), ("any", "any", "known"), ("one", "other", "third")])
def test_oracle_lets_sources_of_one_type_come_in_any_order(types: tuple[str, ...]) -> None:
    references = torch.randn(3, 2, LENGTH, generator=torch.Generator().manual_seed(1))
    rule = STOPPING_RULES["oracle"](StopContext(STFT_SMALL, torch.zeros(2, LENGTH), references=references, types=types))
    for order in ([0, 1, 2], [1, 0, 2], [2, 0, 1]):
        allowed = [types[k] for k in order] == list(types)
        assert (judge(rule, references[order]) < 1e-6) is allowed


def test_held_out_prefers_the_clean_sound_to_silence_and_to_the_noise() -> None:
    rule = STOPPING_RULES["held-out"](StopContext(STFT_SMALL, CLEAN + NOISE[0], torch.arange(1, LENGTH - 1, 16)))
    criteria = [judge(rule, each) for each in (CLEAN, torch.zeros_like(CLEAN), CLEAN + NOISE[1])]
    assert criteria[0] == min(criteria)


@pytest.mark.parametrize("name", STOPPING_RULES)
def test_rules_are_refused_without_what_they_go_by(name: str) -> None:
    need, context = STOPPING_RULES[name].needs, StopContext(STFT_SMALL, torch.zeros(1, LENGTH))
    check_rule(name, ["hidden", "validation", "reference"])
    check_rule(name, [need] if need else [])
    if need is not None:
        with pytest.raises(SettingsError, match=f"--stop {name}"):
            check_rule(name, {"hidden", "validation", "reference"} - {need})
    if need in ("hidden", "reference"):
        with pytest.raises(SettingsError, match=r"too short|--reference"):
            STOPPING_RULES[name](context)


# Devices


def test_precisions_and_devices_are_what_was_asked_for_or_refused() -> None:
    cpu = find_device("cpu")
    assert [choose_dtype(name, cpu) for name in ("float32", "bfloat16")] == [torch.float32, torch.bfloat16]
    assert choose_dtype("auto", cpu) in (torch.float32, torch.bfloat16)
    for name in ("cpu:1", "cuda:x"):
        with pytest.raises(SettingsError, match="unknown device"):
            find_device(name)
