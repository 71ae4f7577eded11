"""Sources of one mixture: which is which, how loud they are, and how they share it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dapcli.signal.sources import levels, match, share_out


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_sources_of_one_kind_are_matched_in_any_order_and_others_not() -> None:
    errors = np.array([[5.0, 1.0, 0.0], [1.0, 5.0, 0.0], [0.0, 0.0, 9.0]])
    assert match(errors, ["a", "a", "a"]).tolist() in ([1, 2, 0], [2, 0, 1])
    assert match(errors, ["a", "a", "b"]).tolist() == [1, 0, 2]
    assert match(errors, ["a", "b", "c"]).tolist() == [0, 1, 2]


@pytest.mark.parametrize("count", [2, 3])
def test_a_mixture_is_shared_out_by_power_and_nothing_is_left_of_it(count: int) -> None:
    mixture, sources = noise(2, 2, 9, 5), noise(count * 2, 2, 9, 5, seed=1)
    shares = share_out(mixture, sources).reshape(count, *mixture.shape)
    torch.testing.assert_close(shares.sum(dim=0), mixture)
    powers = sources.reshape(count, *mixture.shape).square().sum(dim=2)
    torch.testing.assert_close(shares[0, :, 1], mixture[:, 1] * powers[0] / powers.sum(dim=0))


def test_sources_that_do_not_overlap_are_separated_exactly_from_their_shapes() -> None:
    high, low = noise(1, 2, 8, 5), noise(1, 2, 8, 5, seed=1)
    high[:, :, :4], low[:, :, 4:] = 0, 0
    torch.testing.assert_close(share_out(high + low, torch.cat([0.1 * high, 3 * low])), torch.cat([high, low]))


def test_silent_sources_have_equal_shares() -> None:
    mixture = noise(1, 2, 8, 5)
    torch.testing.assert_close(share_out(mixture, torch.zeros(2, 2, 8, 5)), (mixture / 2).repeat(2, 1, 1, 1))


def test_levels_are_energies_relative_to_that_of_all_sources() -> None:
    source = noise(2, 2, 8, 5)
    torch.testing.assert_close(levels(torch.cat([3 * source, source]), 2), torch.tensor([0.9, 0.1]))
    assert not levels(torch.zeros(4, 2, 8, 5), 2).any()
