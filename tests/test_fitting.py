"""The loop and the rules that stop it, on networks and curves with known answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dapcli.errors import DeviceError, SettingsError
from dapcli.fit import OPTIMIZERS, STOPPING_RULES, Fit, Need, StopContext, choose_dtype, find_device
from dapcli.fit.optimizers import orthogonalise
from dapcli.signal.stft import STFT

STFT_SMALL = STFT(64, 16)
LENGTH = 800


class Bias(nn.Module):
    """The simplest network: its output is one learned number."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x) + self.value


class Target:
    """An observation that is a constant spectrogram."""

    networks = ((2, 2),)
    starts_from_zero = False

    def __init__(self, level: float = 1.0) -> None:
        self.spectrogram = torch.full((1, 2, 3, 4), level)

    def evaluate(self, network: Callable[[Tensor], Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        estimate = network(torch.zeros(1, 2, 3, 4))
        return (estimate - self.spectrogram).square().mean(), estimate.detach()


class Script:
    """A rule that reads its criteria from a list."""

    needs: Need | None = None

    def __init__(self, criteria: list[float], patience: int | None) -> None:
        self.criteria = iter(criteria)
        self.patience = patience

    def criterion(self, output: Tensor, average: Tensor) -> float:
        return next(self.criteria)


def make_fit(
    rule: Script,
    *,
    iterations: int = 10,
    averaging: float = 0.0,
    annealed: bool = False,
    target: Target | None = None,
) -> Fit:
    return Fit(
        Bias(),
        target or Target(),
        rule,
        iterations=iterations,
        optimizer="adam",
        learning_rate=0.1,
        annealed=annealed,
        averaging=averaging,
        dtype=torch.float32,
        generator=torch.Generator(),
    )


def test_loop_lowers_the_loss_and_counts_iterations() -> None:
    steps = list(make_fit(Script([-k for k in range(10)], None)))
    assert [step.iteration for step in steps] == list(range(1, 11))
    losses = [step.loss for step in steps]
    assert losses == sorted(losses, reverse=True)


def test_loop_keeps_the_iterate_where_the_criterion_is_lowest() -> None:
    fit = make_fit(Script([5, 3, 1, 2, 4, 6, 7, 8, 9, 10], None))
    estimates = [fit.observation.evaluate(fit._forward, torch.Generator())[1] for _ in fit]
    assert fit.best_iteration == 3
    # The network had taken two steps when its third output was judged.
    torch.testing.assert_close(fit.estimate, estimates[1])


def test_loop_stops_when_patience_runs_out() -> None:
    fit = make_fit(Script([5, 3, 4, 4, 4, 4, 4, 4, 4, 1], 3))
    assert len(list(fit)) == 5
    assert fit.best_iteration == 2
    assert "3 iterations" in fit.stopped_by


def test_loop_without_patience_says_that_all_iterations_are_done() -> None:
    fit = make_fit(Script([0.0] * 10, None))
    assert len(list(fit)) == 10
    assert "all 10 iterations" in fit.stopped_by


def test_infinite_criteria_still_leave_an_estimate() -> None:
    fit = make_fit(Script([math.inf] * 10, None))
    list(fit)
    assert fit.best_iteration == 1


def test_average_starts_as_a_plain_mean() -> None:
    outputs: list[Tensor] = []

    class Spy(Script):
        def criterion(self, output: Tensor, average: Tensor) -> float:
            outputs.append(output)
            torch.testing.assert_close(average, torch.stack(outputs).mean(dim=0))
            return -len(outputs)

    list(make_fit(Spy([], None), iterations=8, averaging=0.9))
    assert len(outputs) == 8


def test_divergence_is_an_error_that_names_the_option() -> None:
    with pytest.raises(SettingsError, match="--learning-rate"):
        list(make_fit(Script([0.0] * 10, None), target=Target(math.inf)))


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


def test_annealed_steps_fall_to_nothing() -> None:
    fit = make_fit(Script([0.0] * 10, None), annealed=True, target=Target(100.0))
    bias = next(fit._network.parameters()).detach()
    places = [float(bias) for _ in fit]
    moved = [after - before for before, after in pairwise([0.0, *places])]
    assert moved == sorted(moved, reverse=True)
    assert moved[-1] == pytest.approx(moved[0] / 10, rel=0.05)


def context(samples: Tensor, noise: float = 1.0, **known: Tensor | None) -> StopContext:
    spectrum = torch.full((samples.shape[0], STFT_SMALL.n_fft // 2 + 1), noise * 2 * STFT_SMALL.white_gain)
    return StopContext(STFT_SMALL, samples, spectrum, known.get("hidden"), known.get("reference"))


@pytest.fixture
def noisy() -> tuple[Tensor, Tensor]:
    """A clean tone and the same with white noise of standard deviation 0.5, ``[1, N]``."""
    generator = torch.Generator().manual_seed(1)
    clean = torch.sin(torch.arange(LENGTH) * 0.2)[None]
    return clean, clean + 0.5 * torch.randn(1, LENGTH, generator=generator)


def test_oracle_is_the_squared_error_against_the_reference(noisy: tuple[Tensor, Tensor]) -> None:
    clean, samples = noisy
    rule = STOPPING_RULES["oracle"](context(samples, reference=clean))
    judged = STFT_SMALL.forward(samples)
    assert rule.criterion(judged, judged) == pytest.approx(float((samples - clean).square().mean()), rel=1e-4)


@pytest.mark.parametrize("kinds", [("any", "any", "any"), ("any", "any", "known"), ("one", "other", "third")])
def test_oracle_lets_sources_of_one_kind_come_in_any_order(kinds: tuple[str, ...]) -> None:
    references = torch.randn(6, LENGTH, generator=torch.Generator().manual_seed(1))  # three sources in stereo
    known = StopContext(STFT_SMALL, torch.zeros(2, LENGTH), reference=references, kinds=kinds)
    rule = STOPPING_RULES["oracle"](known)
    for order in ([0, 1, 2], [1, 0, 2], [2, 0, 1]):
        allowed = [kinds[k] for k in order] == list(kinds)
        estimate = STFT_SMALL.forward(references.reshape(3, 2, -1)[order].reshape(6, -1))
        assert (rule.criterion(estimate, estimate) < 1e-6) is allowed


def test_held_out_prefers_the_clean_sound_to_silence_and_to_the_noise(noisy: tuple[Tensor, Tensor]) -> None:
    clean, samples = noisy
    hidden = torch.arange(1, LENGTH - 1, 16)
    rule = STOPPING_RULES["held-out"](context(samples, hidden=hidden))
    other_noise = clean + 0.5 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    judged = [rule.criterion(s, s) for s in map(STFT_SMALL.forward, (clean, torch.zeros_like(clean), other_noise))]
    assert judged[0] == min(judged)


def test_discrepancy_is_least_where_the_residual_is_as_strong_as_the_noise(noisy: tuple[Tensor, Tensor]) -> None:
    clean, samples = noisy
    rule = STOPPING_RULES["discrepancy"](context(samples, noise=0.25))
    shares = [0.0, 0.5, 1.0]  # of the noise that the estimate has taken up
    judged = [STFT_SMALL.forward(clean + share * (samples - clean)) for share in shares]
    criteria = [rule.criterion(estimate, estimate) for estimate in judged]
    assert criteria[0] == min(criteria)
    assert criteria[0] < 0.2
    assert criteria[1] == pytest.approx(math.log(4), abs=0.2)


@pytest.mark.parametrize("name", ["windowed-variance", "exponential-variance"])
def test_variance_rules_prefer_calm_iterates_and_ignore_scale(name: str) -> None:
    def last(amplitude: float, scale: float) -> float:
        rule = STOPPING_RULES[name](context(torch.zeros(1, LENGTH)))
        generator = torch.Generator().manual_seed(3)
        for _ in range(40):
            estimate = scale * (1 + amplitude * torch.randn(1, 2, 5, 6, generator=generator))
            value = rule.criterion(estimate, estimate)
        return value

    assert last(0.01, 1.0) < last(0.1, 1.0)
    assert last(0.1, 1.0) == pytest.approx(last(0.1, 1e-3), rel=1e-3)


@pytest.mark.parametrize("name", ["windowed-variance", "exponential-variance"])
def test_variance_rules_wait_until_they_have_seen_enough(name: str) -> None:
    rule = STOPPING_RULES[name](context(torch.zeros(1, LENGTH)))
    estimate = torch.ones(1, 2, 5, 6)
    values = [rule.criterion(estimate, estimate) for _ in range(20)]
    assert values[0] == math.inf
    assert values[18] == math.inf
    assert math.isfinite(values[19])


def test_windowed_variance_is_the_variance_of_the_window() -> None:
    rule = STOPPING_RULES["windowed-variance"](context(torch.zeros(1, LENGTH)))
    estimates = [torch.randn(1, 2, 5, 6, generator=torch.Generator().manual_seed(k)) + 3 for k in range(25)]
    value = [rule.criterion(estimate, estimate) for estimate in estimates][-1]
    window = torch.stack(estimates[-20:])
    expected = window.var(dim=0, correction=0).mean() / window.mean(dim=0).square().mean()
    assert value == pytest.approx(float(expected), rel=1e-5)


def test_rules_that_need_something_say_so() -> None:
    with pytest.raises(SettingsError, match="--reference"):
        STOPPING_RULES["oracle"](context(torch.zeros(1, LENGTH)))
    with pytest.raises(SettingsError, match="too short"):
        STOPPING_RULES["held-out"](context(torch.zeros(1, LENGTH), hidden=torch.tensor([], dtype=torch.long)))


def test_devices_are_found_or_refused() -> None:
    assert find_device("cpu") == torch.device("cpu")
    with pytest.raises(SettingsError, match="auto, cpu, cuda"):
        find_device("tpu")
    with pytest.raises(SettingsError, match="unknown device"):
        find_device("cpu:1")
    with pytest.raises(DeviceError, match="--device auto"):
        find_device("cuda:99")


def test_precision_is_what_was_asked_for() -> None:
    cpu = torch.device("cpu")
    assert choose_dtype("float32", cpu) is torch.float32
    assert choose_dtype("bfloat16", cpu) is torch.bfloat16
    assert choose_dtype("auto", cpu) in (torch.float32, torch.bfloat16)
    with pytest.raises(SettingsError, match="float32"):
        choose_dtype("float16", cpu)
