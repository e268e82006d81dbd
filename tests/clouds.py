"""Moments of gradients given as rows, with everything that intervals need, and no model."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import torch
from torch import Tensor

from gradnoise.moments.accumulator import Accumulator
from gradnoise.moments.moments import GradientMoments
from gradnoise.moments.per_parameter import PerParameter
from gradnoise.per_sample.contract.summary import Chunk, Summary, Wanted
from gradnoise.tensors.random import random_signs


def moments_of_cloud(gradients: Tensor, population: float = math.inf) -> GradientMoments:
    """The moments of gradients (n, P), written out."""
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
    covariances = moments.deviations()[1:] @ gaps / (n - 1)
    return replace(moments, influence_products=covariances @ covariances.T)


def streamed_moments(gradients: Tensor, population: float = math.inf) -> GradientMoments:
    """Moments of rows g_i split over two parameters, taken in as one summary."""
    named = {"a.weight": gradients[:, :2], "b.weight": gradients[:, 2:]}
    summary = Summary.of(Chunk(gradients.sum(1), named), Wanted(variance=True))
    running = Accumulator()
    running.add(summary)
    return running.moments(population=population, resolution=2**-52, level=0.95)


def split_moments(
    gradients: Tensor, population: float = math.inf, probes: int = 8
) -> GradientMoments:
    """Moments of rows split over two parameters, a: the first two columns, b: all others."""
    n, parts = len(gradients), {"a": gradients[:, :2], "b": gradients[:, 2:]}
    signs = random_signs(probes, n, seed=0)
    noises = {k: signs @ (g - g.mean(0)) / math.sqrt(n - 1) for k, g in parts.items()}
    return replace(
        moments_of_cloud(gradients, population),
        mean={name: g.mean(0) for name, g in parts.items()},
        centred_sq={k: float((g - g.mean(0)).square().sum()) for k, g in parts.items()},
        per_parameter=PerParameter(
            sq_norms={name: g.square().sum(1) for name, g in parts.items()},
            slopes={name: g @ g.mean(0) for name, g in parts.items()},
            signs=signs,
            grams={name: u @ u.T for name, u in noises.items()},
        ),
    )


SCALES = 1 / torch.sqrt(1 + torch.arange(12)).double()
MEAN = torch.zeros(12).double().index_fill(0, torch.tensor([0, 6]), 0.7)


def draw(count: int, source: torch.Generator, *, skewed: bool = False) -> Tensor:
    """Rows of mean MEAN and covariance diag(SCALES²), Gaussian or exponential."""
    if skewed:
        uniform = torch.rand(count, 12, generator=source, dtype=torch.float64)
        return MEAN + SCALES * (-uniform.log() - 1)
    return MEAN + SCALES * torch.randn(count, 12, generator=source, dtype=torch.float64)


def every_sample(rows: Tensor, size: int) -> list[Tensor]:
    return [rows[list(pick)] for pick in itertools.combinations(range(len(rows)), size)]
