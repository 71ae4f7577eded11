"""The networks: shapes, sizes, reach, and the properties that make them priors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dapcli.errors import SettingsError
from dapcli.priors import PRIORS, build_prior, prior_layout
from dapcli.priors.cost import describe_priors
from dapcli.priors.independent import IndependentNetworks
from dapcli.priors.unet import ConvBlock, UNet, UNetLayout
from dapcli.settings import PRESETS


@pytest.mark.parametrize("name", PRIORS)
@given(bins=st.integers(1, 40), frames=st.integers(1, 40), planes=st.integers(1, 4))
@settings(max_examples=8, deadline=None)
def test_output_has_the_size_of_the_input(name: str, bins: int, frames: int, planes: int) -> None:
    network = build_prior(name, 2, planes, width=2)
    output = network(torch.randn(1, 2, bins, frames))
    assert output.shape == (1, planes, bins, frames)
    assert torch.isfinite(output).all()


@given(bins=st.integers(1, 60), frames=st.integers(1, 60), fold=st.integers(2, 3))
@settings(max_examples=6, deadline=None)
def test_folded_networks_keep_any_size(bins: int, frames: int, fold: int) -> None:
    network = build_prior("exp-dense", 2, 3, width=2, fold=fold)
    output = network(torch.randn(1, 2, bins, frames))
    assert output.shape == (1, 3, bins, frames)
    assert torch.isfinite(output).all()


def test_folding_doubles_the_reach_for_less_than_a_third_of_the_work() -> None:
    plain, folded = (describe_priors(replace(PRESETS["fast"], fold=fold), 16_000) for fold in (1, 2))
    for before, after in zip(plain, folded, strict=True):
        assert after.receptive_field_s == pytest.approx(2 * before.receptive_field_s)
        assert after.gflop_per_iteration < before.gflop_per_iteration / 3


def test_released_variant_has_the_published_number_of_parameters() -> None:
    network = build_prior("ddunet", 2, 2)
    assert sum(weights.numel() for weights in network.parameters()) == 1_092_912


def test_paper_layout_counts_by_hand() -> None:
    # conv: a 3x3 convolution from a to b filters has 9ab + b parameters.
    convolutions = [
        (2, 35),
        (35, 70),
        (70, 70),
        (70, 140),
        (140, 70),
        (70, 70),
        (210, 140),
        (140, 70),
        (140, 70),
        (70, 35),
    ]
    expected = sum(9 * a * b + b for a, b in convolutions) + 35 * 2 + 2
    assert sum(weights.numel() for weights in build_prior("conv", 2, 2).parameters()) == expected


@pytest.mark.parametrize("name", ["conv", "dilated", "exp"])
def test_plain_priors_differ_in_dilation_only(name: str) -> None:
    plain, other = prior_layout("conv"), prior_layout(name)
    assert other.filters == plain.filters
    assert not other.dense


def test_exponential_dilations_are_those_of_the_paper() -> None:
    assert prior_layout("exp").dilations == ((2, 4), (8, 16), (32, 32), (16, 8), (4, 2))


def test_dense_block_passes_its_input_to_every_convolution() -> None:
    network = build_prior("exp-dense", 2, 2, width=5)
    convolutions = [module for module in network.down[0].modules() if isinstance(module, nn.Conv2d)]
    assert [module.in_channels for module in convolutions] == [2, 2 + 5, 2 + 5 + 10]


@pytest.mark.parametrize("name", PRIORS)
def test_no_output_depends_on_more_than_the_receptive_field(name: str) -> None:
    layout = UNetLayout(
        tuple((2, 2) for _ in range(5)),
        tuple((min(d[0], 3), min(d[1], 3)) for d in prior_layout(name).dilations),
        dense=prior_layout(name).dense,
        upsample_conv=prior_layout(name).upsample_conv,
        raw_skip=prior_layout(name).raw_skip,
    )
    network = _without_normalisation(layout)
    extents = []
    for position in range(128, 132):
        z = torch.rand(1, 1, 8, 256, dtype=torch.float64).requires_grad_()
        network(z)[0, 0, 4, position].backward()
        assert z.grad is not None
        touched = z.grad.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
        extents.append(int(touched.max() - touched.min()) + 1)
    # Max pooling passes on one of two bins, whichever is larger, so that the last bin may be missed.
    assert layout.receptive_field() - 4 <= max(extents) <= layout.receptive_field()


def _without_normalisation(layout: UNetLayout) -> UNet:
    """A network of positive weights, in which no dependence can cancel or be cut by a ReLU."""
    network = UNet(layout, 1, 1).double()
    for block in network.down:
        assert isinstance(block, ConvBlock)
        block.normalise = False
    with torch.no_grad():
        for weights in network.parameters():
            weights.abs_()
    return network


class RecordConvolutions(TorchFunctionMode):
    """Notes the shape of the input and of the weights of every convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[torch.Size, torch.Size]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.conv2d:
            self.shapes.append((args[0].shape, args[1].shape))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("width", [3, 16])
def test_bfloat16_convolutions_read_whole_blocks_of_channels(name: str, width: int) -> None:
    # Any other number crashes the process on processors with AVX-512's bfloat16 and no AMX.
    network = build_prior(name, 2, 2, width=width)
    with RecordConvolutions() as record, torch.autocast("cpu", dtype=torch.bfloat16):
        network(torch.randn(1, 2, 9, 9)).float().sum().backward()
    assert len(record.shapes) >= 11
    assert all(x[1] == w[1] and x[1] % 16 == 0 for x, w in record.shapes)


@pytest.mark.parametrize("name", PRIORS)
def test_bfloat16_computes_the_same_function(name: str) -> None:
    torch.manual_seed(0)
    network, z = build_prior(name, 2, 2, width=5), torch.randn(1, 2, 24, 24)

    def run(enabled: bool) -> tuple[Tensor, Tensor]:
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            output = network(z).float()
        output.square().mean().backward()
        return output.detach(), torch.cat([w.grad.flatten() for w in network.parameters() if w.grad is not None])

    (exact, exact_gradient), (rounded, rounded_gradient) = run(False), run(True)
    assert (rounded - exact).norm() < 0.03 * exact.norm()
    assert torch.nn.functional.cosine_similarity(rounded_gradient, exact_gradient, dim=0) > 0.98


def test_a_dense_block_equals_convolutions_of_concatenations() -> None:
    torch.manual_seed(0)
    block = ConvBlock(3, (4, 5), (1, 2), dense=True, normalise=False)
    first, second, transition = (module for module in block.modules() if isinstance(module, nn.Conv2d))
    parts = [torch.randn(1, 2, 7, 8), torch.randn(1, 1, 7, 8)]
    x = torch.cat(parts, dim=1)
    x = torch.cat([first(x).relu(), x], dim=1)
    x = torch.cat([second(x).relu(), x], dim=1)
    output, raw = block(parts)
    torch.testing.assert_close(output, transition(x))
    torch.testing.assert_close(torch.cat(raw, dim=1), x)


def test_only_the_way_down_is_normalised() -> None:
    network = build_prior("exp-dense", 2, 2, width=2)
    assert all(block.normalise for block in network.down)
    assert not any(block.normalise for block in network.up)


def test_unknown_or_impossible_priors_are_refused() -> None:
    with pytest.raises(SettingsError, match="choose one of conv"):
        build_prior("lstm", 2, 2)
    for number in ({"width": 0}, {"fold": 0}):
        with pytest.raises(SettingsError, match="at least 1"):
            build_prior("conv", 2, 2, **number)
    with pytest.raises(ValueError, match="as many up blocks"):
        UNetLayout(((1, 1), (1, 1)), ((1, 1), (1, 1)))
    with pytest.raises(ValueError, match="same convolutions"):
        UNetLayout(((1, 1), (1, 1), (1, 1)), ((1, 1), (1,), (1, 1)))


def test_cost_of_the_paper_setting() -> None:
    costs = {cost.name: cost for cost in describe_priors(PRESETS["paper"], 16_000)}
    assert set(costs) == set(PRIORS)
    # 512 x 251 bins: what the paper's script costs, forward and backward.
    assert costs["ddunet"].gflop_per_iteration == pytest.approx(223, abs=2)
    assert costs["conv"].gflop_per_iteration < costs["exp-dense"].gflop_per_iteration
    assert costs["exp"].gflop_per_iteration == costs["conv"].gflop_per_iteration
    assert costs["exp"].receptive_field_s > costs["dilated"].receptive_field_s > costs["conv"].receptive_field_s


# Several at once


def side_by_side(name: str, count: int) -> IndependentNetworks:
    torch.manual_seed(0)
    return IndependentNetworks([build_prior(name, 1 + index, 2, width=2) for index in range(count)])


@pytest.mark.parametrize("name", PRIORS)
def test_networks_side_by_side_compute_what_they_compute_alone(name: str) -> None:
    both = side_by_side(name, 2).double()
    z = torch.randn(1, 3, 20, 24, dtype=torch.float64)

    def gradients(output: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(output.square().sum(), list(both.parameters())))

    together = both(z)
    alone = torch.cat([network(part) for network, part in zip(both.networks, (z[:, :1], z[:, 1:]), strict=True)], dim=1)
    torch.testing.assert_close(together, alone)
    for one, other in zip(gradients(together), gradients(alone), strict=True):
        torch.testing.assert_close(one, other)


def test_networks_side_by_side_keep_little_for_their_gradients() -> None:
    z = torch.randn(1, 10, 40, 40)

    def kept(run: Callable[[], Tensor]) -> int:
        """Numbers that are kept for the backward pass."""
        sizes: list[int] = []

        def keep(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            run()
        return sum(sizes)

    two, four = side_by_side("exp-dense", 2), side_by_side("exp-dense", 4)
    one = kept(lambda: two.networks[0](z[:, :1]))
    assert kept(lambda: two(z[:, :3])) < one / 10
    assert kept(lambda: four(z)) < one / 10
