"""The rows are the per-sample gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from tests import oracles
from tests.cases import CASES, Case, named
from tests.dense import CLOSE, dense


@pytest.mark.parametrize("case", CASES, ids=named)
def test_the_rows_are_the_per_sample_gradients(case: Case) -> None:
    model, loss_fn, batch = case.build()
    rows = gn.PerSampleGradients(model, loss_fn, batch, micro_batch=4)
    truth = oracles.dense(model, loss_fn, batch, second=False)
    assert rows.shape == truth.gradients.shape
    assert rows.T.shape == truth.gradients.T.shape
    assert rows.T.T is rows
    torch.testing.assert_close(dense(rows), truth.gradients, **CLOSE)
    torch.testing.assert_close(dense(rows.T), truth.gradients.T, **CLOSE)


class WithEmpty(nn.Module):
    """A parameter without entries beside others."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.none = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(0))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


@pytest.mark.parametrize("engine", ["hooks", "functional", "loop"])
def test_parameters_without_entries_take_no_part(engine: str) -> None:
    inputs = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0], [1.0, 1.0, 0.0]])
    data = (inputs, torch.zeros(4))
    rows = gn.PerSampleGradients(WithEmpty(), nn.MSELoss(), data, engine=engine)
    gradients = 2 * inputs.sum(1, keepdim=True) * inputs
    torch.testing.assert_close(rows @ torch.eye(3), gradients)
    torch.testing.assert_close(rows.T @ torch.eye(4), gradients.T)
