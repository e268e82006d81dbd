"""Gradients carried back to a parameter through views and functions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gradnoise.per_sample.hooks.chain_rule import ThroughFunction, ThroughView, by_chain_rule
from gradnoise.per_sample.hooks.factored import Asked, Materialised
from tests.engines import agree
from tests.factored_cases import COUNT, normal, viewed
from tests.layer_cases import Function, squares


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


def test_views_that_overlap_are_added() -> None:
    model = Function(lambda s, x: x @ s.w.unfold(0, 4, 1).T, w=(7,)).double()
    assert agree(model, squares, torch.randn(6, 4).double()) == "hooks"


VIEWS: dict[str, tuple[Callable[[Tensor], Tensor], type]] = {
    "itself": (lambda p: p.view(4, 6), ThroughView),
    "rows": (lambda p: p[1:3], ThroughView),
    "columns": (lambda p: p[:, 2:5], ThroughView),
    "transposed": (lambda p: p.T, ThroughView),
    "flattened": (lambda p: p.flatten(), ThroughView),
    "every second": (lambda p: p[::2, ::3], ThroughView),
    "repeated": (lambda p: p[:, :1].expand(4, 3), ThroughView),
    "overlapping windows": (lambda p: p.flatten().unfold(0, 4, 2), ThroughView),
    "copied": (lambda p: p[[0, 0, 2]], ThroughFunction),
    "squared": (lambda p: p.square(), ThroughFunction),
}


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_carries_gradients_back_as_autograd_does(name: str) -> None:
    view, kind = VIEWS[name]
    parameter = normal(4, 6).requires_grad_()
    seen = view(parameter)
    delta = normal(COUNT, *seen.shape)
    (found,) = by_chain_rule([Materialised(delta)], [seen], parameter)
    assert isinstance(found, kind)
    truth = torch.stack(
        [torch.autograd.grad(seen, parameter, own, retain_graph=True)[0] for own in delta]
    )
    torch.testing.assert_close(found.gradients(slice(0, COUNT)), truth)
    storage = normal(3 + 2 * 24)  # a direction that begins inside of its memory
    directions, scale = storage[3:].view(2, 4, 6), normal(4, 6)
    sums = found.measure(Asked(directions, squares=True))
    torch.testing.assert_close(sums.total, truth.sum(0))
    torch.testing.assert_close(sums.sq_norms, truth.flatten(1).square().sum(1))
    torch.testing.assert_close(sums.dots, truth.flatten(1) @ directions.flatten(1).T)
    torch.testing.assert_close(sums.squares, truth.square().sum(0))
    norms = found.measure(Asked(scale=scale)).sq_norms
    torch.testing.assert_close(norms, (truth * scale).flatten(1).square().sum(1))


def test_equal_views_are_joined() -> None:
    parameter = normal(4, 6).requires_grad_()
    terms = [Materialised(normal(COUNT, 2, 6)) for _ in range(2)]
    assert len(by_chain_rule(terms, [parameter[:2], parameter[0:2]], parameter)) == 1


def test_a_function_that_does_not_reach_the_parameter_gives_zeros() -> None:
    parameter, other = normal(3).requires_grad_(), normal(3).requires_grad_()
    found = ThroughFunction(Materialised(normal(COUNT, 3)), other * 2, parameter)
    assert not found.gradients(slice(0, COUNT)).any()
