"""Matrices of other libraries as operators, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor

import gradnoise as gn
from gradnoise.linalg.convert import as_operator
from tests.cases import CASES
from tests.dense import dense


def test_scipy_and_back() -> None:
    model, loss_fn, batch = CASES[0].build()
    hessian = gn.Hessian(model, loss_fn, batch)
    truth = dense(hessian)
    top = float(torch.linalg.eigvalsh(truth)[-1])
    values = eigsh(hessian.to_scipy(), k=1, which="LA", return_eigenvectors=False)
    assert values[0] == pytest.approx(top, rel=1e-10)
    for foreign in (hessian.to_scipy(), truth, truth.numpy()):
        matrix = as_operator(foreign)
        torch.testing.assert_close(dense(matrix), truth)
        torch.testing.assert_close(dense(matrix.T), truth)
        assert float(gn.lanczos(foreign).values) == pytest.approx(top, rel=1e-6)
    assert as_operator(hessian) is hessian
    with pytest.raises(gn.OperatorError, match=r"needs `shape` \(rows, columns\) and `@` or `m"):
        gn.lanczos("hessian")


TRIANGLE = torch.tensor([[2.0, 1.0, 0.0], [1.0, 3.0, 4.0], [0.0, 4.0, -1.0]], dtype=torch.float64)


class VectorsOnly:
    """Refuses blocks, as `view` or an assertion on the number of dimensions do."""

    shape, calls = (3, 3), 0

    def __matmul__(self, vector: Tensor) -> Tensor:
        self.calls += 1
        return TRIANGLE @ vector.view(3)


class Flattens(VectorsOnly):
    def __matmul__(self, vector: Tensor) -> Tensor:
        self.calls += 1
        return (TRIANGLE @ vector).reshape(-1)


class MatvecOnly:
    shape, dtype = (3, 3), np.dtype("float64")

    def matvec(self, vector: np.ndarray) -> np.ndarray:
        assert isinstance(vector, np.ndarray)
        assert vector.ndim == 1
        return TRIANGLE.numpy() @ vector


@pytest.mark.parametrize("foreign", [VectorsOnly, Flattens, MatvecOnly])
def test_what_takes_vectors_alone_is_given_them_one_by_one(foreign: Any) -> None:
    matrix = foreign()
    torch.testing.assert_close(dense(as_operator(matrix)), TRIANGLE)
    assert float(gn.trace(matrix)) == 4.0
    assert (as_operator(matrix) @ torch.ones(3, 0, dtype=torch.float64)).shape == (3, 0)
    assert getattr(matrix, "calls", 0) <= 3 + 1 + 3 + 1 + 1  # blocks are tried once per operator


def test_a_product_that_fails_says_why() -> None:
    class Broken(VectorsOnly):
        def __matmul__(self, vector: Tensor) -> Tensor:
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        gn.trace(Broken())


def test_what_is_no_real_matrix_is_refused() -> None:
    hermitian = torch.tensor([[2, 1j], [-1j, 2]])
    for matrix in (hermitian, hermitian.numpy()):
        with pytest.raises(gn.OperatorError, match="a matrix of real numbers"):
            gn.lanczos(matrix)

    class Flat:
        shape = (3, 3)

        def __matmul__(self, other: Tensor) -> Tensor:
            return torch.ones(1, 6)

    with pytest.raises(gn.OperatorError, match=r"must have shape \(3,\); got \(1, 6\)"):
        gn.lanczos(Flat())
