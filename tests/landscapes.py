"""Landscapes of given numbers: a gradient of squared length 1, and curvature 4 along it."""

from __future__ import annotations

import math
from typing import Any

from gradnoise.learning_rate.landscape import Landscape
from gradnoise.statistics.estimate import Estimate, Status

INF, NAN = math.inf, math.nan


def estimate(
    value: float,
    low: float | None = None,
    high: float | None = None,
    status: Status = Status.RESOLVED,
) -> Estimate:
    """From 100 samples; without bounds it is exact."""
    low, high = value if low is None else low, value if high is None else high
    return Estimate(value, low, high, 0.95, NAN, 100, status)


SHARPNESS, B_CURV = estimate(4.0), estimate(2.0)
UNKNOWN = estimate(NAN, 0.0, INF, Status.SIGNAL_BELOW_NOISE)
AT_LEAST = estimate(NAN, 300.0, INF, Status.SIGNAL_BELOW_NOISE)
AT_MOST = estimate(NAN, 0.0, 9.0, Status.NOISE_BELOW_ERROR)
NEGATIVE = estimate(NAN, -INF, INF, Status.NEGATIVE_CURVATURE)


def landscape(
    noise_scale: Estimate,
    sharpness: Estimate = SHARPNESS,
    curvature: Estimate = B_CURV,
    population: float = INF,
    **others: Any,
) -> Landscape:
    """With B_noise, λ and B_curv as given."""
    trace = estimate(4 * noise_scale.value, 4 * noise_scale.low, 4 * noise_scale.high)
    parts = {"grad_sq_norm": estimate(1.0), "grad_curvature": estimate(4.0), **others}
    return Landscape(
        trace_hessian_cov=trace,
        noise_scale=noise_scale,
        sharpness=sharpness,
        curvature_noise_scale=curvature,
        population=population,
        **parts,
    )
