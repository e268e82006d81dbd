"""What all matrices of a model share: samples, coordinates, precision."""

from __future__ import annotations

import math

import torch

import gradnoise as gn
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
