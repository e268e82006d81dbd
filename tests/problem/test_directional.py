"""n numbers per direction, against the dense matrices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gradnoise as gn
from gradnoise.problem.directional import _slopes, per_sample_curvatures, require_second_order
from gradnoise.problem.losses.criterion import supervised
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from tests import oracles
from tests.cases import CASES, Case, named
from tests.kernels import OnceOnly, Opaque, cut


@pytest.mark.parametrize("case", CASES, ids=named)
def test_slopes_and_forms_are_products_with_single_samples(case: Case) -> None:
    model, loss_fn, batch = case.build()
    truth = oracles.dense(model, loss_fn, batch)
    problem = Problem.open(model, loss_fn, batch, Options(micro_batch=4))
    size = problem.objective.size
    source = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, size, generator=source, dtype=torch.float64)

    close = {"rtol": 1e-9, "atol": 1e-11}
    with problem.guard(), problem.objective.second_order():
        slopes = torch.cat([_slopes(problem.objective, part, v) for part in problem.batches()])
    torch.testing.assert_close(slopes, truth.gradients @ v, **close)
    found = per_sample_curvatures(problem, u, [v, u])
    torch.testing.assert_close(found.product, truth.hessian @ u, **close)
    expected = torch.stack([truth.hessians @ u @ v, truth.hessians @ u @ u], dim=1)
    torch.testing.assert_close(found.values, expected, **close)


def test_a_linear_loss_has_no_curvature() -> None:
    problem = Problem.open(
        torch.nn.Linear(3, 1).double(), lambda m, x: m(x)[:, 0], torch.eye(3).double()
    )
    found = per_sample_curvatures(problem, torch.ones(4).double(), [torch.ones(4).double()])
    assert not found.product.any()
    assert not found.values.any()


@pytest.mark.parametrize("case", CASES, ids=named)
def test_models_with_second_derivatives_pass_the_check(case: Case) -> None:
    require_second_order(Problem.open(*case.build()))


@pytest.mark.parametrize("kernel", [Opaque, OnceOnly])
def test_a_kernel_without_second_derivative_has_them_by_differences(kernel: Any) -> None:
    model, _, (x, _) = CASES[0].build()
    loss = lambda m, batch: kernel.apply(m(batch)).sum(1)  # noqa: E731
    truth = oracles.dense(model, lambda m, batch: m(batch).tanh().sum(1), x)
    problem = Problem.open(model, loss, x)
    require_second_order(problem)
    assert problem.objective.hidden == [kernel]
    u, v = torch.randn(2, truth.hessian.shape[0], dtype=torch.float64)
    found = per_sample_curvatures(problem, u, [v])
    close: dict[str, float] = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(found.product, truth.hessian @ u, **close)
    torch.testing.assert_close(found.values[:, 0], truth.hessians @ u @ v, **close)


def test_a_cut_is_not_passed_over() -> None:
    model, _, (x, _) = CASES[0].build()
    loss = lambda m, batch: cut(m(batch)).sum(1)  # noqa: E731
    with pytest.raises(gn.CurvatureError, match="no second derivative"):
        gn.Hessian(model, loss, x, hvp="kept")
    assert gn.gradient_moments(model, loss, x).trace_cov.is_exact
    part = gn.gradient_moments(model, loss, x, population="distribution")
    assert part.trace_cov.stderr > 0  # its intervals need first derivatives alone


def test_samples_without_gradient_do_not_hide_a_cut() -> None:
    model, _, (x, _) = CASES[0].build()
    weights = torch.tensor([0.0, 0, 0, 0, 1, 1], dtype=torch.float64)

    def loss(m: Any, batch: Any) -> Tensor:
        return batch[1] * cut(m(batch[0])).square().sum(1)

    with pytest.raises(gn.CurvatureError, match="no second derivative"):
        gn.Hessian(model, loss, (x, weights), hvp="kept")


def test_second_derivatives_of_tiny_losses_are_there() -> None:
    model, loss_fn, (inputs, labels) = CASES[0].build()
    model.float()

    def tiny(model: torch.nn.Module, batch: Any) -> Tensor:
        return 1e-30 * supervised(loss_fn)(model, batch)

    require_second_order(Problem.open(model, tiny, (inputs.float(), labels)))
