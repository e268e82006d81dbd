"""Shares of the gradient and of its noise in a subspace; angles between two subspaces."""

from __future__ import annotations

import math
from dataclasses import replace

import scipy
import torch
from torch import Tensor

from ...moments.moments import GradientMoments
from ...statistics.estimate import Estimate, Status
from ...statistics.skew import Skew
from ...statistics.transform import within
from ..quotient import quotient


def principal_angles(first: Tensor, second: Tensor) -> Tensor:
    """Angles between the spans of orthonormal columns (P, k) and (P, l), ascending, in radians.

    arccos of the singular values of VᵀW; angles below π/4 by the arcsin of those of (I - VVᵀ)W
    (Björck and Golub 1973; Knyazev and Argentati 2002). Shape (min(k, l),).

    Example:
        >>> axes = torch.eye(3, dtype=torch.float64)
        >>> principal_angles(axes[:, :2], axes[:, 1:])
        tensor([0.0000, 1.5708], dtype=torch.float64)
    """
    if 0 in (first.shape[1], second.shape[1]):
        return torch.zeros(0, dtype=torch.float64)
    angles = scipy.linalg.subspace_angles(*(v.cpu().double().numpy() for v in (first, second)))
    return torch.from_numpy(angles[::-1].copy())


def gradient_in(along: Tensor, moments: GradientMoments) -> tuple[float, Tensor, float]:
    """‖VᵀG‖² = ‖Vᵀḡ‖² - (1/n - 1/N) tr(VᵀΣV), unbiased for a V chosen without these samples.

    Args:
        along: g_iᵀV, shape (n, k).
        moments: of the same samples.

    Returns:
        The value, the influence of every sample (n,), and a lower bound of the variance: that of a
        product of two noises, which remains where there is no signal.
    """
    mean, factor, n = along.mean(0), moments.sampling_factor, len(along)
    centred = along - mean
    squares = centred.square().sum(1)
    value = float(mean @ mean) - factor * float(squares.sum()) / (n - 1)
    influence = 2 * moments.steadiness * centred @ mean - factor * (squares - squares.mean())
    least = 2 * factor**2 * float((centred.T @ centred).square().sum()) / (n - 1) ** 2
    return value, influence, least


def share_of_gradient(along: Tensor, moments: GradientMoments) -> Estimate:
    """‖VᵀG‖²/|G|² from g_iᵀV, shape (n, k): both parts unbiased, Fieller's interval."""
    value, influence, least = gradient_in(along, moments)
    signal = moments.grad_sq_norm
    return _share(value, influence, least, signal, 2, moments, moments.rounding)


def share_of_noise(along: Tensor, moments: GradientMoments) -> Estimate:
    """tr(VᵀΣV)/trΣ from g_iᵀV, shape (n, k)."""
    centred, n = along - along.mean(0), len(along)
    squares = centred.square().sum(1)
    products = float((centred.T @ centred).square().sum())
    least = 2 * (moments.spread_factor / (n - 1)) ** 2 * products
    value = float(squares.sum()) / (n - 1)
    return _share(value, squares - squares.mean(), least, moments.trace_cov, 1, moments, 0.0)


def _share(
    value: float,
    influence: Tensor,
    least: float,
    whole: Estimate,
    row: int,
    moments: GradientMoments,
    rounding: float,
) -> Estimate:
    """A part over the whole, in [0, 1]; `row` of `deviations` is the influence on the whole.

    A part that comes out negative is not distinguishable from zero: an upper bound and no value.
    """
    factor = moments.spread_factor
    variances, covariance, skew = (0.0, rounding**2), 0.0, None
    if factor and moments.slopes is not None and moments.count > 2:
        pair = torch.stack([influence, moments.deviations()[row].to(influence)])
        matrix = torch.cov(pair) * factor
        variances = max(float(matrix[0, 0]), least), whole.stderr**2 + rounding**2
        covariance, skew = float(matrix[0, 1]), Skew.of(pair, moments.spread_population)
    elif factor:
        variances = math.nan, math.nan
    found = quotient(
        max(value, 0.0),
        float(whole),
        moments,
        variances=variances,
        covariance=covariance,
        skew=skew,
    )
    status = found.status
    if status is Status.NOISE_BELOW_ERROR:
        status = Status.SIGNAL_BELOW_NOISE
    return within(replace(found, status=status), 0.0, 1.0)
