"""Adaptive sampling tests: the smallest batch size whose gradient is accurate enough for a step.

Each test compares the noise of a batch gradient g_B with |G|² and is satisfied from a batch size on
that is a ratio of moments; samples of a batch are assumed to be drawn independently. The papers put
the gradient of one batch into both sides; here numerator and denominator are debiased, and a ratio
whose |G|² is not resolved has a bound and no value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...errors import ArgumentError
from ...moments.moments import GradientMoments
from ...statistics.estimate import Estimate, Status
from ...statistics.fourth_moments import LEAST, unbiased_squares
from ...statistics.transform import scaled, squared
from ..quotient import quotient
from .by_unit import counted_in_samples

THETA = 0.9  # as in the papers
NU = 5.84  # tan 80°


@counted_in_samples
def norm_test(moments: GradientMoments, *, theta: float = THETA) -> Estimate:
    """Smallest batch with E‖g_B - G‖² ≤ θ²|G|²: trΣ/(θ²|G|²) = B_simple/θ².

    Args:
        moments: from `gradient_moments` or `noise_scale_from_gradients`.
        theta: θ, the allowed ratio of noise to gradient.

    Returns:
        Estimate in samples, to be rounded up; bias and interval are those of B_simple.

    Raises:
        ArgumentError: `theta` is not positive.

    Source: Byrd, Chin, Nocedal and Wu 2012 (Math. Program. 134), eq. 3.4.

    Example:
        >>> from gradnoise import noise_scale_from_gradients
        >>> rows = torch.tensor([[3.0, 1.0], [3.0, -1.0], [5.0, 0.0], [1.0, 0.0]])
        >>> found = noise_scale_from_gradients(rows, population="dataset")
        >>> round(float(norm_test(found, theta=0.5)), 4)  # (10/3)/(9/4)
        1.4815
    """
    _check("theta", theta)
    return scaled(moments.simple_noise_scale, 1 / theta**2)


@counted_in_samples
def inner_product_test(moments: GradientMoments, *, theta: float = THETA) -> Estimate:
    """Smallest batch with Var(g_BᵀG) ≤ θ²|G|⁴: GᵀΣG/(θ²|G|⁴).

    Then -g_B is a descent direction with a probability that depends on θ. GᵀΣG is the variance of
    the slopes g_iᵀḡ less the bias from sampling ḡ, (1/n - 1/N)(tr(Σ²) + 2 E[cᵀG‖c‖²]), up to an
    error of O(1/n²). The interval is Fieller's for the square root. Where the moments do not
    contain `second_slopes` (how GᵀΣG changes with G), the standard error from this change is
    bounded by 2√((1/n - 1/N) tr(Σ²) GᵀΣG), and the interval is several times too wide.

    Args:
        moments: with slopes: from `noise_scale_from_gradients`, or from `gradient_moments` of a
            part of the population.
        theta: θ.

    Returns:
        Estimate in samples, to be rounded up.

    Raises:
        ArgumentError: `theta` is not positive, or the moments hold no slopes.

    Source: Bollapragada, Byrd and Nocedal 2018 (arXiv:1710.11258), eq. 2.6.

    Example:
        >>> from gradnoise import noise_scale_from_gradients
        >>> rows = torch.tensor([[3.0, 1.0], [3.0, -1.0], [5.0, 0.0], [1.0, 0.0]])
        >>> found = noise_scale_from_gradients(rows, population="dataset")
        >>> round(float(inner_product_test(found, theta=1)), 4)  # (9·8/3)/81
        0.2963
    """
    _check("theta", theta)
    along, signal = Along.of(moments), moments.grad_sq_norm
    root = math.sqrt(max(along.value, 0.0))
    error, covariance = along.error, 0.0
    if root:
        error, covariance = along.error / (2 * root), along.shared / (2 * root)
    elif error:
        error = math.sqrt(error)
    found = quotient(
        root,
        float(signal),
        moments,
        variances=(error**2, signal.stderr**2 + moments.rounding**2),
        covariance=covariance,
    )
    return scaled(squared(found), 1 / theta**2)


@counted_in_samples
def orthogonality_test(moments: GradientMoments, *, nu: float = NU) -> Estimate:
    """Smallest batch with E‖(I - GGᵀ/|G|²)g_B‖² ≤ ν²|G|²: (trΣ - GᵀΣG/|G|²)/(ν²|G|²).

    In addition to the inner product test it bounds the part of g_B orthogonal to G; with ν = θ the
    two batch sizes add up to that of the norm test. Bias and interval as for `inner_product_test`.
    Where |G|² is not resolved, the lower bound assumes the largest possible noise along G, √tr(Σ²).

    Args:
        moments: as for `inner_product_test`.
        nu: ν.

    Raises:
        ArgumentError: `nu` is not positive, or the moments hold no slopes.

    Source: as for `inner_product_test`, eq. 3.3.

    Example:
        >>> from gradnoise import noise_scale_from_gradients
        >>> rows = torch.tensor([[3.0, 1.0], [3.0, -1.0], [5.0, 0.0], [1.0, 0.0]])
        >>> found = noise_scale_from_gradients(rows, population="dataset")
        >>> round(float(orthogonality_test(found, nu=1)), 4)  # (2/3)/9
        0.0741
    """
    _check("nu", nu)
    along, signal, trace = Along.of(moments), moments.grad_sq_norm, moments.trace_cov
    weak = signal.status is Status.SIGNAL_BELOW_NOISE
    if weak or float(signal) <= 0 or moments.rounding:
        whole = moments.simple_noise_scale
        across = max(float(trace) - math.sqrt(moments.trace_cov_sq), 0.0)
        least = across / float(trace) if across > 0 else 0.0
        return scaled(replace(whole, low=max(whole.low, 0.0) * least), 1 / nu**2)
    across = float(trace) - along.value / float(signal)
    influence = moments.deviations()[1] - along.influence / float(signal)
    on_signal = moments.deviations()[2]
    influence = influence + along.value / float(signal) ** 2 * on_signal
    factor = moments.spread_factor
    error = math.sqrt(factor * float(influence.var())) + along.unseen / float(signal)
    found = quotient(
        across if factor else max(across, 0.0),
        float(signal),
        moments,
        variances=(error**2, signal.stderr**2),
        covariance=factor * covariance_of(influence, on_signal)
        - along.unseen / float(signal) * signal.stderr,  # the smallest possible
    )
    return scaled(found, 1 / nu**2)


@dataclass(frozen=True, eq=False)
class Along:
    """GᵀΣG, the noise along the gradient.

    Args:
        value: debiased; can be negative where the signal is weak.
        influence: of every sample, shape (n,).
        unseen: upper bound of the standard error through G, where the influence does not include
            it; else 0.
        error: upper bound of the standard error.
        shared: lower bound of the covariance with |G|².
    """

    value: float
    influence: Tensor
    unseen: float
    error: float
    shared: float

    @classmethod
    def of(cls, moments: GradientMoments) -> Along:
        """From the slopes g_iᵀḡ and the distances ‖g_i - ḡ‖² of the samples."""
        if moments.slopes is None:
            raise ArgumentError(
                "these moments hold no slopes g_iᵀḡ: use gn.diagnostics, gn.gradient_moments with "
                '`intervals=True` and `population="distribution"`, or noise_scale_from_gradients'
            )
        factor = moments.sampling_factor
        gaps = moments.slopes - moments.slopes.mean()
        _, spread, signal = moments.deviations()
        biased = float(gaps.square().sum()) / (moments.count - 1)
        third = covariance_of(gaps, spread)
        value = biased - factor * (trace_cov_sq(moments) + 2 * third) if factor else biased
        influence = gaps.square() - gaps.square().mean()
        unseen = 2 * math.sqrt(factor * moments.trace_cov_sq * biased) if factor else 0.0
        if moments.second_slopes is not None:
            influence = influence + 2 * moments.steadiness * moments.second_slopes
            unseen = 0.0
        spreads = moments.spread_factor
        error = math.sqrt(spreads * float(influence.var())) + unseen
        return cls(value, influence, unseen, error, spreads * covariance_of(influence, signal))


def trace_cov_sq(moments: GradientMoments) -> float:
    """tr(Σ²), unbiased; tr(Σ̂²), about (trΣ)²/n too large, for fewer than 4 samples."""
    if moments.count < LEAST:
        return moments.trace_cov_sq
    return unbiased_squares(moments.trace_cov_sq, moments.distances)[0]


def covariance_of(first: Tensor, second: Tensor) -> float:
    """Sample covariance of two vectors."""
    return float(torch.cov(torch.stack([first, second]))[0, 1])


def _check(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ArgumentError(f"`{name}` must be positive, such as {THETA}; got {value}")
