"""What every analytic problem is held to: enumerated populations, and samples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import oracles


def grid(kurtosis: int, size: int) -> Tensor:
    """Points whose mean, variance and fourth moment per coordinate are 0, 1 and `kurtosis`.

    ±√κ once each among 2κ values: the third moment is 0, and independent coordinates multiply, so
    an average over the grid is the expectation of every polynomial up to fourth degree.
    """
    values = [kurtosis**0.5, -(kurtosis**0.5)] + [0.0] * (2 * kurtosis - 2)
    points = torch.tensor(list(itertools.product(values, repeat=size)), dtype=torch.float64)
    assert torch.allclose(points.var(0, correction=0), torch.ones(size).double())
    return points


def measured(dense: oracles.Dense, correction: int = 0) -> dict[str, float]:
    """Everything that a `Truth` holds, of a population written out; correction 1 for 1/(N - 1)."""
    g, h = dense.gradients.mean(0), dense.hessian
    cov = torch.cov(dense.gradients.T, correction=correction).reshape(len(g), len(g))
    values, vectors = torch.linalg.eigh(h)
    curvatures = dense.hessians @ vectors[:, -1] @ vectors[:, -1]
    parts = {
        "loss": dense.losses.mean(),
        "grad_sq_norm": g @ g,
        "trace_cov": cov.trace(),
        "simple_noise_scale": cov.trace() / (g @ g),
        "sharpness": values[-1],
        "grad_curvature": g @ h @ g,
        "trace_hessian_cov": (h @ cov).trace(),
        "noise_scale": (h @ cov).trace() / (g @ h @ g),
        "curvature_noise_scale": curvatures.var(correction=correction) / values[-1] ** 2,
    }
    return {name: float(value) for name, value in parts.items()}


def assert_truth(toy: Any, population: Any, correction: int = 0) -> None:
    """The exact answers are the averages over a population with the same moments."""
    dense, truth = oracles.dense(toy.model(), toy.loss_fn, population), toy.truth()
    for part, value in measured(dense, correction).items():
        assert getattr(truth, part) == pytest.approx(value, rel=1e-11, abs=1e-13), part


def assert_dynamics(toy: Any, population: Any, offset: Tensor, correction: int = 0) -> None:
    """H and Σ(δ) of the dynamics are those of the population at w* + δ, where the toy stands."""
    dense, moves = oracles.dense(toy.model(), toy.loss_fn, population), toy.dynamics()
    cov = torch.cov(dense.gradients.T, correction=correction).reshape(dense.hessian.shape)
    point = torch.cat([offset.double(), torch.ones(1).double()])
    torch.testing.assert_close(moves.hessian, dense.hessian, rtol=1e-12, atol=1e-12)
    found = moves.gradient_cov(torch.outer(point, point))
    torch.testing.assert_close(found, cov, rtol=1e-11, atol=1e-12)


def assert_samples_show(
    toy: Any, hessian: Tensor, gradient: Tensor, written: Callable[[Any], oracles.Dense]
) -> None:
    """Means over 40 × 500 samples are the truth within 4 standard errors, for fixed seeds."""
    truth, groups = toy.truth(), 40
    v = torch.linalg.eigh(hessian)[1][:, -1]
    found: dict[str, list[float]] = {}
    for seed in range(groups):
        dense = written(toy.sample(500, seed))
        g, h, cov = dense.gradients.mean(0), dense.hessian, dense.covariance
        curvatures = dense.hessians @ v @ v
        for part, value in {
            "loss": dense.losses.mean(),
            "grad_sq_norm": 2 * g @ gradient - gradient @ gradient,  # linear, so without bias
            "trace_cov": cov.trace(),
            "sharpness": v @ h @ v,
            "grad_curvature": gradient @ h @ gradient,
            "trace_hessian_cov": (hessian @ cov).trace(),
            "curvature_noise_scale": curvatures.var() / truth.sharpness**2,
        }.items():
            found.setdefault(part, []).append(float(value))
    for part, values in found.items():
        sample = torch.tensor(values)
        error = 4 * sample.std() / math.sqrt(groups) + 1e-6
        assert abs(sample.mean() - getattr(truth, part)) <= error, part


def assert_defined(toy: Any, written: Callable[[Any], oracles.Dense]) -> None:
    """Losses, gradients and Hessians of the model are those of the definition."""
    data = toy.sample(5, seed=0)
    truth, expected = oracles.dense(toy.model(), toy.loss_fn, data), written(data)
    torch.testing.assert_close(truth.losses, expected.losses)
    torch.testing.assert_close(truth.gradients, expected.gradients)
    torch.testing.assert_close(truth.hessians, expected.hessians)


def standard_scores(values: Tensor, expected: Any) -> Tensor:
    """|mean - expected|/s.e. of every column."""
    return (values.mean(0) - expected).abs() / (values.std(0) / math.sqrt(len(values)))
