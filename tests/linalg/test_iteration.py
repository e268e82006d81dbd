"""Ritz pairs: when they are accepted, their errors, their starts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gradnoise import ArgumentError, OperatorError, SpectralDensity, lanczos
from gradnoise.linalg.convert import as_operator
from gradnoise.linalg.iteration import ROWS, random_start, rows_within
from gradnoise.linalg.operator import MEMORY_BUDGET, Operator
from gradnoise.tensors.random import generator
from tests.spectra import OBLONG, NotFinite, spread, with_spectrum


def test_ritz_values_stay_below_and_their_residual_holds_an_eigenvalue() -> None:
    spectrum = torch.linspace(-1, 1, 200, dtype=torch.float64) ** 3
    matrix = with_spectrum(spectrum)
    for iterations in (1, 3, 10, 30):
        pairs = lanczos(matrix, max_iterations=iterations, tol=1e-14)
        value, residual = float(pairs.values), float(pairs.residuals)
        assert not pairs.converged
        assert pairs.matvecs == iterations
        assert value <= 1 + 1e-12
        assert float((spectrum - value).abs().min()) <= residual + 1e-12


def test_both_ends_come_in_turn() -> None:
    values = lanczos(spread(60), k=3, which="BE", tol=1e-8).values
    assert values.tolist() == pytest.approx([9.0, -5.0, 7.0])


def test_no_more_products_than_allowed_are_spent() -> None:
    matrix = with_spectrum(torch.linspace(0, 1, 60).double())
    for limit in (3, 5, 150):
        pairs = lanczos(matrix, k=3, max_iterations=limit, tol=1e-3)
        assert pairs.matvecs <= limit
        assert pairs.converged == (limit == 150)


def test_float32_products_are_good_for_what_they_say() -> None:
    matrix = spread(300)
    pairs = lanczos(matrix.float(), k=2, tol=1e-5)
    assert pairs.vectors.dtype == torch.float32
    assert pairs.values.dtype == torch.float64
    gaps = (pairs.values - torch.tensor([9.0, 7.0])).abs()
    assert (gaps <= pairs.residuals).all()
    assert pairs.residuals.max() < 1e-4
    assert not lanczos(matrix.float(), tol=1e-9).converged  # finer than the products are


def test_a_tolerance_finer_than_the_products_ends_early() -> None:
    pairs = lanczos(spread(300).float(), tol=1e-8)
    assert not pairs.converged
    assert pairs.matvecs < 60


def test_starts_of_many_float32_entries_are_of_unit_length() -> None:
    diagonal = torch.rand(2_000_000, generator=torch.Generator().manual_seed(0))
    diagonal[:3] = torch.tensor([5.0, 4.0, 3.0])

    class Diagonal:
        shape, dtype, device = (2_000_000, 2_000_000), torch.float32, torch.device("cpu")

        def __matmul__(self, block: Tensor) -> Tensor:
            return diagonal[:, None] * block

    pairs = lanczos(Diagonal(), tol=1e-4, max_iterations=30)
    assert pairs.converged
    assert abs(float(pairs.values) - 5) <= float(pairs.residuals)
    assert float(pairs.vectors.double().norm()) == pytest.approx(1, abs=5e-6)


def test_a_random_start_is_orthogonal_to_what_is_known() -> None:
    rows = torch.eye(9, dtype=torch.float64)[:8]
    start = random_start(as_operator(torch.eye(9).double()), generator(0), [rows[:3], rows[3:]])
    assert start[:8].tolist() == [0] * 8
    assert abs(float(start[8])) == 1


@pytest.mark.parametrize("solver", [lanczos, SpectralDensity.of])
@pytest.mark.parametrize(
    ("operator", "options", "error", "message"),
    [(NotFinite(), {}, OperatorError, r"product 1 with the operator is not finite"), *OBLONG],
)
def test_operators_that_cannot_be_iterated_are_refused(
    solver: Any, operator: Any, options: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        solver(operator, **options)


def test_pairs_are_printed_without_their_vectors() -> None:
    matrix = torch.diag(torch.tensor([4.0, 1.0, 0.5])).double()
    assert str(lanczos(matrix, tol=1e-9)).startswith("4 (residual ")
    assert str(lanczos(matrix, tol=1e-9)).endswith(" products")
    assert str(lanczos(matrix, max_iterations=1, tol=1e-9)).endswith("1 products, not converged")


class Huge(Operator):
    """A matrix whose vectors take half of the default budget each."""

    shape, dtype, device = (MEMORY_BUDGET // 8,) * 2, torch.float32, torch.device("cpu")

    def products(self, block: Tensor) -> Tensor:
        return block


def test_the_default_budget_holds_a_basis_of_any_model() -> None:
    assert rows_within(Huge(), 1, MEMORY_BUDGET) == 1 + ROWS
    assert rows_within(Huge(), 3, MEMORY_BUDGET) == 3 + ROWS
    with pytest.raises(ArgumentError, match="holds 1 vectors of 536870912 bytes; k = 1 pairs need"):
        rows_within(Huge(), 1, MEMORY_BUDGET - 1)
