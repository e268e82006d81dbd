"""Outer products: the way is chosen by counting, and counts as torch does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from gradnoise.per_sample.hooks.factored import Asked
from gradnoise.per_sample.hooks.outer_products import OuterProducts
from tests.factored_cases import COUNT, normal, outer, single
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
    assert (
        factored.batch_cost() == groups * 2 * 2 * 16 * 16
    )  # 2 for a product and a sum, 2 positions
    assert factored.extra_cost() == groups * 2 * 2**2 * (16 + 16)  # for each pair of positions
    assert counter.get_total_flops() == COUNT * (factored.batch_cost() + factored.extra_cost())
    assert outer(9).extra_cost() == 4 * 5 * 2  # squares and sums of 5 × 2 numbers written out


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("positions", [1, 2, 9])
def test_summed_outer_products_are_those_of_einsum(positions: int, groups: int) -> None:
    factored = outer(positions, groups)
    truth = torch.einsum("ngtp,ngtq->ngpq", factored.left, factored.right)
    truth = truth.reshape(COUNT, *factored.shape)
    torch.testing.assert_close(factored.gradients(slice(0, COUNT)), truth)
    directions = normal(2, *factored.shape)
    found = factored.measure(Asked(directions, squares=True))
    torch.testing.assert_close(found.total, truth.sum(0))
    torch.testing.assert_close(found.sq_norms, truth.square().sum((1, 2)))
    torch.testing.assert_close(found.dots, torch.einsum("npq,kpq->nk", truth, directions))
    torch.testing.assert_close(found.squares, truth.square().sum(0))


def test_inner_products_of_two_operations_are_those_of_einsum() -> None:
    first, second = outer(2, p=16, q=16), outer(3, p=16, q=16)
    pair = [f.gradients(slice(0, COUNT)) for f in (first, second)]
    torch.testing.assert_close(first.inner(second), torch.einsum("npq,npq->n", *pair))
    joined = first.join([first, second])
    torch.testing.assert_close(joined.gradients(slice(0, COUNT)), pair[0] + pair[1])


def cancelling() -> OuterProducts:
    """The two positions of sample 1 cancel."""
    factored = outer(2, p=16, q=16)
    factored.left[1, :, 1] = -factored.left[1, :, 0]
    factored.right[1, :, 1] = factored.right[1, :, 0] * (1 + 1e-9)
    return factored


def test_positions_that_cancel_keep_their_digits() -> None:
    factored = cancelling()
    norm = factored.gradients(slice(1, 2)).square().sum()
    assert float(factored.measure().sq_norms[1]) == pytest.approx(float(norm), rel=1e-9, abs=0)


def test_unmended_norms_of_positions_that_cancel_are_nan() -> None:
    factored = cancelling()
    mended, plain = (factored.measure(Asked(mend=mend)).sq_norms for mend in (True, False))
    assert plain.isnan().nonzero().tolist() == [[1]]
    assert torch.equal(mended[plain.isfinite()], plain[plain.isfinite()])
