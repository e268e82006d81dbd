"""n numbers per direction, against the dense matrices."""

from __future__ import annotations

import pytest
import torch

from gradnoise.directional import forms, slopes
from gradnoise.problem import Problem

from . import oracles
from .cases import CASES, Case, named


@pytest.mark.parametrize("case", CASES, ids=named)
def test_slopes_and_forms_are_products_with_single_samples(case: Case) -> None:
    model, loss_fn, batch = case.build()
    truth = oracles.dense(model, loss_fn, batch)
    problem = Problem.open(model, loss_fn, batch, micro_batch=4)
    size = problem.objective.size
    source = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, size, generator=source, dtype=torch.float64)

    close = {"rtol": 1e-9, "atol": 1e-11}
    torch.testing.assert_close(slopes(problem, v), truth.gradients @ v, **close)
    found = forms(problem, u, [v, u])
    torch.testing.assert_close(found.product, truth.hessian @ u, **close)
    expected = torch.stack([truth.hessians @ u @ v, truth.hessians @ u @ u], dim=1)
    torch.testing.assert_close(found.values, expected, **close)


def test_a_linear_loss_has_no_curvature() -> None:
    problem = Problem.open(
        torch.nn.Linear(3, 1).double(), lambda m, x: m(x)[:, 0], torch.eye(3).double()
    )
    found = forms(problem, torch.ones(4).double(), [torch.ones(4).double()])
    assert not found.product.any()
    assert not found.values.any()
