"""Gradients carried back to a parameter through views and functions."""

from __future__ import annotations

import torch

from gradnoise.per_sample.hooks.chain_rule import ThroughView, by_chain_rule
from gradnoise.per_sample.hooks.factored import (
    Materialised,
)
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
