"""The networks: shapes, sizes, reach, and the properties that make them priors."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.overrides import TorchFunctionMode

from dapcli.priors import PRIORS, build_prior, build_priors, wave_unet
from dapcli.priors.cost import describe_priors
from dapcli.priors.unet import ConvBlock, UNet, UNetLayout
from dapcli.settings import Settings
from dapcli.tasks import TASKS

SPECTROGRAMS = [name for name, prior in PRIORS.items() if not prior.waveform]
EACH = pytest.mark.parametrize("name", PRIORS)
UNETS = pytest.mark.parametrize("name", SPECTROGRAMS)


def build(name: str, outputs: int = 2, width: int = 35, fold: int = 1, dilation: int = 4) -> Any:
    chosen = Settings(prior=name, base_channels=width, fold=fold, dilation=dilation)
    return build_prior(chosen, 2, outputs)


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


@EACH
@given(bins=st.integers(1, 40), frames=st.integers(1, 40), outputs=st.integers(1, 4), fold=st.integers(1, 3))
@settings(max_examples=8, deadline=None)
def test_output_has_the_size_of_the_input(name: str, bins: int, frames: int, outputs: int, fold: int) -> None:
    output = build(name, outputs, width=2, fold=fold)(torch.randn(1, 2, bins, frames))
    assert output.shape == (1, outputs, bins, frames)
    assert torch.isfinite(output).all()


@EACH
def test_a_zero_output_is_where_learning_can_begin(name: str) -> None:
    network = build_priors(Settings(prior=name, base_channels=2, fold=2), ((1, 2), (3, 1)), zero=True)
    output = network(torch.randn(1, 4, 9, 10))
    assert output.shape == (1, 3, 9, 10)
    assert not output.any()
    (output - 1).square().sum().backward()
    assert any(weights.grad is not None and weights.grad.any() for weights in network.parameters())


def test_folding_doubles_the_reach_for_less_than_a_third_of_the_work() -> None:
    fast = TASKS["denoise"].presets["fast"]
    plain, folded = (describe_priors(replace(fast, fold=fold), 16_000) for fold in (1, 2))
    for before, after in zip(plain, folded, strict=True):
        if before.name not in SPECTROGRAMS:
            assert before == after
            continue
        assert after.receptive_field_s == pytest.approx(2 * before.receptive_field_s)
        assert after.gflop_per_iteration < before.gflop_per_iteration / 3


def test_the_sizes_are_those_of_the_paper_and_of_its_code() -> None:
    assert count(build("ddunet")) == 1_092_912
    # A 3x3 convolution from a to b filters has 9ab + b parameters.
    down = [(2, 35), (35, 70), (70, 70), (70, 140), (140, 70), (70, 70)]
    up = [(210, 140), (140, 70), (140, 70), (70, 35)]
    assert count(build("conv")) == sum(9 * a * b + b for a, b in down + up) + 35 * 2 + 2
    assert build("exp").layout.dilations == ((2, 4), (8, 16), (32, 32), (16, 8), (4, 2))
    for name in ("dilated", "exp"):
        assert build(name).layout == replace(build("conv").layout, dilations=build(name).layout.dilations)
    dense = [each for each in build("exp-dense", width=5).down[0].modules() if isinstance(each, nn.Conv2d)]
    assert [each.in_channels for each in dense] == [2, 2 + 5, 2 + 5 + 10]
    # A 7x7 convolution has 49ab + b, a harmonic one 7 + 7 for each of a channels, and 7ab + b that mix the anchors.
    blocks = [(2, 35), (35, 70), (70, 70), (140, 35), (70, 35)]
    assert count(build("conv7")) == sum(49 * a * b + b for a, b in blocks) + 35 * 2 + 2
    assert count(build("harmonic")) == sum(14 * a + 7 * a * b + b for a, b in blocks) + 35 * 2 + 2
    assert count(build("harmonic-1")) == sum(14 * a + a * b + b for a, b in blocks) + 35 * 2 + 2
    for name in SPECTROGRAMS:
        assert (build(name, dilation=7).layout.dilations == ((7, 7),) * 5) is (name == "dilated")
        network = build(name, width=2)
        assert [block.normalise for block in (*network.down, *network.up)] == [True] * 3 + [False] * 2


@UNETS
def test_no_output_depends_on_more_than_the_receptive_field(name: str) -> None:
    layout = build(name).layout
    dilations = tuple(tuple(min(each, 3) for each in block) for block in layout.dilations)
    filters = tuple((2,) * len(block) for block in dilations)
    layout = replace(layout, filters=filters, dilations=dilations)
    # In a network of positive weights without normalisation no dependence can cancel or be cut by a ReLU.
    network = UNet(layout, 1, 1).double()
    for block in network.down:
        block.normalise = False  # type: ignore[assignment]
    for weights in network.parameters():
        weights.data.abs_()
    extents = []
    for position in range(128, 132):
        z = torch.rand(1, 1, 8, 256, dtype=torch.float64).requires_grad_()
        network(z)[0, 0, 4, position].backward()
        assert z.grad is not None
        touched = z.grad.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
        extents.append(int(touched.max() - touched.min()) + 1)
    # Pooling by maxima passes on one of two bins, whichever is larger, so that the last bin may be missed.
    bins, frames = layout.receptive_field()
    assert frames - 4 <= max(extents) <= frames <= bins


def test_a_wave_unet_sees_what_it_says_and_keeps_rows_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wave_unet, "_activate", lambda x: x)
    network, length = build("wave-unet", outputs=1, width=1).double(), 4096
    for weights in network.parameters():
        weights.data.abs_()
    extents = []
    for position in range(length // 2, length // 2 + 2**wave_unet.LEVELS):
        z = torch.rand(1, 2, 2, length, dtype=torch.float64).requires_grad_()
        network(z)[0, 0, 1, position].backward()
        assert z.grad is not None
        touched = z.grad.abs().sum(dim=(0, 1)).nonzero()
        assert set(touched[:, 0].tolist()) == {1}
        extents.append(int(touched[:, 1].max() - touched[:, 1].min()) + 1)
    assert network.receptive_field() == (1, max(extents))


def test_the_wave_unet_has_the_size_of_the_released_one() -> None:
    filters = [60 * level for level in range(7)]
    down = [15 * a * b + b for a, b in zip([1, *filters[1:]], [*filters[1:], filters[6]], strict=True)]
    up = [5 * a * b + b for a, b in zip([720, 660, 540, 420, 300, 180], filters[:0:-1], strict=True)]
    network = build_prior(Settings(prior="wave-unet", base_channels=60), 1, 1)
    assert count(network) == sum(down) + sum(up) + 61 + 1


class RecordConvolutions(TorchFunctionMode):
    """Notes the shape of the input and of the weights of every convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[torch.Size, torch.Size]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.conv2d and torch.is_autocast_enabled("cpu"):
            self.shapes.append((args[0].shape, args[1].shape))
        return func(*args, **(kwargs or {}))


@EACH
@pytest.mark.parametrize("width", [3, 16])
def test_bfloat16_convolutions_read_whole_blocks_of_channels(name: str, width: int) -> None:
    # Any other number crashes the process on processors with AVX-512's bfloat16 and no AMX.
    with RecordConvolutions() as record, torch.autocast("cpu", dtype=torch.bfloat16):
        build(name, width=width)(torch.randn(1, 2, 9, 9)).float().sum().backward()
    assert record.shapes
    assert all(x[1] == w[1] and x[1] % 16 == 0 for x, w in record.shapes)


@EACH
def test_bfloat16_computes_the_same_function(name: str) -> None:
    torch.manual_seed(0)
    network, z, outputs, gradients = build(name, width=5), torch.randn(1, 2, 24, 24), [], []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            outputs.append(network(z).float())
        found = torch.autograd.grad(outputs[-1].square().mean(), list(network.parameters()))
        gradients.append(torch.cat([each.flatten() for each in found]))
    assert (outputs[1] - outputs[0]).norm() < 0.03 * outputs[0].norm()
    assert torch.nn.functional.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.98


def test_a_dense_block_equals_convolutions_of_concatenations() -> None:
    torch.manual_seed(0)
    layout = build("exp-dense").layout
    block = ConvBlock(3, (4, 5), (1, 2), partial(layout.convolution, level=0), dense=True, normalise=False)
    first, second, transition = (module for module in block.modules() if isinstance(module, nn.Conv2d))
    parts = [torch.randn(1, 2, 7, 8), torch.randn(1, 1, 7, 8)]
    x = torch.cat(parts, dim=1)
    x = torch.cat([first(x).relu(), x], dim=1)
    x = torch.cat([second(x).relu(), x], dim=1)
    output, raw = block(parts)
    torch.testing.assert_close(output, transition(x))
    torch.testing.assert_close(torch.cat(raw, dim=1), x)


def test_layouts_that_do_not_match_are_refused() -> None:
    for dilations, message in ((((1, 1),) * 2, "as many up blocks"), (((1, 1), (1,), (1, 1)), "same convolutions")):
        with pytest.raises(ValueError, match=message):
            UNetLayout(((1, 1),) * len(dilations), dilations)


def test_cost_of_the_paper_setting() -> None:
    costs = {cost.name: cost for cost in describe_priors(TASKS["denoise"].presets["paper"], 16_000)}
    assert set(costs) == set(PRIORS)
    # 512 x 251 bins: what the paper's script costs, forward and backward.
    assert costs["ddunet"].gflop_per_iteration == pytest.approx(223, abs=2)
    assert costs["conv"].gflop_per_iteration < costs["exp-dense"].gflop_per_iteration
    assert costs["exp"].gflop_per_iteration == costs["conv"].gflop_per_iteration
    # Every output of one anchor, or of all seven: a seventh of the products that mix, and as many sums of harmonics.
    assert costs["harmonic-nomix"].gflop_per_iteration < costs["harmonic"].gflop_per_iteration / 2
    assert costs["harmonic-1"].gflop_per_iteration < costs["harmonic-nomix"].gflop_per_iteration
    assert costs["exp"].receptive_field_s > costs["dilated"].receptive_field_s > costs["conv"].receptive_field_s


# Independent networks


def independent(name: str, number: int) -> Any:
    chosen = Settings(prior=name, base_channels=2, fold=1)
    return build_priors(chosen, [(1 + each, 2) for each in range(number)], zero=False)


@EACH
def test_independent_networks_compute_what_they_compute_alone(name: str) -> None:
    both, z = independent(name, 2).double(), torch.randn(1, 3, 20, 24, dtype=torch.float64)
    parts = zip(both.networks, (z[:, :1], z[:, 1:]), strict=True)
    outputs = [both(z), torch.cat([network(part) for network, part in parts], dim=1)]
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*(torch.autograd.grad(each.square().sum(), list(both.parameters())) for each in outputs))


def test_independent_networks_keep_little_for_their_gradients() -> None:
    def kept(network: nn.Module, channels: int) -> int:
        """Numbers that are kept for the backward pass."""
        sizes: list[int] = []
        z = torch.randn(1, channels, 40, 40)
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()), lambda x: x):
            network(z)
        return sum(sizes)

    two, four = independent("exp-dense", 2), independent("exp-dense", 4)
    assert kept(two, 3) < kept(two.networks[0], 1) / 10
    assert kept(four, 10) < kept(two.networks[0], 1) / 10
