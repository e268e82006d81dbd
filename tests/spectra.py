"""Matrices with a known spectrum, and what estimators find of them over many seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from gradnoise import Estimate, OperatorError
from gradnoise.tensors.random import generator

P = 100
INDEX = torch.arange(1, P + 1, dtype=torch.float64)
NOISE = torch.randn(P, generator=generator(0), dtype=torch.float64)
SPECTRA = {
    "flat": torch.linspace(1, 3, P, dtype=torch.float64),
    "1/i": 1 / INDEX,
    "1/i²": INDEX**-2,
    "0.9^i": 0.9**INDEX,
    "0.7^i": 0.7**INDEX,
    "step": torch.where(INDEX <= 20, 1.0, 1e-3).double(),
    "outliers and noise": torch.where(INDEX <= 5, 100 / INDEX, 1 + 0.1 * NOISE),
    "indefinite": NOISE - 0.5,
    "±1/i": torch.sign(NOISE - 0.3) / INDEX,
}
METHODS = ("xtrace", "hutch++", "hutchinson")
Estimator = Callable[..., Estimate]


def with_spectrum(values: Iterable[float] | Tensor, seed: int = 0) -> Tensor:
    """A symmetric matrix with these eigenvalues in random directions."""
    values = values if isinstance(values, Tensor) else torch.tensor([*values], dtype=torch.float64)
    square = torch.randn(len(values), len(values), generator=generator(seed), dtype=torch.float64)
    basis = torch.linalg.qr(square).Q
    return basis * values @ basis.T


MATRICES = {name: with_spectrum(values, seed=1) for name, values in SPECTRA.items()}
ASYMMETRIC = torch.randn(P, P, generator=generator(2), dtype=torch.float64)


def large(count: int, falling: bool = False) -> Tensor:
    """So many large eigenvalues, equal or falling, and 1e-3."""
    values = torch.where(count >= INDEX, 1 / INDEX if falling else 1.0, 1e-3).double()
    return with_spectrum(values, seed=1)


def spread(size: int, seed: int = 0) -> Tensor:
    """A bulk and a few outliers at both ends."""
    return with_spectrum([9.0, 7.0, -5.0, *torch.linspace(-1, 1.3, size - 3).tolist()], seed)


class Counting:
    """A matrix that counts its products; the operator of last resort: `shape` and `@` only."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.shape, self.count = matrix, matrix.shape, 0

    def __matmul__(self, block: Tensor) -> Tensor:
        self.count += block.shape[1]
        return self.matrix @ block


OBLONG = [  # or empty
    (torch.zeros(0, 0), {}, OperatorError, r"square operator.*not empty.*got shape \(0, 0\)"),
    (torch.zeros(2, 3), {}, OperatorError, r"square operator.*got shape \(2, 3\)"),
    (torch.zeros(3), {}, OperatorError, r"got shape \(3,\)"),
]


class NotFinite:
    """An operator whose products are NaN."""

    shape = (3, 3)

    def __matmul__(self, vector: Tensor) -> Tensor:
        return vector * math.nan


def measured(
    estimator: Estimator, matrix: Tensor, truth: Tensor, seeds: int, **options: Any
) -> tuple[Tensor, Tensor, float]:
    """Errors, standard errors, and the fraction of the intervals that hold the truth."""
    found = [estimator(matrix, seed=seed, **options) for seed in range(seeds)]
    errors = torch.tensor([float(e) for e in found], dtype=torch.float64) - truth
    inside = sum(e.low <= float(truth) <= e.high for e in found)
    return errors, torch.tensor([e.stderr for e in found], dtype=torch.float64), inside / seeds
