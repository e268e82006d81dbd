"""The truths of the analytic problems, against plain sampling and algebra."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import gradnoise as gn

from . import oracles

TOYS = {
    "T1": gn.toy.NoisyQuadratic(
        torch.tensor([[2.0, 0.5], [0.5, 1.0]]),
        torch.tensor([1.0, -2.0]),
        centre_cov=torch.tensor([[1.0, 0.3], [0.3, 0.5]]),
    ),
    "T4": gn.toy.LinearRegression(torch.tensor([2.0, 0.5]), torch.tensor([1.0, -1.0]), noise=0.5),
}


@pytest.mark.parametrize("name", TOYS)
def test_truth_is_what_many_samples_show(name: str) -> None:
    toy, n, groups = TOYS[name], 500, 40
    truth = toy.truth()
    found: dict[str, list[float]] = {}
    for seed in range(groups):
        x = toy.sample(n, seed)
        dense = analytic(toy, x)
        g, h, cov = dense.gradients.mean(0), dense.hessian, dense.covariance
        true_h = toy.hessian if name == "T1" else torch.diag(toy.spectrum)
        v = torch.linalg.eigh(true_h)[1][:, -1]
        own = dense.hessians @ v @ v
        true_g = true_h @ (toy.w if name == "T1" else toy.offset)
        for part, value in {
            "loss": dense.losses.mean(),
            "grad_sq_norm": 2 * g @ true_g - true_g @ true_g,  # linear, so without bias
            "trace_cov": cov.trace(),
            "sharpness": v @ h @ v,
            "grad_curvature": true_g @ h @ true_g,
            "trace_hessian_cov": (true_h @ cov).trace(),
            "curvature_noise_scale": own.var() / truth.sharpness**2,
        }.items():
            found.setdefault(part, []).append(float(value))
    for part, values in found.items():
        sample = torch.tensor(values)
        error = 4 * sample.std() / math.sqrt(groups) + 1e-6
        assert abs(sample.mean() - getattr(truth, part)) <= error, part


def analytic(toy: Any, data: Any) -> oracles.Dense:
    """Gradients and Hessians written by hand from the definition of the problem."""
    if isinstance(toy, gn.toy.NoisyQuadratic):
        gaps = toy.w - data
        losses = 0.5 * (gaps @ toy.hessian * gaps).sum(1)
        return oracles.Dense(losses, gaps @ toy.hessian, toy.hessian.expand(len(data), 2, 2))
    x, y = data
    residuals = x @ toy.offset - y
    return oracles.Dense(0.5 * residuals**2, residuals[:, None] * x, x[:, :, None] * x[:, None])


@pytest.mark.parametrize("name", TOYS)
def test_the_model_and_loss_are_those_of_the_definition(name: str) -> None:
    toy = TOYS[name]
    data = toy.sample(5, seed=0)
    truth, written = oracles.dense(toy.model(), toy.loss_fn, data), analytic(toy, data)
    torch.testing.assert_close(truth.losses, written.losses)
    torch.testing.assert_close(truth.gradients, written.gradients)
    torch.testing.assert_close(truth.hessians, written.hessians)


def test_isotropic_regression_without_label_noise_has_noise_scale_d_plus_one() -> None:
    truth = gn.toy.LinearRegression(torch.ones(7), torch.randn(7), noise=0.0).truth()
    assert truth.noise_scale == pytest.approx(8)
    assert truth.simple_noise_scale == pytest.approx(8)


def test_where_the_gradient_vanishes_the_noise_scales_are_infinite() -> None:
    truth = gn.toy.NoisyQuadratic(torch.eye(2), torch.zeros(2)).truth()
    assert truth.noise_scale == truth.simple_noise_scale == math.inf


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: gn.toy.NoisyQuadratic(torch.eye(2), torch.ones(3)), r"`hessian` must be symm"),
        (
            lambda: gn.toy.NoisyQuadratic(torch.eye(2), torch.ones(2), torch.ones(1, 2)),
            r"`centre_cov` must be symmetric of shape \(2, 2\)",
        ),
        (
            lambda: gn.toy.NoisyQuadratic(torch.tensor([[1.0, 2], [0, 1]]), torch.ones(2)),
            r"`hessian` must be symmetric",
        ),
        (lambda: gn.toy.LinearRegression(torch.ones(2), torch.ones(3)), r"vectors of one length"),
        (lambda: gn.toy.LinearRegression(torch.zeros(2), torch.ones(2)), r"must be positive"),
        (lambda: gn.toy.LinearRegression(torch.ones(2), torch.ones(2), -1), r"not negative"),
    ],
)
def test_problems_that_do_not_exist_are_refused(build: Any, message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        build()
