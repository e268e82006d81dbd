"""A matrix with known eigenvalues, for everything that needs matrix-vector products only."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..linalg.density.spectral_density import SpectralDensity
from ..linalg.diagonal import diagonal
from ..linalg.frobenius import frobenius_norm
from ..linalg.lanczos import lanczos
from ..linalg.trace import trace
from .check import LEVEL, Check, exact, statistical

SIZE = 120
NAME = "known matrix"


def known(seed: int) -> tuple[Tensor, Tensor]:
    """Q diag(values) Qᵀ with three outliers above a bulk of both signs, and its eigenvalues."""
    source = torch.Generator().manual_seed(seed)
    bulk = torch.linspace(-0.5, 1.0, SIZE - 3, dtype=torch.float64)
    values = torch.cat([bulk, torch.tensor([4.0, 7.0, 10.0], dtype=torch.float64)])
    basis = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=source, dtype=torch.float64)).Q
    return basis * values @ basis.T, values


def products(seed: int) -> Iterator[Check]:
    """Eigenvalues, trace, Frobenius norm, diagonal and spectral density."""
    matrix, values = known(seed)
    pairs = lanczos(matrix, k=3, tol=1e-8, seed=seed)
    for place in range(3):
        truth, found = float(values[-1 - place]), float(pairs.values[place])
        yield exact(NAME, f"eigenvalue {place + 1} by Lanczos", truth, found, 1e-7)
    lowest = lanczos(matrix, which="SA", tol=1e-8, seed=seed)
    yield exact(NAME, "smallest eigenvalue", float(values[0]), float(lowest.values[0]), 1e-6)
    total, squares = float(values.sum()), float(values.square().sum())
    for method in ("xtrace", "hutch++", "hutchinson"):
        found_trace = trace(matrix, method=method, products=40, level=LEVEL, seed=seed)
        yield statistical(NAME, f"trace by {method}", total, found_trace)
    norm = frobenius_norm(matrix, products=40, level=LEVEL, seed=seed)
    yield statistical(NAME, "Frobenius norm", squares**0.5, norm)
    density = SpectralDensity.of(matrix, probes=8, steps=30, level=LEVEL, seed=seed)
    yield statistical(NAME, "trace of the density", total, density.trace)
    below = float((values < 0).sum()) / SIZE
    yield statistical(NAME, "share of negative eigenvalues", below, density.share_negative)
    entries = diagonal(matrix, products=60, seed=seed)
    off = (entries.values - matrix.diagonal()).norm() / matrix.diagonal().norm()
    yield Check(NAME, "diagonal, relative error", 0.0, float(off), float("nan"), float(off) < 0.5)
