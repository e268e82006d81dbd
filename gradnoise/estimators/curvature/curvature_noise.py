"""B_curv = Var_i(vᵀH_iv)/λ², the noise scale of the curvature along the sharpest direction v.

v is found on the same samples, and its error moves Var_i(vᵀH_iv) in two ways.

Noise, of first order: one sample more turns v by (λ - H)⁺(H_j - H)v/n. So sample j has the further
influence 4bᵀH_jv on the variance, with b = (λ - H)⁺a and a = Cov_i(vᵀH_iv, H_iv). (λ - H)⁺ is known
in the Krylov space from which λ comes: 1/(λ - θ) for Ritz vectors with value θ, about 1/λ for what
is left.

Lanczos stops at a residual r, so that v is (λ - H)⁺r from the eigenvector, at most |r| over the gap
to the next eigenvalue: θ. That moves Var_i(vᵀH_iv) by 4·Cov_i(vᵀH_iv, uᵀH_iv)·θ with a unit vector
u, a share of at most 4θ where samples disagree along u no more than along v.

Bias, of second order, proportional to 1/n - 1/N: upwards, since a turned v adds variance. Halves of
the samples with directions of their own have 2/n - 1/N, which tells how much to take away: where
theirs is larger by a share δ, a factor exp(-(1 - n/N)δ), to first order 1 - (1 - n/N)δ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...linalg.deflation import Deflation
from ...linalg.iteration import Eigenpairs
from ...moments.moments import GradientMoments
from ...problem.directional import per_sample_curvatures, weighted_product
from ...problem.problem import Problem
from ...problem.samples import Samples
from ...problem.shares import ratio_influence
from ...statistics.estimate import Estimate, Status
from ...statistics.interval import symmetric
from ...tensors.trees import widen
from .extreme_eigenvalue import Halves, sample_curvatures

ROUNDING = 1e-5  # a smaller share is that of products in float32
AGREEMENT = 16.0  # relative difference of equal curvatures, in units of their rounding


@dataclass(frozen=True, eq=False)
class Turning:
    """What the error of v does to Var_i(vᵀH_iv).

    Args:
        influences: 4bᵀH_jv of every sample, shape (n,).
        kept: the share of B_curv that is left without its bias.
    """

    influences: Tensor
    kept: float


def turning(
    problem: Problem,
    vector: Tensor,
    curvatures: Tensor,
    deflation: Deflation,
    halves: Halves,
    sides: tuple[Samples, Samples],
    whole: Samples,
) -> Turning | None:
    """How the direction v depends on the samples; None where λ is not positive, or all agree on it.

    Args:
        problem: the samples whose own curvature is measured.
        vector, curvatures: v, shape (P,), and vᵀH_iv, shape (m,).
        deflation: of the Krylov space in which v was found.
        halves: with their own directions.
        sides: those of the samples that are in either half.
        whole: the samples on which v was found, a part of their population.
    """
    n, factor = len(curvatures), whole.sampling_factor
    top, spread = float(curvatures.mean()), float(curvatures.var())
    if not top > 0 or not spread > 0:
        return None
    weights = (curvatures - top) / ((n - 1) * math.sqrt(spread))
    along = widen(weighted_product(problem, vector, weights))
    error = math.sqrt(factor * spread)
    other = deflation.resolvent(along, widen(vector), top, error)
    turned = per_sample_curvatures(problem, vector, [other.to(vector)]).values[:, 0]
    scale = 4 * math.sqrt(spread * n / whole.count)  # v has an error of all of the samples
    kept = _kept(problem, curvatures, halves, sides, whole)
    return Turning(scale * (turned - turned.mean()), kept)


def _kept(
    problem: Problem,
    curvatures: Tensor,
    halves: Halves,
    sides: tuple[Samples, Samples],
    whole: Samples,
) -> float:
    assert halves.vectors is not None
    before = _noise_scale(curvatures, problem.samples.sampling_factor)
    parts = [
        _noise_scale(sample_curvatures(replace(problem, samples=side), own), side.sampling_factor)
        for side, own in zip(sides, halves.vectors, strict=True)
    ]
    excess = sum(parts) / 2 / before - 1 if before > 0 else math.nan
    if not excess > 0:  # none, or λ of a half is not clearly positive
        return 1.0
    return math.exp(-whole.count * whole.sampling_factor * excess)


def _noise_scale(curvatures: Tensor, factor: float) -> float:
    """Var_i/λ² with the noise of λ² taken away; nan where nothing is left, and of one sample."""
    if len(curvatures) < 2:
        return math.nan
    spread = float(curvatures.var())
    square = float(curvatures.mean()) ** 2 - factor * spread
    return spread / square if square > 0 else math.nan


def direction_error(pairs: Eigenpairs, deflation: Deflation) -> float:
    """θ: how far v may be from the eigenvector, |r| over the gap, from 0 to 1."""
    values = deflation.kernel.diagonal()[:-1].sort(descending=True).values
    residual, top = float(pairs.residuals[0]), float(pairs.values[0])
    gap = float(values[0] - values[1]) if len(values) > 1 else top
    return min(1.0, residual / gap) if gap > 0 else 1.0


def curvature_noise_scale(
    curvatures: Tensor,
    moments: GradientMoments,
    turned: Turning | None = None,
    direction: float = 0.0,
) -> Estimate:
    """B_curv in samples.

    It is B_simple of the numbers vᵀH_iv in place of gradients, with the same interval: Fieller's,
    corrected for skewness, unbounded where λ is not distinguishable from zero. Undefined where λ is
    not positive. Exactly 0 where all samples agree except for rounding, as for a quadratic loss.

    Args:
        curvatures: vᵀH_iv, shape (n,).
        moments: of the same samples, for N and the level.
        turned: what the error of v from the choice of samples does; None to leave it out.
        direction: θ, how far v may be from the eigenvector.
    """
    n, level, top = len(curvatures), moments.level, float(curvatures.mean())
    if top <= 0:
        status = Status.NEGATIVE_CURVATURE if top < 0 else Status.SIGNAL_BELOW_NOISE
        return Estimate(math.nan, -math.inf, math.inf, level, math.nan, n, status)
    gaps = curvatures - top
    if float(gaps.abs().max()) <= AGREEMENT * moments.resolution * top:
        return symmetric(0.0, 0.0, level=level, samples=n)  # samples of one curvature
    curvatures, gaps = curvatures / top, gaps / top  # the ratio has no unit: nothing overflows
    spread = float(gaps.square().sum())
    distances = gaps.square() if turned is None else gaps.square() + turned.influences / top**2
    alone = GradientMoments(
        mean={"v": curvatures.mean()},
        centred_sq={"v": spread if turned is None else spread * turned.kept},
        losses=curvatures,
        sq_norms=curvatures.square(),
        population=moments.population,
        is_partition=moments.is_partition,
        resolution=moments.resolution,
        level=level,
        slopes=curvatures,
        gap_sq_norms=distances,
        trace_cov_sq=(spread / (n - 1)) ** 2,
    )
    if moments.shares is not None:
        along = ((moments.shares - 1).to(gaps) * gaps).mean() * gaps
        more = ratio_influence(spread / n, along, moments.shares)
        alone = replace(alone, ratio_influence={"v": more})
    covariances = alone.deviations()[1:] @ gaps / (n - 1)
    found = replace(
        alone, influence_products=torch.outer(covariances, covariances)
    ).simple_noise_scale
    if 4 * direction < ROUNDING:
        return found
    low, high = found.low * max(0.0, 1 - 4 * direction), found.high * (1 + 4 * direction)
    return replace(found, low=low, high=high, stderr=math.nan)
