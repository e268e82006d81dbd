"""Errors of tr(HΣ) and GᵀHG together: of the probes, and of the samples by their influences."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...moments.moments import GradientMoments
from ...operators.hessian import Hessian
from ...problem.sums import weighted_sum
from ...statistics.skew import Skew
from ...tensors.random import is_complete
from ...tensors.trees import widen
from .sign_probes import Probed, agree, mean_variance


def are_all(probes: int, moments: GradientMoments) -> bool:
    """Whether so many probes are a list of all sign vectors; see `sign_probes`."""
    return moments.spread_factor == 0 and is_complete(probes, moments.count)


def probe_variance(probed: Probed, moments: GradientMoments) -> float:
    """Variance of the estimate of tr(HΣ) that comes from the choice of signs."""
    from_third = moments.sampling_factor**2 * mean_variance(probed.third)
    if are_all(len(probed.traces), moments):
        return from_third
    own = mean_variance(probed.traces)
    if moments.is_noiseless:
        return 0.0
    if agree(probed.traces) and bool(probed.lengths.any()):
        # few probes that happen to agree prove nothing, unless Hu = 0 for every one of them
        return math.nan
    return own + from_third


def sampling_covariance(
    probed: Probed, curvature: Tensor, moments: GradientMoments
) -> tuple[float, float, float]:
    """Sampling variances of tr(HΣ) and GᵀHG and their covariance, from influences.

    The influences on the trace carry the noise of their few probes; its part is taken out. With
    no signal at all, what is left of GᵀHG is the variance of a product of two noises.
    """
    trace, factor = probed.influences, moments.spread_factor
    if factor == 0:
        return 0.0, 0.0, 0.0
    if len(curvature) < 3:  # two samples are equally far from their mean
        return math.nan, math.nan, math.nan
    noise = float(trace.var(0).mean()) / len(trace) if len(trace) > 1 else 0.0
    matrix = torch.cov(torch.stack([trace.mean(0), curvature])) * factor
    weakest = 2 * float(probed.squares.mean()) if len(probed.squares) else 0.0
    return (
        max(float(matrix[0, 0]) - factor * noise, factor**2 * weakest),
        max(float(matrix[1, 1]), moments.sampling_factor**2 * weakest),
        float(matrix[0, 1]),
    )


def joint_skew(probed: Probed, curvature: Tensor, moments: GradientMoments) -> Skew:
    """Skewness of (tr(HΣ), GᵀHG): from sampling, and from the choice of signs."""
    n, probes = moments.count, len(probed.traces)
    found = Skew.from_moment(torch.zeros(2, 2, 2, dtype=torch.float64), max(n, 1))
    if probes > 2 and not are_all(probes, moments):
        found += Skew.of(torch.stack([probed.traces, -moments.sampling_factor * probed.traces]))
    if moments.spread_factor and n > 2:
        moment = third_moment(probed.influences, curvature - curvature.mean())
        scale = n / ((n - 1) * (n - 2))
        found += Skew.from_moment(moment * scale, n, moments.spread_population)
    return found


def quadratic_part(hessian: Hessian, curvature: Tensor, trace: float) -> Tensor:
    """2 uᵀHu with u = Cov(η, g), less its noise: GᵀHG is quadratic in the samples, by c_iᵀHc_j."""
    direction = widen(weighted_sum(hessian.problem, curvature - curvature.mean())) / (
        len(curvature) - 1
    )
    found = torch.zeros(2, 2, 2, dtype=torch.float64)
    noise = float(curvature.var()) * trace / len(curvature)
    # of four gradients and H: float32 has no room for it
    (size,) = hessian.problem.objective.binary_sizes([direction])
    image = size * widen(hessian @ (direction / size))
    found[1, 1, 1] = 2 * (hessian.space.inner(direction, image) - noise)
    return found


def third_moment(rows: Tensor, other: Tensor) -> Tensor:
    """Σ_i of products of three influences, shape (2, 2, 2).

    Products of different probes' rows (K', n) alone, whose noise is independent; of fewer than
    three probes their mean serves.
    """
    rows = rows if len(rows) > 2 else rows.mean(0).expand(3, -1)
    k, first, second, third = len(rows), rows.sum(0), rows.square().sum(0), (rows**3).sum(0)
    triples = (first**3 - 3 * first * second + 2 * third) / (k * (k - 1) * (k - 2))
    pairs = (first.square() - second) / (k * (k - 1))
    aaa, aab = triples.sum(), pairs @ other
    abb, bbb = (first / k) @ other.square(), (other**3).sum()
    return torch.stack([aaa, aab, aab, abb, aab, abb, abb, bbb]).reshape(2, 2, 2).cpu().double()
