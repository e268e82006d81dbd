"""Outer products: the way is chosen by counting, and counts as torch does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from tests.factored_cases import (
    COUNT,
    outer,
    single,
)
from tests.fuzz import examples


@examples(40)
@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
def test_outer_products_of_any_size(positions: int, groups: int, p: int, q: int) -> None:
    torch.manual_seed(positions)
    factored = outer(positions, groups, p, q)
    rows = factored.gradients(slice(0, COUNT)).reshape(COUNT, -1)
    torch.testing.assert_close(factored.measure().sq_norms, rows.square().sum(1))
    torch.testing.assert_close(factored.measure().total.reshape(-1), rows.sum(0))


def test_the_way_is_chosen_by_counting() -> None:
    assert outer(1).method()[0] == "product of norms"
    assert outer(2, p=16, q=16).method()[0] == "Gram matrices"
    assert outer(9).method()[0] == "written out"
    assert single().method()[0] == "product of norms"


@pytest.mark.parametrize("groups", [1, 3])
def test_operations_are_those_that_torch_counts(groups: int) -> None:
    factored = outer(2, groups, p=16, q=16)
    with FlopCounterMode(display=False) as counter:
        factored.measure()
    assert factored.plain() == groups * 2 * 2 * 16 * 16  # 2 for a product and a sum, 2 positions
    assert factored.extra() == groups * 2 * 2**2 * (16 + 16)  # for each pair of positions
    assert counter.get_total_flops() == COUNT * (factored.plain() + factored.extra())
    assert outer(9).extra() == 4 * 5 * 2  # squares and sums of 5 × 2 numbers written out
