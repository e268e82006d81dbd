"""Operators against the matrices they stand for."""

from __future__ import annotations

import pytest
import torch

import gradnoise as gn

from . import oracles
from .cases import CASES, Case, named


@pytest.mark.parametrize("case", CASES, ids=named)
def test_the_hessian_is_the_dense_one(case: Case) -> None:
    model, loss_fn, batch = case.build()
    hessian = gn.Hessian(model, loss_fn, batch)
    truth = oracles.dense(model, loss_fn, batch).hessian
    assert hessian.shape == truth.shape
    identity = torch.eye(hessian.shape[0], dtype=torch.float64)
    torch.testing.assert_close(hessian @ identity, truth, rtol=1e-9, atol=1e-11)
    assert hessian.T is hessian


@pytest.mark.parametrize("case", CASES[:3], ids=named)
def test_torch_func_says_the_same(case: Case) -> None:
    model, loss_fn, batch = case.build()
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]

    def loss(vector: torch.Tensor) -> torch.Tensor:
        parts = vector.split([shape.numel() for shape in shapes])
        named = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        outputs = torch.func.functional_call(model, named, (batch[0],))
        return loss_fn(outputs, batch[1])

    point = torch.cat([p.detach().flatten() for p in model.parameters()])
    truth = torch.func.hessian(loss)(point)
    identity = torch.eye(len(point), dtype=torch.float64)
    ours = gn.Hessian(model, loss_fn, batch) @ identity
    torch.testing.assert_close(ours, truth, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_the_rows_are_the_per_sample_gradients(case: Case) -> None:
    model, loss_fn, batch = case.build()
    rows = gn.PerSampleGradients(model, loss_fn, batch)
    truth = oracles.dense(model, loss_fn, batch, second=False).gradients
    assert rows.shape == truth.shape
    assert rows.T.shape == truth.T.shape
    assert rows.T.T is rows
    close = {"rtol": 1e-9, "atol": 1e-12}
    torch.testing.assert_close(rows.T @ torch.eye(6, dtype=torch.float64), truth.T, **close)
    direction = torch.linspace(-1, 1, truth.shape[1], dtype=torch.float64)
    torch.testing.assert_close(rows @ direction, truth @ direction, **close)


def test_uneven_batches_weigh_by_their_samples() -> None:
    model, loss_fn, (x, y) = CASES[0].build()
    vector = torch.ones(43, dtype=torch.float64)
    parts = [(x[:1], y[:1]), (x[1:], y[1:])]
    whole = gn.Hessian(model, loss_fn, (x, y)) @ vector
    torch.testing.assert_close(gn.Hessian(model, loss_fn, parts) @ vector, whole)


def test_products_leave_the_model_as_found() -> None:
    model, loss_fn, batch = CASES[0].build()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    gn.Hessian(model, loss_fn, batch) @ torch.ones(43)
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert model[0].bias.grad is None


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (torch.ones(42), r"vectors of length 43; got 42"),
        (torch.ones(43, 1, 1), r"a block of vectors or a dict; got \(43, 1, 1\)"),
        ([1.0], r"got list"),
    ],
)
def test_what_does_not_fit_is_an_error(other: object, message: str) -> None:
    with pytest.raises(gn.OperatorError, match=message):
        gn.Hessian(*CASES[0].build()) @ other
