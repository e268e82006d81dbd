"""λ, the largest eigenvalue of the Hessian, and how much the samples disagree about it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ..directional import forms
from ..estimate import Estimate, Status, quantile
from ..lanczos import Eigenpairs, lanczos
from ..losses import LossFn
from ..moments import GradientMoments
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


def half_sample_sharpness(problem: Problem, v0: Tensor, tol: float, seed: int) -> float:
    """Mean of λ over two random halves of the samples, for the bias of λ on all of them."""
    halves = (replace(problem, samples=half) for half in problem.samples.halves(seed))
    values = [lanczos(Hessian.of(half), v0=v0, tol=tol, seed=seed).values[0] for half in halves]
    return float(sum(values)) / len(values)


def sharpness_estimate(
    pairs: Eigenpairs, curvatures: Tensor, half: float, moments: GradientMoments
) -> Estimate:
    """λ of the population, with the residual of the iteration and its sampling error.

    The largest eigenvalue of a part is biased upwards, in proportion to 1/n - 1/N at second order
    of perturbation theory. On halves of the samples the factor is 2/n - 1/N, so the bias of λ_n is
    (1 - n/N)(λ_{n/2} - λ_n), and is taken off. To first order the halves say the same as the
    whole, so that Var(λ) = (1/n - 1/N) Var_i(vᵀH_iv) as without the correction.

    Args:
        pairs: the largest eigenpair on all samples.
        curvatures: vᵀH_iv, shape (n,).
        half: λ_{n/2}, the mean over two halves; not read when n = N.
        moments: of the same samples, for n, N and the level.
    """
    n, factor = moments.count, moments.sampling_factor
    raw, residual = float(pairs.values[0]), float(pairs.residuals[0])
    value = raw - n * factor * (half - raw) if factor else raw
    stderr = math.sqrt(factor * float(curvatures.var()))
    reach = quantile(moments.level, n - 1) * stderr
    status = Status.RESOLVED if pairs.converged else Status.NOT_CONVERGED
    high = value + residual + reach
    return Estimate(value, value - reach, high, moments.level, stderr, n, status)


def curvature_noise_scale(curvatures: Tensor, moments: GradientMoments) -> Estimate:
    """B_curv = Var_i(vᵀH_iv)/λ²: how much the samples disagree about the sharpest direction.

    Not positive λ: undefined, no bowl. Interval by the influence of each sample on both moments.
    """
    n, level = len(curvatures), moments.level
    top = float(curvatures.mean())
    if top <= 0:
        bounds = (math.nan, -math.inf, math.inf)
        return Estimate(*bounds, level, math.nan, n, Status.NEGATIVE_CURVATURE)
    gaps = curvatures - top
    spread = float(gaps.square().sum()) / (n - 1)
    influence = (gaps.square() - spread) / top**2 - 2 * spread * gaps / top**3
    stderr = math.sqrt(moments.sampling_factor * float(influence.var()))
    value, reach = spread / top**2, quantile(level, n - 1) * stderr
    return Estimate(value, max(value - reach, 0.0), value + reach, level, stderr, n)
