"""One operation with its arguments, also where it writes into its input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from tests.cases import features
from tests.engines import agree, summary
from tests.layer_cases import Function, squares


@pytest.mark.parametrize("name", ["add_", "mul_", "sub_"])
def test_parameters_added_in_place_are_followed(name: str) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        hidden = self.inner(x)
        view = hidden[:, :2]
        getattr(view, name)(self.w)
        return self.head(hidden.tanh())

    model = Function(forward, inner=nn.Linear(4, 4), head=nn.Linear(4, 2), w=(2,)).double()
    assert agree(model, squares, torch.randn(6, 4).double()) == "hooks"


def test_a_parameter_written_into_activations_is_refused() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.a(x)
        x[:, 0] = self.w
        return x

    model = Function(forward, a=nn.Linear(4, 3), w=()).double()
    with pytest.raises(gn.EngineError, match="written into a tensor in place, by setitem"):
        summary(model, squares, features())
