"""The quotient of two numbers that come from the same moments."""

from __future__ import annotations

from ..moments.moments import GradientMoments
from ..statistics.estimate import Estimate
from ..statistics.ratio import ratio
from ..statistics.skew import Skew


def quotient(
    numerator: float,
    denominator: float,
    moments: GradientMoments,
    *,
    variances: tuple[float, float],
    covariance: float = 0.0,
    skew: Skew | None = None,
) -> Estimate:
    """numerator/denominator, whose true value is positive, with Fieller's interval; see `ratio`.

    Args:
        numerator, denominator: estimates from these moments.
        moments: for n, n - 1 degrees of freedom, and the level.
        variances, covariance, skew: of (numerator, denominator); variances nan when not measured.

    Example:
        >>> import torch
        >>> from gradnoise import noise_scale_from_gradients
        >>> moments = noise_scale_from_gradients(torch.eye(3), population="dataset")
        >>> print(quotient(6.0, 3.0, moments, variances=(0.0, 0.0)))
        2.00 (exact)
    """
    return ratio(
        numerator,
        denominator,
        variances=variances,
        covariance=covariance,
        level=moments.level,
        samples=moments.count,
        freedom=moments.count - 1,
        positive_denominator=True,
        skew=skew,
    )
