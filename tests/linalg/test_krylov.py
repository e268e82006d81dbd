"""The basis of a Krylov space, its memory, and what it refuses."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from torch import Tensor

from gradnoise import OperatorError, lanczos
from gradnoise.linalg.convert import as_operator
from gradnoise.linalg.iteration import random_start
from gradnoise.linalg.krylov import Krylov
from gradnoise.tensors.random import generator
from tests.spectra import NotFinite, spread, with_spectrum


def test_the_basis_takes_no_more_than_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    empty = Tensor.new_empty
    monkeypatch.setattr(
        Tensor, "new_empty", lambda self, *shape: (made.append(shape[0]), empty(self, *shape))[1]
    )
    matrix = with_spectrum(torch.linspace(0, 1, 200).double())
    assert lanczos(matrix, memory_budget=20 * 8 * 200, max_iterations=500).matvecs > 40
    assert made == [16, 4]


def test_all_bases_together_stay_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[Krylov] = weakref.WeakSet()
    most = 0
    append = Krylov._append

    def counted(self: Krylov, vector: Tensor) -> Tensor:
        nonlocal most
        row = append(self, vector)
        alive.add(self)
        most = max(most, sum(len(block) for krylov in alive for block in krylov._blocks))
        return row

    monkeypatch.setattr(Krylov, "_append", counted)
    matrix = with_spectrum([3.0, 3.0, 3.0, *np.linspace(0, 2.5, 80)])
    for rows in (8, 14, 20, 40):
        pairs = lanczos(matrix, k=3, memory_budget=rows * 8 * 83)
        assert pairs.values.tolist() == pytest.approx([3, 3, 3], rel=1e-3)
        assert 5 < most <= rows
        most = 0


@pytest.mark.parametrize(
    "matrix",
    [
        torch.tensor([[0.0, 1.0], [0.0, 0.0]]),
        torch.tensor([[1.0, 0.1], [0.0, 2.0]]),
        torch.randn(30, 30, generator=torch.Generator().manual_seed(0)),
        spread(50) + torch.triu(torch.full((50, 50), 0.1), 1),
    ],
)
def test_what_is_not_symmetric_is_refused(matrix: Tensor) -> None:
    with pytest.raises(OperatorError, match="not symmetric"):
        lanczos(matrix.double(), k=2)


@pytest.mark.parametrize(
    ("scale", "dtype"), [(1e-30, torch.float32), (1e30, torch.float32), (1e200, torch.float64)]
)
def test_what_has_no_squares_is_refused(scale: float, dtype: torch.dtype) -> None:
    with pytest.raises(OperatorError, match="have no squares"):
        lanczos(spread(30).to(dtype) * scale)


def test_what_loses_its_digits_is_made_orthogonal_once_more() -> None:
    matrix = as_operator(spread(200))
    vector = torch.randn(200, dtype=torch.float64)
    krylov = Krylov(matrix, 50, vector / vector.norm(), scale=1e6)  # no overlap looks asymmetric
    for _ in range(20):
        krylov.extend()
    basis = torch.cat(krylov.rows)
    nearly = basis[3] + 1e-9 * torch.randn(200, dtype=torch.float64)
    found, norm = krylov._orthogonal(nearly, float(nearly.norm()))
    assert float(found.norm()) == pytest.approx(norm)
    assert float((basis @ found).abs().max()) / norm < 1e-14


@pytest.mark.parametrize("restart", [False, True])
def test_the_basis_is_orthonormal_and_the_small_matrix_is_the_operator_on_it(restart: bool) -> None:
    matrix = spread(60)
    krylov = Krylov(as_operator(matrix), 20, random_start(as_operator(matrix), generator(0)))
    for _ in range(12):
        krylov.extend()
    if restart:
        krylov.restart(krylov.ritz[0].argsort()[-5:])
        krylov.extend()
    assert krylov.was_restarted == restart
    assert krylov.matvecs == 12 + restart
    basis = torch.cat(krylov.rows)
    gram = torch.eye(krylov.count, dtype=torch.float64)
    torch.testing.assert_close(basis @ basis.T, gram, rtol=0, atol=1e-13)
    values, coordinates, residuals = krylov.ritz
    expected = torch.linalg.eigvalsh(basis @ matrix @ basis.T)
    torch.testing.assert_close(torch.as_tensor(values), expected)
    vectors = krylov.combined(coordinates)
    apart = (matrix @ vectors - vectors * torch.as_tensor(values)).norm(dim=0)
    torch.testing.assert_close(torch.as_tensor(residuals), apart, rtol=1e-9, atol=1e-12)


def test_a_product_that_is_not_finite_is_an_error() -> None:
    krylov = Krylov(as_operator(NotFinite()), 3, torch.tensor([1.0, 0.0, 0.0]))
    with pytest.raises(OperatorError, match=r"product 1 with the operator is not finite"):
        krylov.extend()


def test_residuals_of_the_first_rows_are_those_that_they_had_alone() -> None:
    matrix = as_operator(spread(50))
    krylov = Krylov(matrix, 12, random_start(matrix, generator(0)))
    had: list[tuple[np.ndarray, np.ndarray]] = []
    while not krylov.is_full:
        krylov.extend()
        had.append((krylov.ritz[0], krylov.ritz[2]))
    for rows, (values, residuals) in enumerate(had[:-1], start=1):
        assert krylov.leading_residuals(rows, values) == pytest.approx(residuals, abs=1e-12)
