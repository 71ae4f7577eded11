"""Harmonic convolution: the equation, its gradient, and what it does to a harmonic series."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from dapcli.priors import build_prior
from dapcli.priors.harmonic import HARMONICS, TAPS, HarmonicConvolution
from dapcli.settings import Settings

ANCHORS = (1, 2, 3, 4, 5, 6, 7)


def operator(
    inputs: int = 1, outputs: int = 1, groups: Sequence[Sequence[int]] = (ANCHORS,), scale: int = 1
) -> HarmonicConvolution:
    torch.manual_seed(0)
    return HarmonicConvolution(inputs, outputs, groups, scale).double()


def equation(x: Tensor, group: torch.nn.Module, anchors: Sequence[int], scale: int) -> Tensor:
    """Equation 5 of the paper, for all channels ``[C, F, T] -> [O, F, T]``, number by number."""
    frequency, time, mixing, bias = (each.tolist() for each in group.parameters())
    channels, bins, frames = x.shape
    values = x.tolist()
    y = torch.tensor(bias, dtype=x.dtype)[:, None, None].repeat(1, bins, frames)

    def row(channel: int, centre: float, frame: int) -> float:
        """The value between two bins."""
        near = [each for each in (math.floor(centre), math.floor(centre) + 1) if 0 <= each < bins]
        return float(sum((1 - abs(centre - each)) * values[channel][each][frame] for each in near))

    shift = (1 - 1 / scale) / 2
    for output, weights in enumerate(mixing):
        for w in range(bins):
            for t in range(frames):
                for channel in range(channels):
                    for index, anchor in enumerate(anchors):
                        weight = weights[channel * len(anchors) + index]
                        for k in range(1, HARMONICS + 1):
                            centre = k * (w + shift) / anchor - shift
                            for s in range(-(TAPS // 2), TAPS // 2 + 1):
                                if 0 <= t - s < frames:
                                    kernel = frequency[channel][k - 1] * time[channel][TAPS // 2 - s]
                                    y[output, w, t] += weight * kernel * row(channel, centre, t - s)
    return y


@pytest.mark.parametrize(("bins", "frames", "scale"), [(1, 1, 1), (9, 4, 1), (8, 3, 2), (7, 5, 4)])
def test_it_is_the_equation(bins: int, frames: int, scale: int) -> None:
    convolution = operator(2, 2, scale=scale)
    x = torch.randn(2, bins, frames, dtype=torch.float64)
    expected = equation(x, convolution.groups[0], ANCHORS, scale)
    torch.testing.assert_close(convolution([x[None]])[0], expected)
    # A concatenation and its parts are the same.
    torch.testing.assert_close(convolution([x[None, :1], x[None, 1:]])[0], expected)


def test_groups_of_outputs_have_their_own_anchors() -> None:
    convolution = operator(2, 5, ((1,), (2, 3)))
    x = torch.randn(2, 9, 4, dtype=torch.float64)
    first, second = convolution.groups
    expected = [equation(x, first, (1,), 1), equation(x, second, (2, 3), 1)]
    assert [len(each) for each in expected] == [3, 2]
    torch.testing.assert_close(convolution([x[None]])[0], torch.cat(expected))


@pytest.mark.parametrize("scale", [1, 2])
def test_its_gradient_is_exact(scale: int) -> None:
    convolution = operator(2, 3, scale=scale)
    x = torch.randn(1, 2, 5, 3, dtype=torch.float64, requires_grad=True)
    parameters = list(convolution.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: convolution([x]), (x, *parameters))


def test_its_gradient_is_its_adjoint() -> None:
    convolution = operator(3, 4, scale=2)
    x = torch.randn(1, 3, 33, 10, dtype=torch.float64, requires_grad=True)
    y = convolution([x]) - convolution([torch.zeros_like(x)])
    other = torch.randn_like(y)
    (adjoint,) = torch.autograd.grad(y, x, other)
    torch.testing.assert_close((y * other).sum(), (x * adjoint).sum())


@pytest.mark.parametrize("fundamental", [5, 8, 21])
@pytest.mark.parametrize("anchor", ANCHORS)
def test_a_harmonic_series_is_gathered_where_the_anchor_has_its_harmonic(fundamental: int, anchor: int) -> None:
    convolution = operator(groups=((anchor,),))
    for name, weights in convolution.named_parameters():
        weights.data.fill_(not name.endswith("bias"))
    series = torch.zeros(1, 1, 7 * fundamental + 1, 1, dtype=torch.float64)
    series[0, 0, fundamental::fundamental] = 1
    row = convolution([series]).detach()[0, 0, :, 0]
    # There and nowhere else are all seven harmonics.
    assert row.argmax() == anchor * fundamental
    assert row[anchor * fundamental] == pytest.approx(7)
    assert (row > 6.99).sum() == 1


@pytest.mark.parametrize("level", [1, 2])
def test_after_pooling_the_centres_of_bins_are_multiplied(level: int) -> None:
    # Interpolated between the centres of pooled bins, a line through the origin stays one.
    size, scale = 64, 2**level
    pooled = torch.nn.functional.avg_pool2d(torch.arange(size, dtype=torch.float64).view(1, 1, size, 1), (scale, 1))
    convolution = operator(groups=((2,),), scale=scale)
    frequency, time, weight, bias = (each.data.zero_() for each in convolution.parameters())
    frequency[:, 2] = 1  # the third harmonic, read where the bin is the second
    time[:, TAPS // 2] = 1
    weight += 1
    assert not bias.any()
    row = convolution([pooled]).detach()[0, 0, :, 0]
    valid = (pooled[0, 0, :, 0] * 1.5 + scale < size).nonzero().flatten()
    assert len(valid) > 8
    torch.testing.assert_close(row[valid], 1.5 * pooled[0, 0, valid, 0])


def test_folded_bins_count_as_pooled_ones() -> None:
    network = build_prior(Settings(prior="harmonic", base_channels=2, fold=2), 1, 1)
    scales = [each.groups[0].scale for each in network.modules() if isinstance(each, HarmonicConvolution)]
    assert scales == [2, 4, 8, 4, 2]
