"""Moments of gradients given as rows, with everything that intervals need, and no model."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from gradnoise.moments.moments import GradientMoments


def moments_of_cloud(gradients: Tensor, population: float = math.inf) -> GradientMoments:
    """Of gradients (n, P), written out literally."""
    n, mean = len(gradients), gradients.mean(0)
    gaps = gradients - mean
    covariance = gaps.T @ gaps / (n - 1)
    moments = GradientMoments(
        mean={"w": mean},
        centred_sq={"w": float(gaps.square().sum())},
        losses=torch.zeros(n, dtype=torch.float64),
        sq_norms=gradients.square().sum(1),
        population=population,
        resolution=2**-52,
        slopes=gradients @ mean,
        trace_cov_sq=float(covariance.square().sum()),
    )
    pulls = moments.deviations()[1:] @ gaps / (n - 1)
    return replace(moments, pulls=pulls @ pulls.T)
