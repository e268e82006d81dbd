"""Beyond which value there is no eigenvalue, and how sure that is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from gradnoise import lanczos
from gradnoise.linalg import missed_eigenvalues as missed
from gradnoise.linalg.convert import as_operator
from gradnoise.linalg.krylov import Krylov


# the four ask for the same end of the same spaces: each has a quarter of 200 seeds
@pytest.mark.parametrize(
    ("which", "sign", "first"), [("LA", 1, 0), ("SA", -1, 50), ("LM", 1, 100), ("BE", 1, 150)]
)
def test_beyond_the_bound_there_is_nothing(which: str, sign: int, first: int) -> None:
    matrix = torch.diag(sign * torch.linspace(0, 1, 300, dtype=torch.float64))
    for seed in range(first, first + 50):
        pairs = lanczos(matrix, which=which, seed=seed)
        assert 1 <= sign * pairs.bound < 1.05
    assert math.isnan(lanczos(matrix, v0=torch.ones(300)).bound)
    assert lanczos(torch.eye(3).double()).bound == pytest.approx(1)


def test_a_bound_that_is_too_close_fails_as_often_as_it_says(monkeypatch: Any) -> None:
    monkeypatch.setattr(missed, "CHANCE", 0.2)
    matrix = torch.diag(torch.tensor([1.0, *np.linspace(0, 0.5, 50)]).double())
    broken = sum(lanczos(matrix, max_iterations=4, seed=s).bound < 1 for s in range(300))
    assert 0 < broken <= 60 + 3 * 7


def test_shares_of_eigenvectors_are_what_the_polynomials_say() -> None:
    values = np.array([3.0, 2.0, 1.0, -1.0])
    start = torch.tensor([0.1, 0.7, 0.5, 0.5]).double()
    start /= start.norm()
    krylov = Krylov(as_operator(torch.diag(torch.as_tensor(values))), 4, start)
    for _ in range(3):
        krylov.extend()
    for value, share in zip(values, start.square().tolist(), strict=True):
        # all polynomials up to degree 3 are orthonormal on 4 points: equality
        assert 1 / missed.sum_of_squares(krylov, value) == pytest.approx(share, rel=1e-9)


def outlier(top: float, bulk: float, size: int = 1000) -> torch.Tensor:
    values = bulk * torch.linspace(-1, 1, size, dtype=torch.float64)
    values[-1] = top
    return torch.diag(values)


@pytest.mark.parametrize("which", ["LA", "SA", "LM", "BE"])
def test_polynomials_that_overflow_end(which: str) -> None:
    pairs = lanczos(outlier(1.0, 1e-3), k=5, which=which, tol=1e-6, max_iterations=120)
    assert math.isfinite(pairs.bound)


@pytest.mark.parametrize("top", [1.0001, 1 + 1e-5, 2.0])
def test_the_bound_knows_the_rounding_of_float32(top: float) -> None:
    values = torch.ones(1000)
    values[0] = top
    bounds = [lanczos(torch.diag(values), seed=seed).bound for seed in range(100)]
    assert min(bounds) >= float(values[0])
