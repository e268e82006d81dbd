"""A matrix with known eigenvalues, for everything that needs matrix-vector products only."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..linalg.density.spectral_density import SpectralDensity
from ..linalg.diagonal import diagonal
from ..linalg.frobenius import frobenius_norm
from ..linalg.lanczos import lanczos
from ..linalg.operator import Operator
from ..linalg.trace import trace
from .check import LEVEL, Check, exact, statistical

SIZE = 120
NAME = "known matrix"


class Known(Operator):
    """A symmetric matrix with all its entries."""

    symmetric = True

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.shape = len(matrix), len(matrix)
        self.dtype, self.device = matrix.dtype, matrix.device

    def products(self, block: Tensor) -> Tensor:
        return self.matrix @ block


def known(seed: int) -> tuple[Known, Tensor]:
    """Q diag(values) Qᵀ with three outliers above a bulk of both signs, and its eigenvalues."""
    source = torch.Generator().manual_seed(seed)
    bulk = torch.linspace(-0.5, 1.0, SIZE - 3, dtype=torch.float64)
    values = torch.cat([bulk, torch.tensor([4.0, 7.0, 10.0], dtype=torch.float64)])
    basis = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=source, dtype=torch.float64)).Q
    return Known(basis * values @ basis.T), values


def products(seed: int) -> Iterator[Check]:
    """Eigenvalues, trace, Frobenius norm, diagonal and spectral density."""
    operator, values = known(seed)
    pairs = lanczos(operator, k=3, tol=1e-8, seed=seed)
    for place in range(3):
        truth, found = float(values[-1 - place]), float(pairs.values[place])
        yield exact(NAME, f"eigenvalue {place + 1} by Lanczos", truth, found, 1e-7)
    lowest = lanczos(operator, which="SA", tol=1e-8, seed=seed)
    yield exact(NAME, "smallest eigenvalue", float(values[0]), float(lowest.values[0]), 1e-6)
    total, squares = float(values.sum()), float(values.square().sum())
    for method in ("xtrace", "hutch++", "hutchinson"):
        found_trace = trace(operator, method=method, products=40, level=LEVEL, seed=seed)
        yield statistical(NAME, f"trace by {method}", total, found_trace)
    norm = frobenius_norm(operator, products=40, level=LEVEL, seed=seed)
    yield statistical(NAME, "Frobenius norm", squares**0.5, norm)
    density = SpectralDensity.of(operator, probes=8, steps=30, level=LEVEL, seed=seed)
    yield statistical(NAME, "trace of the density", total, density.trace)
    below = float((values < 0).sum()) / SIZE
    yield statistical(NAME, "share of negative eigenvalues", below, density.share_negative)
    entries = diagonal(operator, products=60, seed=seed)
    off = (entries.values - operator.matrix.diagonal()).norm() / operator.matrix.diagonal().norm()
    yield Check(NAME, "diagonal, relative error", 0.0, float(off), float("nan"), float(off) < 0.5)
