"""Errors of tr(HΣ) and GᵀHG together: from random signs, and from sampling by influences."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...moments.moments import GradientMoments
from ...operators.hessian import Hessian
from ...problem.directional import weighted_sum
from ...statistics.skew import Skew
from ...tensors.random import is_complete
from ...tensors.trees import widen
from .sign_probes import Probed, agree, mean_variance


def are_all(probes: int, moments: GradientMoments) -> bool:
    """Whether so many probes are all sign vectors; see `sign_probes`."""
    return moments.sampling_factor == 0 and is_complete(probes, moments.count)


def probe_variance(probed: Probed, moments: GradientMoments) -> float:
    """Variance of the estimate of tr(HΣ) that comes from the choice of signs."""
    from_third = moments.sampling_factor**2 * mean_variance(probed.third)
    if are_all(len(probed.traces), moments):
        return from_third
    from_traces = mean_variance(probed.traces)
    if agree(probed.traces) and bool(probed.lengths.any()):
        # a few probes can be equal by chance; their variance is known only if Hu = 0 for all
        return math.nan
    return from_traces + from_third


def sampling_covariance(
    probed: Probed, curvature: Tensor, factor: float
) -> tuple[float, float, float]:
    """Sampling variances of tr(HΣ) and GᵀHG and their covariance, from influences.

    The influences on the trace contain the noise of their few probes, whose variance is subtracted.
    Without signal the variance of GᵀHG is that of a product of two noises, 2φ²tr((HΣ)²).
    """
    trace = probed.influences
    if factor == 0:
        return 0.0, 0.0, 0.0
    if len(curvature) < 3:  # of two samples both influences are equal in size
        return math.nan, math.nan, math.nan
    noise = float(trace.var(0).mean()) / len(trace) if len(trace) > 1 else 0.0
    matrix = torch.cov(torch.stack([trace.mean(0), curvature])) * factor
    weakest = 2 * factor**2 * float(probed.squares.mean()) if len(probed.squares) else 0.0
    return (
        max(float(matrix[0, 0]) - factor * noise, weakest),
        max(float(matrix[1, 1]), weakest),
        float(matrix[0, 1]),
    )


def joint_skew(probed: Probed, curvature: Tensor, moments: GradientMoments) -> Skew:
    """Skewness of (tr(HΣ), GᵀHG): from sampling, and from the choice of signs."""
    n, probes, factor = moments.count, len(probed.traces), moments.sampling_factor
    found = Skew.from_moment(torch.zeros(2, 2, 2, dtype=torch.float64), max(n, 1))
    if probes > 2 and not are_all(probes, moments):
        found += Skew.of(torch.stack([probed.traces, -factor * probed.traces]))
    if factor and n > 2:
        moment = third_moment(probed.influences, curvature - curvature.mean())
        scale = n / ((n - 1) * (n - 2))
        found += Skew.from_moment(moment.cpu() * scale, n, moments.population)
    return found


def quadratic_skew(hessian: Hessian, curvature: Tensor, trace: float) -> Tensor:
    """E[η₁η₂D₁₂] = 2 uᵀHu less its noise, u = Cov(η, g), since D = 2 c_iᵀHc_j for GᵀHG; see `Skew`.

    Args:
        hessian: H.
        curvature: η, the influence of every sample on GᵀHG, shape (n,).
        trace: tr(HΣ).
    """
    influence = curvature - curvature.mean()
    covariance = widen(weighted_sum(hessian.problem, influence)) / (len(curvature) - 1)
    found = torch.zeros(2, 2, 2, dtype=torch.float64)
    noise = float(curvature.var()) * trace / len(curvature)
    found[1, 1, 1] = 2 * (float(covariance @ widen(hessian @ covariance)) - noise)
    return found


def third_moment(rows: Tensor, other: Tensor) -> Tensor:
    """Σ_i of products of three influences, shape (2, 2, 2).

    Args:
        rows: influences on tr(HΣ) by probe, shape (K', n). Only products of different probes are
            taken, whose noises are independent; with fewer than three probes, their mean is used.
        other: influences on GᵀHG, shape (n,).
    """
    rows = rows if len(rows) > 2 else rows.mean(0).expand(3, -1)
    k, first, second, third = len(rows), rows.sum(0), rows.square().sum(0), (rows**3).sum(0)
    triples = (first**3 - 3 * first * second + 2 * third) / (k * (k - 1) * (k - 2))
    pairs = (first.square() - second) / (k * (k - 1))
    aaa, aab = triples.sum(), pairs @ other
    abb, bbb = (first / k) @ other.square(), (other**3).sum()
    return torch.stack([aaa, aab, aab, abb, aab, abb, abb, bbb]).reshape(2, 2, 2).double()
