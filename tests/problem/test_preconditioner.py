"""P and the weight decay of an optimizer, read from its state."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gradnoise as gn
from gradnoise.problem.preconditioner import Preconditioner
from tests.cases import CORE
from tests.optimizers import OPTIMIZERS, by_hand, trained


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_scales_and_decays_are_those_of_the_formulas(name: str) -> None:
    model, _, _, optimizer = trained(CORE[0], name)
    found = Preconditioner.of(optimizer, dict(model.named_parameters()))
    scale, inside, outside = by_hand(optimizer)
    torch.testing.assert_close(found.flat(found.root, scale), scale.rsqrt())
    torch.testing.assert_close(found.flat(found.inside, scale), inside)
    torch.testing.assert_close(found.flat(found.outside, scale), outside)
    assert found.is_decayed is bool(outside.any())


@pytest.mark.parametrize("name", ["SGD", "AdamW in groups"])
def test_products_are_taken_in_the_coordinates(name: str) -> None:
    model, _, _, optimizer = trained(CORE[0], name)
    found = Preconditioner.of(optimizer, dict(model.named_parameters()))
    scale, inside, outside = by_hand(optimizer)
    a, block = torch.randn(43, 43, dtype=torch.float64), torch.randn(43, 2, dtype=torch.float64)
    root = torch.diag(scale.rsqrt())
    truth = root @ (a + torch.diag(inside)) @ root @ block
    torch.testing.assert_close(found.around(lambda b: a @ b, block), truth)
    torch.testing.assert_close(found.decoupled(block), outside[:, None] * block)
    torch.testing.assert_close(found.decoupled(block[:, 0]), outside * block[:, 0])


def test_half_precision_has_its_scales_in_float32() -> None:
    model = torch.nn.Linear(2, 1).bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = Preconditioner.of(optimizer, dict(model.named_parameters()))
    assert {root.dtype for root in found.root.values()} == {torch.float32}


FRONT_DOORS = [gn.profile, gn.noise_scale, gn.gradient_moments, gn.sharpness]


@pytest.mark.parametrize("call", FRONT_DOORS)
def test_what_is_no_metric_is_refused(call: Any) -> None:
    case = CORE[0].build()
    fresh = torch.optim.Adam(case[0].parameters())
    with pytest.raises(gn.ArgumentError, match=r"`metric` must be one of euclidean, optimizer"):
        call(*case, metric="adam")
    with pytest.raises(gn.ArgumentError, match=r"needs `optimizer`, the torch\.optim\.Optimizer"):
        call(*case, metric="optimizer")
    with pytest.raises(gn.ArgumentError, match=r"no state for '0\.weight' yet: take a step first"):
        call(*case, metric="optimizer", optimizer=fresh)
    with pytest.raises(gn.ArgumentError, match="preconditioner of Adagrad is not known"):
        call(*case, metric="optimizer", optimizer=torch.optim.Adagrad(case[0].parameters()))
