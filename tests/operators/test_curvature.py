"""What the Hessian and the Gauss-Newton matrix share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from tests.cases import CASES


def test_what_is_not_seen_by_kept_graphs_is_forgotten_on_request() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.scale = nn.Linear(6, 1), 1.0

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * self.linear(x)

    model = Scaled()
    hessian = gn.Hessian(model, nn.MSELoss(), (torch.randn(40, 6), torch.randn(40, 1)))
    before = hessian @ torch.ones(7)
    model.scale = 2.0
    hessian.forget()
    torch.testing.assert_close(hessian @ torch.ones(7), 4 * before)


@pytest.mark.parametrize("kind", [gn.Hessian, gn.GaussNewton])
def test_forgotten_graphs_are_built_again(kind: Any) -> None:
    model, loss_fn, batch = CASES[0].build()
    matrix = kind(model, loss_fn, batch)
    before = matrix @ torch.ones(43)
    matrix.forget()
    assert not matrix._products._graphs._kept
    torch.testing.assert_close(matrix @ torch.ones(43), before, rtol=0, atol=0)
    assert matrix._products._graphs._kept


@pytest.mark.parametrize("kind", [gn.Hessian, gn.GaussNewton])
def test_the_mode_and_the_reason_are_told(kind: Any) -> None:
    case = CASES[0].build()
    assert (kind(*case).hvp, kind(*case, hvp="fresh").hvp) == ("kept", "fresh")
    assert kind(*case).reason.endswith("is kept between products")
    assert kind(*case, hvp="fresh").reason == "as asked for"
