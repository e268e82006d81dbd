"""What all matrices of a model share: samples, coordinates, precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import gradnoise as gn
from gradnoise.operators.of_model import ModelOperator
from gradnoise.problem.problem import Problem
from tests.cases import CASES
from tests.dense import dense


def test_uneven_batches_weigh_by_their_samples() -> None:
    model, loss_fn, (x, y) = CASES[0].build()
    parts = [(x[:1], y[:1]), (x[1:], y[1:])]
    for kind in (gn.Hessian, gn.GaussNewton, gn.GradientCovariance):
        whole = dense(kind(model, loss_fn, (x, y)))
        torch.testing.assert_close(dense(kind(model, loss_fn, parts)), whole)


def test_products_leave_the_model_as_found() -> None:
    model, loss_fn, batch = CASES[0].build()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    for kind in (gn.Hessian, gn.GaussNewton, gn.GradientCovariance):
        kind(model, loss_fn, batch) @ torch.ones(43)
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert model[0].bias.grad is None
    assert not model._forward_hooks


def test_vectors_of_parameters_can_be_dicts() -> None:
    model, loss_fn, batch = CASES[0].build()
    named = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    flat = torch.cat([t.reshape(-1) for t in named.values()])
    hessian = gn.Hessian(model, loss_fn, batch)
    product = hessian @ dict(reversed(named.items()))
    assert {name: t.shape for name, t in product.items()} == {n: t.shape for n, t in named.items()}
    torch.testing.assert_close(torch.cat([t.reshape(-1) for t in product.values()]), hessian @ flat)
    rows = gn.PerSampleGradients(model, loss_fn, batch)
    torch.testing.assert_close(rows @ named, rows @ flat)
    with pytest.raises(gn.OperatorError, match="are not a model's parameters"):
        rows.T @ named


def test_half_precision_is_handed_over_in_float32() -> None:
    model, loss_fn, (x, y) = CASES[0].build()
    truth = dense(gn.Hessian(model, loss_fn, (x, y)))
    half = gn.Hessian(model.bfloat16(), loss_fn, (x.bfloat16(), y))
    assert half.dtype == torch.float32
    assert half.resolution == torch.finfo(torch.bfloat16).eps
    off = float((dense(half) - truth).norm() / truth.norm())
    assert off < 0.05
    assert math.isclose(
        float(gn.lanczos(half, tol=0.1).values),
        float(torch.linalg.eigvalsh(truth)[-1]),
        rel_tol=0.1,
    )


def test_symmetric_matrices_are_their_own_transpose() -> None:
    model, loss_fn, batch = CASES[0].build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    hessian = gn.Hessian(model, loss_fn, batch)
    for matrix in (
        hessian,
        gn.GaussNewton(model, loss_fn, batch),
        gn.GradientCovariance(model, loss_fn, batch),
        gn.Preconditioned(hessian, optimizer),
    ):
        assert matrix.symmetric
        assert matrix.T is matrix
    rows = gn.PerSampleGradients(model, loss_fn, batch)
    assert not rows.symmetric
    assert rows.T.shape == (43, 6)


def test_a_class_that_is_not_symmetric_has_to_define_its_transpose() -> None:
    class Without(ModelOperator):
        def _start(self, problem: Problem) -> None:
            super()._start(problem)

        def products(self, block: Tensor) -> Tensor:
            return block

    matrix = Without.of(Problem.open(*CASES[0].build()))
    with pytest.raises(NotImplementedError, match="Without has no transpose: define `T`, or set"):
        _ = matrix.T
