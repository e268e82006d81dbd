"""Problems whose answers are known; linear regression measured many times without a model."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

import gradnoise as gn
from gradnoise.estimators.covariance.ranks import Dimensions
from gradnoise.estimators.covariance.spectrum import NoiseSpectrum, _written_out
from gradnoise.linalg.eigen_options import EigenOptions
from gradnoise.problem.samples import Samples

TOY = gn.toy.LinearRegression(
    torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2]), torch.tensor([0.3, -0.2, 0.1, 0.0, 0.4])
)
COUNT, REPLICATES = 96, 150


def matrices() -> tuple[Tensor, Tensor]:
    """H = C and Σ = C(q + s²) + CδδᵀC of the distribution."""
    c, slope = TOY.spectrum.diag(), TOY.spectrum * TOY.offset
    residual = float(slope @ TOY.offset) + TOY.noise**2
    return c, c * residual + torch.outer(slope, slope)


@dataclass(frozen=True)
class Replicate:
    """One set of samples from the distribution."""

    inputs: Tensor
    slopes: Tensor  # x_iᵀδ - y_i: gradients are x_i times that
    moments: gn.GradientMoments
    spectrum: NoiseSpectrum
    dimensions: Dimensions


@functools.cache
def replicates() -> list[Replicate]:
    return [replicate(seed) for seed in range(REPLICATES)]


def replicate(seed: int) -> Replicate:
    inputs, targets = TOY.sample(COUNT, seed)
    slopes = inputs @ TOY.offset - targets
    rows = inputs * slopes[:, None]
    moments = gn.noise_scale_from_gradients(rows)
    spectrum = _written_out(rows, EigenOptions(k=5, seed=seed, memory_budget=2**30), split=True)
    dimensions = Dimensions.of(moments, spectrum, Samples((rows,), math.inf))
    return Replicate(inputs, slopes, moments, spectrum, dimensions)


def z_score(values: list[float], expected: float) -> float:
    """Standard errors between a mean and what it should be."""
    found = torch.tensor(values, dtype=torch.float64)
    return float((found.mean() - expected) / (found.std() / math.sqrt(len(found))))


TOYS = {
    "noisy quadratic": gn.toy.NoisyQuadratic(
        torch.diag(torch.tensor([3.0, 1.0, 0.2])), torch.tensor([1.0, 1, 2])
    ),
    "linear regression": gn.toy.LinearRegression(
        torch.tensor([3.0, 2.0, 1.0, 0.5]), torch.tensor([0.5, -0.5, 1.0, 1.0]), noise=0.5
    ),
}
