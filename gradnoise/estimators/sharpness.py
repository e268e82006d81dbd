"""λ, the largest eigenvalue of the Hessian, and how much the samples disagree about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from ..algebra import Eigenpairs, lanczos
from ..directional import forms
from ..estimate import Estimate, Status, flag_zero, quantile, symmetric
from ..moments import GradientMoments
from ..operators import Hessian
from ..probes import generator, random_vector
from ..problem import Problem
from ..trees import widen


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


def sampling_error(curvatures: Tensor, factor: float) -> float:
    """√((1/n - 1/N) Var_i(vᵀH_iv)), the standard error of an eigenvalue to first order."""
    return math.sqrt(factor * float(curvatures.var())) if factor else 0.0


def sharpness_estimate(
    pairs: Eigenpairs,
    stderr: float,
    halves: Halves | None,
    factor: float,
    level: float,
    samples: int,
) -> Estimate:
    """An eigenvalue of the population, with the residual of the iteration and its sampling error.

    λ of a part is biased upwards. Where it stands clear of the next eigenvalue the bias is
    proportional to 1/n - 1/N, which is 2/n - 1/N on halves, so that (1 - n/N)(λ_{n/2} - λ_n) can be
    taken off. Where it does not, that is too little; then only the bracket holds, from the
    held-out quotient below to λ of the part above. The interval is this bracket, widened by the
    standard error of first-order perturbation.

    Args:
        pairs: on all samples; the first is meant.
        stderr: of its value; nan if unknown.
        halves: of the same samples; None where the population was measured, or for an eigenvalue
            that is not the largest.
        factor: 1/n - 1/N.
        level: of the interval.
        samples: n.
    """
    raw, residual = float(pairs.values[0]), float(pairs.residuals[0])
    if math.isnan(stderr):
        return symmetric(raw, math.nan, level=level, samples=samples)
    value = below = raw
    if halves is not None:
        below = min(halves.held_out, raw)
        value = min(max(raw - samples * factor * (halves.own - raw), below), raw)
    reach = quantile(level, samples - 1) * stderr if stderr else 0.0
    high = raw + residual + reach
    low = below - reach if halves is not None or not factor else raw - residual - reach
    estimate = Estimate(value, low, high, level, stderr, samples)
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
