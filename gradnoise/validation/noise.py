"""Gradient noise and curvature of models: every number of a profile, and single quantities."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..estimators.covariance.covariance import covariance
from ..estimators.curvature.critical_lr import critical_lr
from ..estimators.curvature.sharpness import sharpness
from ..estimators.diagnostics.sign import sign_noise_scale
from ..estimators.noise.by_layer import layer_noise_scales
from ..measurement.gradient_moments import gradient_moments
from ..per_sample.public import per_sample_gradients
from ..profiles.profile import profile
from ..toy import (
    FiniteLeastSquares,
    FlippedLogistic,
    LinearRegression,
    NoisyQuadratic,
    NoisyQuadraticModel,
    RandomCurvature,
    SoftmaxRegression,
    Toy,
)
from .check import LEVEL, Check, exact, statistical

SAMPLES = 2000
PARTS = (
    *("loss", "grad_sq_norm", "trace_cov", "simple_noise_scale", "sharpness"),
    *("grad_curvature", "trace_hessian_cov", "noise_scale", "curvature_noise_scale"),
)
SPECTRUM = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2])
MEANS = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
REGRESSION = LinearRegression(SPECTRUM, torch.full((5,), 0.5), noise=0.5)
REGRESSION_NAME = "linear regression"
TOYS: dict[str, Toy] = {
    "noisy quadratic": NoisyQuadratic(torch.diag(torch.tensor([3.0, 1.0, 0.2])), torch.ones(3)),
    "noisy quadratic model": NoisyQuadraticModel(torch.ones(4)),
    REGRESSION_NAME: REGRESSION,
    "random curvature": RandomCurvature(2.0, 1.0),
    "softmax regression": SoftmaxRegression(MEANS, torch.tensor([1.0, 1.0, 0.5])),
    "flipped logistic": FlippedLogistic(0.3),
}


def profiles(seed: int) -> Iterator[Check]:
    """Everything that a profile measures, on samples from a distribution."""
    for name, toy in TOYS.items():
        truth = toy.truth()
        found = profile(
            toy.model(), toy.loss_fn, toy.sample(SAMPLES, seed), population="distribution",
            level=LEVEL, seed=seed,
        )  # fmt: skip
        for part in PARTS:
            yield statistical(name, part, getattr(truth, part), getattr(found, part))


def whole_population(seed: int) -> Iterator[Check]:
    """A finite population, all of it measured: every number is exact."""
    source, name = torch.Generator().manual_seed(seed), "finite least squares"
    inputs = torch.randn(40, 6, generator=source, dtype=torch.float64)
    targets = torch.randn(40, generator=source, dtype=torch.float64)
    toy = FiniteLeastSquares(inputs, targets, torch.ones(6))
    found = profile(toy.model(), toy.loss_fn, toy.sample(40, 0), level=LEVEL, seed=seed, tol=1e-9)
    truth = toy.truth()
    for part in PARTS:
        yield exact(name, part, getattr(truth, part), float(getattr(found, part)), 1e-5)
    model = toy.model()
    step = critical_lr(model, toy.loss_fn, toy.sample(40, 0), torch.optim.SGD(model.parameters()))
    limit = 2 * truth.grad_sq_norm / truth.grad_curvature
    yield exact(name, "critical rate of a step of SGD", limit, float(step))
    for batch in (1, 8):
        ratio = float(found.mean_square_lr(batch)) / toy.mean_square_lr(batch)
        quantity, holds = f"mean-square limit at B = {batch}, over exact", 1 - 1e-6 <= ratio <= 1.5
        yield Check(name, quantity, 1.0, ratio, math.nan, holds)


def single(seed: int) -> Iterator[Check]:
    """Calls for one quantity, on a linear regression."""
    toy, truth = REGRESSION, REGRESSION.truth()
    problem = toy.model(), toy.loss_fn, toy.sample(SAMPLES, seed)
    options: dict[str, Any] = {"population": "distribution", "level": LEVEL}
    check = partial(statistical, REGRESSION_NAME)
    moments = gradient_moments(*problem, intervals=True, **options)
    yield check("trΣ in one pass", truth.trace_cov, moments.trace_cov)
    pairs = sharpness(*problem, seed=seed, **options)
    yield check("λ by gn.sharpness", truth.sharpness, pairs.estimate)
    (layer,) = layer_noise_scales(*problem, seed=seed, **options).values()
    yield check("B_noise of the only layer", truth.noise_scale, layer.noise.hessian)
    noise, (gradient, cov) = covariance(*problem, k=2, seed=seed, **options), _moments(toy)
    trace_sq = float(cov.square().sum())
    yield check("trΣ by gn.covariance", truth.trace_cov, noise.trace)
    top = float(torch.linalg.eigvalsh(cov)[-1])
    yield check("largest eigenvalue of Σ", top, noise.top_eigenvalue)
    yield check("tr(Σ²)", trace_sq, noise.trace_sq)
    rank = float(cov.trace()) ** 2 / trace_sq
    yield check("participation ratio of Σ", rank, noise.participation_ratio)
    signs = sign_noise_scale(per_sample_gradients(*problem)["w"], level=LEVEL, seed=seed)
    spread = float(cov.diagonal().sqrt().sum() ** 2 / gradient.abs().sum() ** 2)
    yield check("noise scale of signs", spread, signs)


def _moments(toy: LinearRegression) -> tuple[Tensor, Tensor]:
    """G = Cδ and Σ = C(δᵀCδ + s²) + GGᵀ of a regression with Gaussian inputs."""
    c, gradient = toy.spectrum, toy.spectrum * toy.offset
    residual = float(toy.offset @ gradient) + toy.noise**2
    return gradient, torch.diag(c) * residual + torch.outer(gradient, gradient)
