"""The Gauss-Newton matrix against the dense one, and losses that have none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradnoise as gn
from tests import oracles
from tests.cases import CASES, Case, features, mlp, named
from tests.dense import CLOSE, dense
from tests.kernels import OnceOnly, cut


def no_outputs(case: Case) -> bool:
    return case.name in ("layer norm and unused parameters", "scripted")


@pytest.mark.parametrize("case", [c for c in CASES if not no_outputs(c)], ids=named)
def test_the_gauss_newton_matrix_is_the_dense_one(case: Case) -> None:
    model, loss_fn, batch = case.build()
    matrix = gn.GaussNewton(model, loss_fn, batch, micro_batch=4)
    truth = oracles.gauss_newton(model, loss_fn, batch)
    torch.testing.assert_close(dense(matrix), truth, **CLOSE)
    assert float(torch.linalg.eigvalsh(truth).min()) > -1e-12
    assert matrix.T is matrix


@pytest.mark.parametrize("loss", [nn.BCEWithLogitsLoss(), nn.HuberLoss(), nn.CrossEntropyLoss()])
def test_gauss_newton_and_hessian_agree_where_outputs_are_linear(loss: nn.Module) -> None:
    model = nn.Linear(4, 3).double()
    batch = features(), features(3).sigmoid()
    matrix, hessian = (kind(model, loss, batch) for kind in (gn.GaussNewton, gn.Hessian))
    torch.testing.assert_close(dense(matrix), dense(hessian), **CLOSE)


def test_gauss_newton_needs_the_models_outputs() -> None:
    for case in filter(no_outputs, CASES):
        matrix = gn.GaussNewton(*case.build())
        with pytest.raises(
            gn.CurvatureError, match=r"the model's outputs|outputs of a scripted model"
        ):
            matrix @ torch.ones(matrix.shape[1])
    model, x = mlp().double(), features()
    beside = gn.GaussNewton(model, lambda m, b: m(b).sum(1) * m[0].bias.sum(), x)
    with pytest.raises(gn.CurvatureError, match="use no parameter outside"):
        beside @ torch.ones(beside.shape[1])


def test_a_model_given_its_own_outputs_has_no_known_gauss_newton_matrix() -> None:
    model = nn.Linear(4, 4).double()
    matrix = gn.GaussNewton(model, lambda m, x: m(m(x).tanh()).square().sum(1), features())
    with pytest.raises(gn.CurvatureError, match="passed to it again"):
        matrix @ torch.ones(20)
    x = features()
    with pytest.raises(gn.CurvatureError, match="no second derivative"):
        gn.GaussNewton(model, lambda m, x: cut(m(x)).square().sum(1), features())
    inner = gn.GaussNewton(model, lambda m, x: OnceOnly.apply(m(x)).square().sum(1), x)
    known = gn.GaussNewton(model, lambda m, x: m(x).tanh().square().sum(1), x)
    ones = torch.ones(20, dtype=torch.float64)
    torch.testing.assert_close(inner @ ones, known @ ones, rtol=1e-6, atol=1e-8)
    inputs = features()
    changed = gn.GaussNewton(model, lambda m, x: m(x).sub_(1).square().sum(1), inputs)
    plain = gn.Hessian(model, lambda m, x: m(x).sub(1).square().sum(1), inputs)  # m is linear
    torch.testing.assert_close(dense(changed), dense(plain), **CLOSE)
