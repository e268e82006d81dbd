"""λ, the largest eigenvalue of the Hessian, and how much the samples disagree about it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from ..algebra import Eigenpairs, lanczos
from ..directional import forms
from ..errors import ArgumentError
from ..estimate import Estimate, Status, flag_zero, quantile
from ..losses import LossFn
from ..moments import GradientMoments
from ..operators import MEMORY_BUDGET, GaussNewton, Hessian, Operator
from ..probes import generator, random_vector
from ..problem import Problem
from ..samples import MICRO_BATCH
from ..trees import widen


def sharpness(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    *,
    k: int = 1,
    which: str = "LA",
    tol: float = 1e-3,
    operator: str = "hessian",
    hvp: str = "auto",
    v0: Tensor | None = None,
    max_samples: int | None = 4096,
    max_iterations: int | None = None,
    seed: int = 0,
    micro_batch: int = MICRO_BATCH,
    memory_budget: int = MEMORY_BUDGET,
) -> Eigenpairs:
    """Eigenpairs of the Hessian of the mean loss; by default λ, the largest algebraic eigenvalue.

    Never the largest magnitude unless asked for: 2/λ is a learning rate only when λ is the most
    positive curvature. Of a sub-sampled Hessian λ is biased upwards; `gn.profile` gives its
    interval.

    Args:
        model, loss_fn, data: as for `gradient_moments`.
        k, which, tol, max_iterations, v0, seed: as for `lanczos`.
        operator: "hessian" or "gauss-newton".
        hvp: how products with the Hessian are taken, as for `Hessian`.
        max_samples: n at most; None measures all.
        micro_batch: samples evaluated at once.
        memory_budget: bytes of kept graphs, and of the basis of the iteration.

    Returns:
        Eigenpairs.

    Raises:
        GradNoiseError: see `Hessian`, `GaussNewton` and `lanczos`.

    Example:
        >>> import torch
        >>> model = nn.Linear(2, 1, bias=False)
        >>> data = (torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1))
        >>> sharpness(model, nn.MSELoss(), data).values  # H = 2 XᵀX/n = diag(1, 4)
        tensor([4.0...], dtype=torch.float64)
    """
    if operator not in _MATRICES:
        raise ArgumentError(f"`operator` must be one of {', '.join(_MATRICES)}; got {operator!r}")
    problem = Problem.open(
        model, loss_fn, data, max_samples=max_samples, seed=seed, micro_batch=micro_batch
    )
    matrix = _MATRICES[operator](problem, hvp, memory_budget)
    with problem.guard():
        return lanczos(
            matrix,
            k=k,
            which=which,
            tol=tol,
            v0=v0,
            max_iterations=max_iterations,
            seed=seed,
            memory_budget=memory_budget,
        )


_MATRICES: dict[str, Callable[[Problem, str, int], Operator]] = {
    "hessian": lambda problem, hvp, budget: Hessian.of(problem, hvp=hvp, memory_budget=budget),
    "gauss-newton": lambda problem, hvp, budget: _gauss_newton(problem, hvp, budget),
}


def _gauss_newton(problem: Problem, hvp: str, budget: int) -> Operator:
    if hvp not in ("auto", "kept", "fresh"):
        raise ArgumentError(f"the Gauss-Newton matrix knows no `hvp` {hvp!r}: auto, kept or fresh")
    matrix: Operator = GaussNewton.of(problem, memory_budget=0 if hvp == "fresh" else budget)
    return matrix


def sample_curvatures(problem: Problem, vector: Tensor) -> Tensor:
    """vᵀH_iv of every sample, shape (n,)."""
    return forms(problem, vector, [vector]).values[:, 0]


@dataclass(frozen=True)
class Halves:
    """λ seen by two random halves of the samples.

    Args:
        own: mean of each half's own λ, biased upwards twice as much as that of the whole.
        held_out: mean of vᵀHv with v from one half and H of the other, biased downwards.
        matvecs, converged: products spent on both, and whether both converged.
    """

    own: float
    held_out: float
    matvecs: int = 0
    converged: bool = True


def half_sharpness(problem: Problem, vector: Tensor, tol: float, seed: int) -> Halves:
    """λ of both halves; `vector` is near their eigenvectors and serves as a start."""
    halves = [replace(problem, samples=half) for half in problem.samples.halves(seed)]
    hessians = [Hessian.of(half, hvp="kept") for half in halves]
    # half random, because a half may have this vector as an eigenvector, and another at its top
    start = vector + random_vector(len(vector), generator(seed + 1), vector.device)
    found = [lanczos(hessian, v0=start, tol=tol, seed=seed) for hessian in hessians]
    tops = [pairs.vectors[:, 0] for pairs in found]
    held_out = [
        float(widen(v) @ widen(h @ v)) for v, h in zip(tops, reversed(hessians), strict=True)
    ]
    return Halves(
        own=sum(float(pairs.values[0]) for pairs in found) / 2,
        held_out=sum(held_out) / 2,
        matvecs=sum(pairs.matvecs for pairs in found),
        converged=all(pairs.converged for pairs in found),
    )


def sharpness_estimate(
    pairs: Eigenpairs, curvatures: Tensor, halves: Halves | None, moments: GradientMoments
) -> Estimate:
    """λ of the population, with the residual of the iteration and its sampling error.

    λ of a part is biased upwards. Where it stands clear of the next eigenvalue the bias is
    proportional to 1/n - 1/N, which is 2/n - 1/N on halves, so that (1 - n/N)(λ_{n/2} - λ_n) can be
    taken off. Where it does not, that is too little; then only the bracket holds, from the
    held-out quotient below to λ of the part above. The interval is this bracket, widened by the
    standard error √((1/n - 1/N) Var_i(vᵀH_iv)) of first-order perturbation.

    Args:
        pairs: the largest eigenpair on all samples.
        curvatures: vᵀH_iv, shape (n,).
        halves: of the same samples; None when the whole population was measured.
        moments: of the same samples, for n, N and the level.
    """
    n, factor = moments.count, moments.sampling_factor
    raw, residual = float(pairs.values[0]), float(pairs.residuals[0])
    value = below = raw
    if halves is not None:
        below = min(halves.held_out, raw)
        value = min(max(raw - n * factor * (halves.own - raw), below), raw)
    stderr = math.sqrt(factor * float(curvatures.var()))
    reach = quantile(moments.level, n - 1) * stderr
    high = raw + residual + reach
    estimate = Estimate(value, below - reach, high, moments.level, stderr, n)
    if not (pairs.converged and (halves is None or halves.converged)):
        return replace(estimate, status=Status.NOT_CONVERGED)
    return flag_zero(estimate)


def curvature_noise_scale(curvatures: Tensor, moments: GradientMoments) -> Estimate:
    """B_curv = Var_i(vᵀH_iv)/λ²: how much the samples disagree about the sharpest direction.

    Not positive λ: undefined, no bowl. Interval by the influence of each sample on both moments.
    """
    n, level = len(curvatures), moments.level
    top = float(curvatures.mean())
    if top <= 0:
        status = Status.NEGATIVE_CURVATURE if top < 0 else Status.SIGNAL_BELOW_NOISE
        return Estimate(math.nan, -math.inf, math.inf, level, math.nan, n, status)
    gaps = curvatures - top
    spread = float(gaps.square().sum()) / (n - 1)
    influence = (gaps.square() - spread) / top**2 - 2 * spread * gaps / top**3
    stderr = math.sqrt(moments.sampling_factor * float(influence.var()))
    value, reach = spread / top**2, quantile(level, n - 1) * stderr
    return Estimate(value, max(value - reach, 0.0), value + reach, level, stderr, n)
