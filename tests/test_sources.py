"""The sources of one mixture: which is which, how loud they are, and their ratio masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dapcli.signal.sources import levels, match, ratio_masked


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_sources_of_one_type_are_matched_in_any_order_and_others_not() -> None:
    errors = np.array([[5.0, 1.0, 0.0], [1.0, 5.0, 0.0], [0.0, 0.0, 9.0]])
    assert match(errors, ["a", "a", "a"]).tolist() in ([1, 2, 0], [2, 0, 1])
    assert match(errors, ["a", "a", "b"]).tolist() == [1, 0, 2]
    assert match(errors, ["a", "b", "c"]).tolist() == [0, 1, 2]


@pytest.mark.parametrize("count", [2, 3])
def test_ratio_masks_are_powers_relative_to_their_sum(count: int) -> None:
    mixture, sources = noise(2, 2, 9, 5), noise(count, 2, 2, 9, 5, seed=1)
    masked = ratio_masked(mixture, sources)
    torch.testing.assert_close(masked.sum(dim=0), mixture)
    powers = sources.square().sum(dim=2)
    torch.testing.assert_close(masked[0, :, 1], mixture[:, 1] * powers[0] / powers.sum(dim=0))


def test_silent_sources_have_equal_masks() -> None:
    mixture = noise(1, 2, 8, 5)
    torch.testing.assert_close(ratio_masked(mixture, torch.zeros(2, 1, 2, 8, 5)), (mixture / 2).repeat(2, 1, 1, 1, 1))


def test_levels_are_energies_relative_to_that_of_all_sources() -> None:
    source = noise(2, 2, 8, 5)
    torch.testing.assert_close(levels(torch.stack([3 * source, source])), torch.tensor([0.9, 0.1]))
    assert not levels(torch.zeros(2, 2, 2, 8, 5)).any()
