"""Gradients in factors: what a form says must be what its gradients written out say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gradnoise.pergrad import forms as forms_module
from gradnoise.pergrad.factors import Lookup, Outer, Single
from gradnoise.pergrad.forms import Form, Lazy, Sum, Whole
from gradnoise.pergrad.pulled import Pulled, Viewed, pull_back
from gradnoise.pergrad.windows import Convolution, Correlated
from gradnoise.sums import BLOCK, dots, sq_norms

from .fuzz import examples

COUNT = 4


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def outer(positions: int = 3, groups: int = 1, p: int = 5, q: int = 2) -> Outer:
    shape = torch.Size([groups * p, q])
    return Outer(normal(COUNT, groups, positions, p), normal(COUNT, groups, positions, q), shape)


def single(p: int = 5, q: int = 2) -> Single:
    return Single(normal(COUNT, p), normal(COUNT, q), torch.Size([p, q]))


def lookup(positions: int = 3, rows: int = 5, width: int = 2) -> Lookup:
    ids = torch.randint(rows, (COUNT, positions))
    return Lookup(ids, normal(COUNT, positions, width), torch.Size([rows, width]))


def convolution(size: int, channels: int = 2, groups: int = 1) -> Convolution:
    how = Correlated.of(2, (3, 3), 1, 1, 1, groups)
    inputs, deltas = normal(COUNT, 2, channels, size, size), normal(COUNT, 2, 4, size, size)
    return Convolution(inputs, deltas, torch.Size([4, channels // groups, 3, 3]), how)


def viewed(*places: slice) -> list[Form]:
    parameter = normal(6, 2).requires_grad_()
    views = [parameter[place] for place in places]
    forms = [Whole(normal(COUNT, *view.shape)) for view in views]
    return pull_back(forms, views, parameter)


def pulled() -> Form:
    parameter = normal(3, 2).requires_grad_()
    return Pulled(Whole(normal(COUNT, 3)), parameter.pow(2).sum(1), parameter)


FIXED = torch.arange(12, dtype=torch.float64).reshape(COUNT, 3)
FORMS: dict[str, Callable[[], Form]] = {
    "one position: product": lambda: outer(1),
    "one position of rows": single,
    "one position in groups": lambda: outer(1, groups=3),
    "few positions: Gram": lambda: outer(2, p=16, q=16),
    "many positions: written out": lambda: outer(9),
    "groups": lambda: outer(2, groups=2, p=16, q=16),
    "rows looked up": lookup,
    "at hand": lambda: Whole(normal(COUNT, 3, 2)),
    "a scalar": lambda: Whole(normal(COUNT)),
    "computed": lambda: Lazy(COUNT, torch.Size([3]), FIXED.__getitem__, ("written out", "test")),
    "windows": lambda: convolution(5),
    "wide windows, grouped": lambda: convolution(5, channels=16),
    "grouped convolution": lambda: convolution(4, channels=32, groups=2),
    "tied": lambda: Sum([outer(2), lookup(), outer(1), lookup(2)]),
    "tied, without a short way": lambda: Sum([lookup(), Whole(normal(COUNT, 5, 2)), outer()]),
    "two calls of one position": lambda: Sum([single(), single()]),
    "tied to one position": lambda: Sum([lookup(), single()]),
    "tied in groups": lambda: Sum([lookup(rows=10), outer(groups=2)]),
    "disjoint views": lambda: Sum(viewed(slice(0, 2), slice(2, 6))),
    "overlapping views": lambda: Sum(viewed(slice(0, 3), slice(2, 6))),
    "equal views": lambda: Sum(viewed(slice(0, 3), slice(0, 3))),
    "computed from a parameter": pulled,
}


@pytest.mark.parametrize("chunk", [1, 10**6])
@pytest.mark.parametrize("name", FORMS)
def test_sums_are_those_of_the_gradients(
    name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms_module, "CHUNK_BYTES", chunk)
    form = FORMS[name]()
    gradients = form.gradients(slice(0, COUNT))
    assert gradients.shape == (COUNT, *form.shape)
    parts = [form.gradients(slice(i, i + 1)) for i in range(COUNT)]
    torch.testing.assert_close(torch.cat(parts), gradients)
    direction, scale = normal(*form.shape), normal(*form.shape).exp()
    for squares in (False, True):
        found = form.measure(direction, squares, scale)
        scaled = (gradients * scale).reshape(COUNT, -1).double()
        torch.testing.assert_close(found.sq_norms, scaled.square().sum(1))
        found = form.measure(direction, squares)
        rows = gradients.reshape(COUNT, -1).double()
        torch.testing.assert_close(found.total.double(), gradients.sum(0).double())
        torch.testing.assert_close(found.sq_norms, rows.square().sum(1))
        torch.testing.assert_close(found.dots, rows @ direction.reshape(-1))
        assert (found.squares is None) is not squares
        if found.squares is not None:
            torch.testing.assert_close(found.squares, gradients.double().square().sum(0))
    assert all(form.method())


@examples(40)
@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
def test_outer_products_of_any_size(positions: int, groups: int, p: int, q: int) -> None:
    torch.manual_seed(positions)
    form = outer(positions, groups, p, q)
    rows = form.gradients(slice(0, COUNT)).reshape(COUNT, -1)
    torch.testing.assert_close(form.measure().sq_norms, rows.square().sum(1))
    torch.testing.assert_close(form.measure().total.reshape(-1), rows.sum(0))


def test_the_way_is_chosen_by_counting() -> None:
    assert outer(1).method()[0] == "product of norms"
    assert outer(2, p=16, q=16).method()[0] == "Gram matrices"
    assert outer(9).method()[0] == "written out"
    assert single().method()[0] == "product of norms"


@pytest.mark.parametrize("groups", [1, 3])
def test_operations_are_those_that_torch_counts(groups: int) -> None:
    form = outer(2, groups, p=16, q=16)
    with FlopCounterMode(display=False) as counter:
        form.measure()
    assert form.plain() == groups * 2 * 2 * 16 * 16  # 2 for a product and a sum, 2 positions
    assert form.extra() == groups * 2 * 2**2 * (16 + 16)  # for each pair of positions
    assert counter.get_total_flops() == COUNT * (form.plain() + form.extra())
    assert outer(9).extra() == 4 * 5 * 2  # squares and sums of 5 × 2 numbers written out


def test_views_without_common_entries_are_orthogonal() -> None:
    first, second = viewed(slice(0, 2), slice(2, 6))
    assert isinstance(first, Viewed)
    assert not first.inner(second).any()  # type: ignore[union-attr]
    first, second = viewed(slice(0, 3), slice(2, 6))
    assert first.inner(second) is None


def test_a_view_that_repeats_entries_adds_them() -> None:
    parameter = normal(3).requires_grad_()
    view = torch.as_strided(parameter, (2, 3), (0, 1))
    (form,) = pull_back([Whole(normal(COUNT, 2, 3))], [view], parameter)
    own = form.form.gradients(slice(0, COUNT)).sum(1)  # type: ignore[attr-defined]
    torch.testing.assert_close(form.gradients(slice(0, COUNT)), own)
    torch.testing.assert_close(form.measure().sq_norms, own.square().sum(1))


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
