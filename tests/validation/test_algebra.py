"""The matrix with known eigenvalues, and the checks on it."""

from __future__ import annotations

import pytest
import torch

from gradnoise.linalg.lanczos import lanczos
from gradnoise.validation import algebra


def test_the_known_matrix_has_the_eigenvalues_that_it_says() -> None:
    matrix, values = algebra.known(3)
    found = torch.linalg.eigvalsh(matrix)
    torch.testing.assert_close(found, values, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-12)


def test_every_check_of_another_seed_holds() -> None:
    checks = list(algebra.products(11))
    assert len(checks) >= 2
    assert [check for check in checks if not check.holds] == []


def test_a_wrong_eigenvalue_fails_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(operator, **options):
        return lanczos(operator, **{**options, "which": "SA"})

    monkeypatch.setattr(algebra, "lanczos", wrong)
    failed = {check.quantity for check in algebra.products(0) if not check.holds}
    assert failed == {f"eigenvalue {place} by Lanczos" for place in (1, 2, 3)}
