"""B_simple from squared norms of batch gradients alone: E|g_B|² = |G|² + trΣ/B."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import scipy
import torch
from torch import Tensor

from ...errors import ArgumentError
from ...statistics.estimate import Estimate, check_level
from ...statistics.interval import flag_zero, pooled_freedom, symmetric
from ...statistics.ratio import ratio
from .inputs import as_vector
from .result import SimpleNoiseScale

ON_A_LINE = 1e-12  # relative residuals that are no more than rounding
ROUNDS = 8  # of weighting and fitting; it converges in three or four


@dataclass(frozen=True, eq=False)
class _Parts:
    """|G|² and trΣ with their sampling covariance; nan where it cannot be estimated."""

    signal: float
    trace: float
    covariance: Tensor  # of (signal, trace), [2, 2]
    freedom: float
    measurements: int

    def estimate(self, level: float) -> SimpleNoiseScale:
        def one(value: float, variance: float) -> Estimate:
            found = symmetric(
                value, variance, level=level, samples=self.measurements, freedom=self.freedom
            )
            return flag_zero(found)

        variances = float(self.covariance[0, 0]), float(self.covariance[1, 1])
        scale = ratio(
            self.trace,
            self.signal,
            variances=(variances[1], variances[0]),
            covariance=float(self.covariance[0, 1]),
            level=level,
            samples=self.measurements,
            freedom=self.freedom,
            positive_denominator=True,
        )
        signal, trace = one(self.signal, variances[0]), one(self.trace, variances[1])
        return SimpleNoiseScale.of(scale, signal, trace)


def simple_noise_scale_from_norms(
    small_sq_norm: Any,
    big_sq_norm: Any,
    small_batch: float,
    big_batch: float,
    *,
    level: float = 0.95,
) -> SimpleNoiseScale:
    """B_simple from squared gradient norms at two batch sizes b < B, without per-sample gradients.

    |G|² = (B|g_B|² - b|g_b|²)/(B - b) and trΣ = (|g_b|² - |g_B|²)/(1/b - 1/B), each linear in the
    means of the squared norms and unbiased for samples drawn independently (N = ∞). Each is
    averaged over the measurements, then the averages are divided. |G|² ≤ 0 can happen: then there
    is no value, only a lower bound.

    Repeated measurements give intervals, Fieller's for the ratio. Arrays of equal length are taken
    as pairs from the same step, which may depend on each other; arrays of different lengths as
    independent. One measurement of each gives no interval.

    Args:
        small_sq_norm: |g_b|², a number or repeated measurements (k,); the mean of squares, not the
            square of a mean norm.
        big_sq_norm: |g_B|², likewise.
        small_batch, big_batch: b and B in samples, 0 < b < B.
        level: coverage of the intervals, 0.95.

    Returns:
        SimpleNoiseScale: B_simple in samples with `.grad_sq_norm` and `.trace_cov`; `.samples`
        counts measurements.

    Raises:
        ArgumentError: norms negative or not finite, or batch sizes not in order.

    Source: McCandlish et al. 2018 (arXiv:1812.06162), App. A.1.

    Example:
        >>> found = simple_noise_scale_from_norms(10.0, 4.0, 1, 4)  # |G|² = 2, trΣ = 8
        >>> float(found), float(found.grad_sq_norm), float(found.trace_cov)
        (4.0, 2.0, 8.0)
        >>> simple_noise_scale_from_norms(10.0, 2.0, 1, 4).is_resolved  # |G|² = -2/3
        False
    """
    check_level(level)
    if not 0 < small_batch < big_batch < math.inf:
        raise ArgumentError(
            f"batch sizes must be 0 < `small_batch` < `big_batch`; got {small_batch} and "
            f"{big_batch}"
        )
    norms = _sq_norms("small_sq_norm", small_sq_norm), _sq_norms("big_sq_norm", big_sq_norm)
    b, B = float(small_batch), float(big_batch)
    small, big = (float(norm.mean()) for norm in norms)
    signal, trace = (B * big - b * small) / (B - b), (small - big) * b * B / (B - b)
    weights = torch.tensor([[-b, B], [b * B, -b * B]], dtype=torch.float64) / (B - b)
    covariance, freedom = _covariance_of_means(*norms)
    spread = weights @ covariance @ weights.T
    return _Parts(signal, trace, spread, freedom, max(map(len, norms))).estimate(level)


def _sq_norms(name: str, values: Any) -> Tensor:
    vector = as_vector(name, values)
    if bool((vector < 0).any()):
        raise ArgumentError(
            f"`{name}` must be squared norms, not negative; got {float(min(vector)):g}"
        )
    return vector


def _covariance_of_means(first: Tensor, second: Tensor) -> tuple[Tensor, float]:
    """Covariance of two means, and its degrees of freedom; nan if one of them is of one number."""
    counts = len(first), len(second)
    if min(counts) < 2:
        return torch.full((2, 2), math.nan).double(), math.inf
    if counts[0] == counts[1]:
        return torch.cov(torch.stack([first, second])).cpu() / counts[0], counts[0] - 1
    variances = float(first.var()) / counts[0], float(second.var()) / counts[1]
    freedom = pooled_freedom((variances[0], counts[0] - 1), (variances[1], counts[1] - 1))
    return torch.tensor(variances, dtype=torch.float64).diag(), min(freedom, sum(counts) - 2)


def noise_scale_from_batches(
    batch_sizes: Any, sq_norms: Any, *, level: float = 0.95
) -> SimpleNoiseScale:
    """B_simple from squared norms at many batch sizes: the line |G|² + trΣ·(1/B), fitted.

    Least squares of |g_B|² on 1/B, weighted by the inverse of Var|g_B|² = 2tr(Σ²)/B² + 4GᵀΣG/B
    (exact for Gaussian noise). The two unknown coefficients, not negative, are fitted to the
    squared residuals, alternating with the line. Unbiased for weights that do not depend on the
    noise; these depend on it slightly. Intervals come from the weighted residuals with k - 2
    degrees of freedom, Fieller's for the ratio: they need ten measurements or more, with different
    batches for each.

    Args:
        batch_sizes: B of every measurement, shape (k,), k from 2 on, at least two different ones.
        sq_norms: |g_B|², shape (k,).
        level: coverage of the intervals.

    Returns:
        SimpleNoiseScale: B_simple in samples, with its parts; no interval from two measurements.

    Raises:
        ArgumentError: lengths that differ, fewer than two batch sizes, or negative numbers.

    Source: the two-batch estimator of McCandlish et al. 2018 (arXiv:1812.06162), App. A.1, which it
    equals for two measurements; variances docs/theory/diagnostics.md.

    Example:
        >>> round(float(noise_scale_from_batches([1, 2, 4], [10.0, 6.0, 4.0])), 9)  # 2 + 8/B
        4.0
    """
    check_level(level)
    norms = _sq_norms("sq_norms", sq_norms).cpu()
    sizes = as_vector("batch_sizes", batch_sizes, len(norms)).cpu()
    different = sorted(set(sizes.tolist()))
    if different[0] <= 0 or len(different) < 2:
        raise ArgumentError(
            f"`batch_sizes` must be positive, with two different ones at least; got {different}"
        )
    line = torch.stack([torch.ones_like(sizes), 1 / sizes], dim=1)
    weights = sizes.clone()  # the right ones for a strong signal
    for _ in range(ROUNDS):
        coefficients, covariance = _fit(line, norms, weights)
        weights = 1 / _spread(norms - line @ coefficients, sizes)
    signal, trace = coefficients.tolist()
    return _Parts(signal, trace, covariance, len(norms) - 2, len(norms)).estimate(level)


def _fit(line: Tensor, norms: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients and their covariance, scaled by the residuals."""
    inverse = torch.linalg.inv(line.T * weights @ line)
    coefficients = inverse @ (line.T @ (weights * norms))
    if len(norms) == 2:
        return coefficients, torch.full((2, 2), math.nan).double()
    residuals = norms - line @ coefficients
    if float(residuals.abs().max()) <= ON_A_LINE * float(norms.abs().max()):
        # numbers on a line, by chance or up to rounding, do not tell the error
        return coefficients, torch.full((2, 2), math.nan).double()
    scale = float(weights @ residuals.square()) / (len(norms) - 2)
    return coefficients, scale * inverse


def _spread(residuals: Tensor, sizes: Tensor) -> Tensor:
    """p/B² + q/B with p, q ≥ 0 fitted to squared residuals, relative to their expected size."""
    shape = torch.stack([sizes**-2, 1 / sizes], dim=1)
    expected = 1 / sizes
    for _ in range(2):
        # as an attribute: scipy imports scipy.optimize only when it is first used
        parts, _ = scipy.optimize.nnls(
            (shape / expected[:, None]).numpy(), (residuals.square() / expected).numpy()
        )
        if not parts.any():
            return 1 / sizes
        expected = shape @ torch.from_numpy(parts)
    return expected
