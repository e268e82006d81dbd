"""λ, the largest eigenvalue of the Hessian, and how much the samples disagree about it."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from ..directional import forms
from ..estimate import Estimate, Status, quantile
from ..lanczos import Eigenpairs, lanczos
from ..losses import LossFn
from ..operators import Hessian
from ..problem import Problem


def sharpness(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    *,
    k: int = 1,
    which: str = "LA",
    tol: float = 1e-3,
    v0: Tensor | None = None,
    max_samples: int | None = 4096,
    max_iterations: int | None = None,
    seed: int = 0,
) -> Eigenpairs:
    """Eigenpairs of the Hessian of the mean loss; by default λ, the largest algebraic eigenvalue.

    Never the largest magnitude unless asked for: 2/λ is a learning rate only when λ is the most
    positive curvature. Of a sub-sampled Hessian λ is biased upwards; `gn.profile` gives its
    interval.

    Args:
        model, loss_fn, data: as for `gradient_moments`.
        k, which, tol, max_iterations, v0, seed: as for `lanczos`.
        max_samples: n at most; None measures all.

    Returns:
        Eigenpairs.

    Raises:
        GradNoiseError: see `Hessian` and `lanczos`.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> data = (torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1))
        >>> sharpness(model, nn.MSELoss(), data).values  # H = 2 XᵀX/n = diag(1, 4)
        tensor([4.0...], dtype=torch.float64)
    """
    hessian = Hessian(model, loss_fn, data, max_samples=max_samples, seed=seed)
    return lanczos(
        hessian, k=k, which=which, tol=tol, v0=v0, max_iterations=max_iterations, seed=seed
    )


def sample_curvatures(problem: Problem, vector: Tensor) -> Tensor:
    """vᵀH_iv of every sample, shape (n,)."""
    return forms(problem, vector, [vector]).values[:, 0]


def sharpness_estimate(
    pairs: Eigenpairs, curvatures: Tensor, sampling_factor: float, level: float
) -> Estimate:
    """λ with the residual of the iteration and, for a part of the population, its sampling error.

    Var(λ) = (1/n - 1/N) Var_i(vᵀH_iv), by first-order perturbation.
    """
    value, residual = float(pairs.values[0]), float(pairs.residuals[0])
    stderr = math.sqrt(sampling_factor * float(curvatures.var()))
    reach = quantile(level, len(curvatures) - 1) * stderr
    return Estimate(
        value,
        value - reach,
        value + residual + reach,
        level,
        stderr,
        len(curvatures),
        Status.RESOLVED if pairs.converged else Status.NOT_CONVERGED,
    )


def curvature_noise_scale(curvatures: Tensor, sampling_factor: float, level: float) -> Estimate:
    """B_curv = Var_i(vᵀH_iv)/λ²: how much the samples disagree about the sharpest direction.

    Not positive λ: undefined, no bowl. Interval by the influence of each sample on both moments.
    """
    n = len(curvatures)
    top = float(curvatures.mean())
    if top <= 0:
        bounds = (math.nan, -math.inf, math.inf)
        return Estimate(*bounds, level, math.nan, n, Status.NEGATIVE_CURVATURE)
    gaps = curvatures - top
    spread = float(gaps.square().sum()) / (n - 1)
    influence = (gaps.square() - spread) / top**2 - 2 * spread * gaps / top**3
    stderr = math.sqrt(sampling_factor * float(influence.var()))
    value, reach = spread / top**2, quantile(level, n - 1) * stderr
    return Estimate(value, max(value - reach, 0.0), value + reach, level, stderr, n)
