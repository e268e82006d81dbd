"""λ, the largest eigenvalue of the Hessian, and how much the samples disagree about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..algebra import Eigenpairs, lanczos
from ..directional import forms
from ..estimate import Estimate, Status, flag_zero, symmetric
from ..moments import GradientMoments
from ..operators import Hessian
from ..probes import generator, random_vector
from ..problem import Problem
from ..samples import Samples
from ..skew import Skew, lopsided
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
    vector = widen(vector)
    other = random_vector(len(vector), generator(seed + 1), vector.device)
    start = vector + torch.where(vector @ other < 0, -other, other)  # of one parameter, never zero
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
    pairs: Eigenpairs,
    curvatures: Tensor | None,
    halves: Halves | None,
    samples: Samples,
    level: float,
) -> Estimate:
    """An eigenvalue of the population, with the residual of the iteration and its sampling error.

    λ of a part is biased upwards. Where it stands clear of the next eigenvalue the bias is
    proportional to 1/n - 1/N, which is 2/n - 1/N on halves, so that (1 - n/N)(λ_{n/2} - λ_n) can be
    taken off. Where it does not, that is too little; then only the bracket holds, from the
    held-out quotient below to λ of the part above. The interval is this bracket, widened by the
    error of first-order perturbation, of variance (1/n - 1/N) Var_i(vᵀH_iv), as in `lopsided`.

    Args:
        pairs: on all samples; the first is meant.
        curvatures: vᵀH_iv of its vector, shape (n,); None if not measured.
        halves: of the same samples; None where the population was measured, or for an eigenvalue
            that is not the largest.
        samples: n and N.
        level: of the interval.
    """
    raw, residual = float(pairs.values[0]), float(pairs.residuals[0])
    n, factor = samples.count, samples.sampling_factor
    if factor and curvatures is None:
        return symmetric(raw, math.nan, level=level, samples=n)
    value = below = raw
    if halves is not None:
        below = min(halves.held_out, raw)
        value = min(max(raw - n * factor * (halves.own - raw), below), raw)
    elif factor:
        below = raw - residual
    around = symmetric(0.0, 0.0, level=level, samples=n)
    if factor and curvatures is not None:
        around = lopsided(
            0.0,
            factor * float(curvatures.var()),
            Skew.of(curvatures[None], samples.population),
            level=level,
            samples=n,
            freedom=n - 1,
        )
    low, high = below + around.low, raw + residual + around.high
    estimate = Estimate(value, low, high, level, around.stderr, n)
    if not (pairs.converged and (halves is None or halves.converged)):
        return replace(estimate, status=Status.NOT_CONVERGED)
    return flag_zero(estimate)


def curvature_noise_scale(curvatures: Tensor, moments: GradientMoments) -> Estimate:
    """B_curv = Var_i(vᵀH_iv)/λ²: how much the samples disagree about the sharpest direction.

    It is B_simple of the numbers vᵀH_iv in place of gradients, and has its interval: Fieller's with
    skewness, open where λ is not distinguishable from zero. Not positive λ: undefined, no bowl.

    Args:
        curvatures: vᵀH_iv, shape (n,).
        moments: of the same samples, for N and the level.
    """
    n, level, top = len(curvatures), moments.level, float(curvatures.mean())
    if top <= 0:
        status = Status.NEGATIVE_CURVATURE if top < 0 else Status.SIGNAL_BELOW_NOISE
        return Estimate(math.nan, -math.inf, math.inf, level, math.nan, n, status)
    gaps = curvatures - top
    spread = float(gaps.square().sum())
    alone = GradientMoments(
        mean={"v": curvatures.mean()},
        centred_sq={"v": spread},
        losses=curvatures,
        sq_norms=curvatures.square(),
        population=moments.population,
        resolution=moments.resolution,
        level=level,
        slopes=curvatures * top,
        trace_cov_sq=(spread / (n - 1)) ** 2,
    )
    pulls = alone.deviations()[1:] @ gaps / (n - 1)
    return replace(alone, pulls=torch.outer(pulls, pulls)).simple_noise_scale
