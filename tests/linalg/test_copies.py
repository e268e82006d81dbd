"""Copies that rounding puts into a Krylov basis, and rows that are free of them."""

from __future__ import annotations

import torch
from torch import Tensor

from gradnoise import lanczos
from gradnoise.linalg.convert import as_operator
from gradnoise.linalg.copies import rows_without_copies
from gradnoise.linalg.iteration import random_start
from gradnoise.linalg.krylov import Krylov
from gradnoise.tensors.random import generator
from tests.spectra import with_spectrum

VALUES = [*[0.0] * 14, 1.0, 2.0, 3.0, 4.0, 10.0, 10.0, 1.5, 0.5, 0.007812]
VALUES += [-1.0, -5.0, -8.0, -9.0, -9.25, -9.375, 0.003906]
MATRIX = with_spectrum(VALUES)


def spaces(seed: int) -> tuple[Krylov, Tensor]:
    """A space, and the vector of the top eigenvalue that its start is orthogonal to."""
    start = random_start(as_operator(MATRIX), generator(seed))
    plane = torch.linalg.eigh(MATRIX)[1][:, -2:]
    one, other = (plane.T @ start).tolist()
    copy = plane @ torch.tensor([-other, one], dtype=torch.float64)
    return Krylov(as_operator(MATRIX), 30, start), copy / copy.norm()


def part(rows: list[Tensor], vector: Tensor) -> float:
    return float((torch.cat(rows) @ vector).norm())


def test_the_rows_hold_the_ritz_vectors_and_little_of_a_copy_that_enters() -> None:
    entered = 0
    for seed in range(60):
        krylov, copy = spaces(seed)
        while krylov.count < 17:
            krylov.extend()
            order = (-abs(krylov.ritz[0])).argsort()[:2]
            rows = rows_without_copies(krylov, order)
            gram = torch.cat(rows) @ torch.cat(rows).T
            torch.testing.assert_close(gram, torch.eye(len(gram)).double(), rtol=0, atol=1e-10)
            top = krylov.combined(krylov.ritz[1][:, order[:1]])[:, 0]
            assert part(rows, top) > 0.99
            if part(krylov.rows, copy) < 0.9:  # else it is a Ritz value
                entered += part(krylov.rows, copy) > 0.2
                assert part(rows, copy) < 0.2
    assert entered > 2


def test_without_a_copy_the_rows_are_those_of_the_basis() -> None:
    krylov, _ = spaces(0)
    for _ in range(6):
        krylov.extend()
    order = (-abs(krylov.ritz[0])).argsort()[:2]
    rows = rows_without_copies(krylov, order)
    assert torch.equal(torch.cat(rows), torch.cat(krylov.rows))


def test_a_copy_that_is_half_inside_the_first_space_is_found() -> None:
    missed = sum(
        float(lanczos(MATRIX, k=3, which="LM", tol=1e-10, seed=seed).values[1]) < 9.9
        for seed in range(300)
    )
    assert missed <= 2  # 0.3 by chance; 7 where all rows of the basis were avoided
