"""Gradients in factors: what their factors give must be what the gradients written out give."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gradnoise.per_sample.hooks import factored as factored_module
from gradnoise.per_sample.hooks.chain_rule import ThroughFunction, ThroughView, by_chain_rule
from gradnoise.per_sample.hooks.convolution import Convolution, Correlated
from gradnoise.per_sample.hooks.factored import (
    Asked,
    Deferred,
    FactoredGradients,
    Materialised,
    Summed,
)
from gradnoise.per_sample.hooks.outer_products import (
    EmbeddingRows,
    SingleOuterProduct,
    SummedOuterProducts,
)
from gradnoise.tensors.sums import BLOCK, dots, sq_norms

COUNT = 4


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def outer(positions: int = 3, groups: int = 1, p: int = 5, q: int = 2) -> SummedOuterProducts:
    shape = torch.Size([groups * p, q])
    return SummedOuterProducts(
        normal(COUNT, groups, positions, p), normal(COUNT, groups, positions, q), shape
    )


def single(p: int = 5, q: int = 2) -> SingleOuterProduct:
    return SingleOuterProduct(normal(COUNT, p), normal(COUNT, q), torch.Size([p, q]))


def lookup(positions: int = 3, rows: int = 5, width: int = 2) -> EmbeddingRows:
    ids = torch.randint(rows, (COUNT, positions))
    return EmbeddingRows(ids, normal(COUNT, positions, width), torch.Size([rows, width]))


def convolution(size: int, channels: int = 2, groups: int = 1) -> Convolution:
    how = Correlated.of(2, (3, 3), 1, 1, 1, groups)
    inputs, deltas = normal(COUNT, 2, channels, size, size), normal(COUNT, 2, 4, size, size)
    return Convolution(inputs, deltas, torch.Size([4, channels // groups, 3, 3]), how)


def viewed(*places: slice) -> list[FactoredGradients]:
    parameter = normal(6, 2).requires_grad_()
    views = [parameter[place] for place in places]
    terms = [Materialised(normal(COUNT, *view.shape)) for view in views]
    return by_chain_rule(terms, views, parameter)


def pulled() -> FactoredGradients:
    parameter = normal(3, 2).requires_grad_()
    return ThroughFunction(Materialised(normal(COUNT, 3)), parameter.pow(2).sum(1), parameter)


FIXED = torch.arange(12, dtype=torch.float64).reshape(COUNT, 3)
FACTORED: dict[str, Callable[[], FactoredGradients]] = {
    "one position: product": lambda: outer(1),
    "one position of rows": single,
    "one position in groups": lambda: outer(1, groups=3),
    "few positions: Gram": lambda: outer(2, p=16, q=16),
    "many positions: written out": lambda: outer(9),
    "groups": lambda: outer(2, groups=2, p=16, q=16),
    "rows looked up": lookup,
    "at hand": lambda: Materialised(normal(COUNT, 3, 2)),
    "a scalar": lambda: Materialised(normal(COUNT)),
    "computed": lambda: Deferred(
        COUNT, torch.Size([3]), FIXED.__getitem__, ("written out", "test")
    ),
    "windows": lambda: convolution(5),
    "wide windows, grouped": lambda: convolution(5, channels=16),
    "grouped convolution": lambda: convolution(4, channels=32, groups=2),
    "tied": lambda: Summed([outer(2), lookup(), outer(1), lookup(2)]),
    "tied, without a short way": lambda: Summed(
        [lookup(), Materialised(normal(COUNT, 5, 2)), outer()]
    ),
    "two calls of one position": lambda: Summed([single(), single()]),
    "tied to one position": lambda: Summed([lookup(), single()]),
    "tied in groups": lambda: Summed([lookup(rows=10), outer(groups=2)]),
    "disjoint views": lambda: Summed(viewed(slice(0, 2), slice(2, 6))),
    "overlapping views": lambda: Summed(viewed(slice(0, 3), slice(2, 6))),
    "equal views": lambda: Summed(viewed(slice(0, 3), slice(0, 3))),
    "computed from a parameter": pulled,
}


@pytest.mark.parametrize("chunk", [1, 10**6])
@pytest.mark.parametrize("name", FACTORED)
def test_sums_are_those_of_the_gradients(
    name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factored_module, "CHUNK_BYTES", chunk)
    factored = FACTORED[name]()
    gradients = factored.gradients(slice(0, COUNT))
    assert gradients.shape == (COUNT, *factored.shape)
    parts = [factored.gradients(slice(i, i + 1)) for i in range(COUNT)]
    torch.testing.assert_close(torch.cat(parts), gradients)
    directions, scale = normal(2, *factored.shape), normal(*factored.shape).exp()
    for squares in (False, True):
        found = factored.measure(Asked(directions, squares, scale))
        scaled = (gradients * scale).reshape(COUNT, -1).double()
        torch.testing.assert_close(found.sq_norms, scaled.square().sum(1))
        found = factored.measure(Asked(directions, squares))
        rows = gradients.reshape(COUNT, -1).double()
        torch.testing.assert_close(found.total.double(), gradients.sum(0).double())
        torch.testing.assert_close(found.sq_norms, rows.square().sum(1))
        torch.testing.assert_close(found.dots, rows @ directions.reshape(2, -1).T)
        assert (found.squares is None) is not squares
        if found.squares is not None:
            torch.testing.assert_close(found.squares, gradients.double().square().sum(0))
    assert all(factored.method())


@settings(deadline=None, max_examples=40, derandomize=True)
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


def test_views_without_common_entries_are_orthogonal() -> None:
    first, second = viewed(slice(0, 2), slice(2, 6))
    assert isinstance(first, ThroughView)
    assert not first.inner(second).any()  # type: ignore[union-attr]
    first, second = viewed(slice(0, 3), slice(2, 6))
    assert first.inner(second) is None


def test_a_view_that_repeats_entries_adds_them() -> None:
    parameter = normal(3).requires_grad_()
    view = torch.as_strided(parameter, (2, 3), (0, 1))
    (factored,) = by_chain_rule([Materialised(normal(COUNT, 2, 3))], [view], parameter)
    own = factored.factored.gradients(slice(0, COUNT)).sum(1)  # type: ignore[attr-defined]
    torch.testing.assert_close(factored.gradients(slice(0, COUNT)), own)
    torch.testing.assert_close(factored.measure().sq_norms, own.square().sum(1))


@pytest.mark.parametrize("width", [1, BLOCK - 1, BLOCK, 3 * BLOCK + 5, 200 * BLOCK])
def test_float32_is_added_in_blocks_and_then_in_float64(width: int) -> None:
    torch.manual_seed(1)
    first, second = torch.randn(3, width), torch.randn(3, width)
    exact = first.double().square().sum(1)
    assert float((sq_norms(first) / exact - 1).abs().max()) < 4e-7
    inner = (first.double() * second.double()).sum(1)
    scale = exact.sqrt() * second.double().square().sum(1).sqrt()
    assert float(((dots(first, second) - inner) / scale).abs().max()) < 4e-7
    assert sq_norms(first).dtype == dots(first, second).dtype == torch.float64
