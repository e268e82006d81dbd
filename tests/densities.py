"""Spectra of a hundred eigenvalues, their densities, and Gauss rules without the package."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradnoise import Estimate
from gradnoise.linalg.density.quadrature import GaussRule

Array = NDArray[np.float64]
SIZE = 100


def wishart(size: int = SIZE) -> Array:
    x = np.random.default_rng(0).standard_normal((size, 2 * size))
    return np.linalg.eigvalsh(x @ x.T / (2 * size))


def hessian_like() -> Array:
    """Two thirds zeros, a bulk on both sides, ten outliers."""
    bulk = 0.05 * np.random.default_rng(1).standard_normal(SIZE)
    values = np.where(np.arange(SIZE) < 0.67 * SIZE, 0.0, bulk)
    return np.concatenate([values[:-10], np.linspace(2, 20, 10)])


def softmax_at_zero() -> Array:
    """Softmax regression at w = 0: (1/K)(I - 11ᵀ/K) ⊗ XᵀX/n, K = 5 classes and 20 features."""
    x = np.random.default_rng(2).standard_normal((50, 20)) / np.arange(1, 21)
    classes = np.linalg.eigvalsh((np.eye(5) - 1 / 5) / 5)
    return np.kron(classes, np.linalg.eigvalsh(x.T @ x / 50))


SPECTRA = {
    "wishart": wishart(),
    "partly negative": wishart() - 1,
    "bulk and outliers": np.concatenate([wishart()[:-3], [8.0, 30.0, 100.0]]),
    "like a Hessian": hessian_like(),
    "softmax at zero": softmax_at_zero(),
    "decaying": 1 / np.arange(1.0, SIZE + 1) ** 2,
}


def diagonal(values: Any) -> Tensor:
    """For random directions this is the same as any other basis."""
    return torch.diag(torch.as_tensor(np.asarray(values, dtype=float)))


def holds(estimate: Estimate, truth: float, scale: float = 1.0) -> bool:
    rounding = 1e-9 * scale
    return estimate.low - rounding <= truth <= estimate.high + rounding


def broadened(values: Array, grid: Array, width: float) -> Array:
    bumps = np.exp(-(((grid[:, None] - values) / width) ** 2) / 2)
    return bumps.mean(1) / (width * math.sqrt(2 * math.pi))


def gauss_rules(values: Array, starts: Array, steps: int) -> list[GaussRule]:
    """The rules of diag(values), one per row of `starts`: Lanczos with all starts at once."""
    basis, alphas, betas = starts[:, None], [], []  # [starts, steps, P]
    for _ in range(steps):
        image = values * basis[:, -1]
        alphas.append((basis[:, -1] * image).sum(-1))
        for _ in range(2):  # twice is enough
            image = image - ((basis @ image[:, :, None]) * basis).sum(1)
        betas.append(np.linalg.norm(image, axis=-1))
        basis = np.concatenate([basis, (image / betas[-1][:, None])[:, None]], axis=1)
    pairs = zip(np.stack(alphas, 1), np.stack(betas, 1), strict=True)
    return [GaussRule(alpha, beta, is_closed=False) for alpha, beta in pairs]
