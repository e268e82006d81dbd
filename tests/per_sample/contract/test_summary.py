"""Sums over the gradients of a chunk, and gradients that are not finite."""

from __future__ import annotations

import pytest
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.per_sample.choice import ENGINES
from tests.cases import features


@pytest.mark.parametrize("engine", ENGINES)
def test_a_gradient_that_is_not_finite_is_named(engine: str) -> None:
    model = nn.Linear(4, 1, bias=False).double()
    batch = features()
    batch[2] = 0.0  # sqrt at zero: the loss is finite, its slope is not

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch).square().sum(1).sqrt()

    with pytest.raises(gn.LossError, match=r"'weight' is not finite for 1 of .*\(positions \[\d\]"):
        gn.per_sample_sq_norms(model, loss, batch, engine=engine)
