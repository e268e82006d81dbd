"""Sums, blocks and conversions of operators of models and of other libraries."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.linalg.convert import as_operator
from tests.cases import CASES
from tests.dense import dense


@pytest.mark.parametrize("factor", [2, 2.0, np.float32(2), np.int64(2)])
def test_any_real_number_scales_an_operator(factor: Any) -> None:
    matrix = as_operator(torch.eye(2, dtype=torch.float64))
    assert (matrix * factor @ torch.ones(2)).tolist() == [2, 2]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (torch.ones(42), r"vectors of length 43; got 42"),
        (torch.ones(43, 1, 1), r"a block of vectors or a dict; got \(43, 1, 1\)"),
        ([1.0], r"got list"),
        ({"0.weight": torch.ones(5, 4)}, r"a tensor for each of 0.weight, 0.bias, 2.weight"),
    ],
)
def test_what_does_not_fit_is_an_error(other: object, message: str) -> None:
    with pytest.raises(gn.OperatorError, match=message):
        gn.Hessian(*CASES[0].build()) @ other


def test_sums_scalings_and_blocks() -> None:
    model, loss_fn, batch = CASES[0].build()
    hessian, sigma = gn.Hessian(model, loss_fn, batch), gn.GradientCovariance(model, loss_fn, batch)
    h, s = dense(hessian), dense(sigma)
    torch.testing.assert_close(dense(2 * hessian - sigma * 3), 2 * h - 3 * s)
    torch.testing.assert_close(dense((-hessian + sigma).T), s - h)
    sizes = [20, 5, 15, 3]
    kept = torch.cat([torch.full((n,), i in (0, 3)) for i, n in enumerate(sizes)])
    block = hessian.restrict(["0.weight", "2.bias"])
    torch.testing.assert_close(dense(block), h[kept][:, kept])
    assert list(block.parameters or {}) == ["0.weight", "2.bias"]
    torch.testing.assert_close(dense(hessian.restrict(["2"]).T), h[25:, 25:])
    rows = gn.PerSampleGradients(model, loss_fn, batch)
    with pytest.raises(gn.OperatorError, match=r"no trainable parameter or module '1\.weight'"):
        hessian.restrict(["1.weight"])
    with pytest.raises(gn.OperatorError, match="square in parameters"):
        rows.restrict(["2"])
    with pytest.raises(gn.OperatorError, match="operators of one shape"):
        hessian + rows


def equal_layers() -> tuple[nn.Module, nn.Module, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False))
    return model.double(), nn.MSELoss(), (torch.randn(18, 3).double(), torch.randn(18, 3).double())


def test_blocks_of_different_parameters_do_not_add_up() -> None:
    hessian = gn.Hessian(*equal_layers())
    first, second = hessian.restrict(["0"]), hessian.restrict(["2"])
    match = r"same parameters in the same order; got one of 0\.weight and one of 2\.weight"
    for sum_of in (
        lambda: first + second,
        lambda: first - second,
        lambda: 2 * first + (-second),
        lambda: first.T + second.T,
        lambda: (first + first) + second,
    ):
        with pytest.raises(gn.OperatorError, match=match):
            sum_of()
    with pytest.raises(gn.OperatorError, match="a dict must hold"):
        (first + first) @ {"2.weight": torch.ones(3, 3)}


def test_models_of_other_parameter_names_or_orders_do_not_add_up() -> None:
    hessian = gn.Hessian(*equal_layers())
    model, loss_fn, batch = equal_layers()
    named = gn.Hessian(nn.Sequential(model), loss_fn, batch)
    with pytest.raises(gn.OperatorError, match=r"one of 0\.weight, 2\.weight and one of 0\.0"):
        hessian + named
    turned = nn.ModuleDict({"2": nn.Linear(3, 3, bias=False), "0": nn.Linear(3, 3, bias=False)})
    other = gn.Hessian(
        turned.double(), lambda m, b: (m["0"](b[0]) * m["2"](b[0]) - b[1]).square().mean(1), batch
    )
    with pytest.raises(gn.OperatorError, match=r"and one of 2\.weight, 0\.weight"):
        hessian + other


def test_rows_that_are_samples_do_not_add_to_rows_that_are_parameters() -> None:
    model, loss_fn, batch = equal_layers()  # as many samples as parameters
    hessian, rows = gn.Hessian(model, loss_fn, batch), gn.PerSampleGradients(model, loss_fn, batch)
    assert hessian.shape == rows.shape
    with pytest.raises(gn.OperatorError, match="weight with other rows"):
        hessian + rows


def test_operators_of_the_same_parameters_add_up() -> None:
    model, loss_fn, batch = equal_layers()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    loss_fn(model(batch[0]), batch[1]).backward()
    optimizer.step()
    hessian, h = gn.Hessian(model, loss_fn, batch), dense(gn.Hessian(model, loss_fn, batch))
    others: list[Any] = [
        gn.GradientCovariance(model, loss_fn, batch),
        gn.GaussNewton(model, loss_fn, batch),
        gn.Preconditioned(hessian, optimizer),
        gn.Hessian(copy.deepcopy(model), loss_fn, batch),
        as_operator(h),
        as_operator(hessian.to_scipy()),
        hessian + as_operator(h),
    ]
    vector = {"0.weight": torch.ones(3, 3).double(), "2.weight": torch.zeros(3, 3).double()}
    for other in others:
        for total in (hessian + other, other + hessian, (hessian + other).T):
            torch.testing.assert_close(dense(total), h + dense(other))
            product = total @ vector
            assert list(product) == ["0.weight", "2.weight"]
            block = total.restrict(["2"])
            torch.testing.assert_close(dense(block), dense(total)[9:, 9:])
    rows = gn.PerSampleGradients(model, loss_fn, batch)
    torch.testing.assert_close(dense(rows - 2 * rows), -dense(rows))
    torch.testing.assert_close(dense(rows.T + rows.T), 2 * dense(rows).T)


def test_scipy_and_back() -> None:
    model, loss_fn, batch = CASES[0].build()
    hessian = gn.Hessian(model, loss_fn, batch)
    truth = dense(hessian)
    top = float(torch.linalg.eigvalsh(truth)[-1])
    values = eigsh(hessian.to_scipy(), k=1, which="LA", return_eigenvectors=False)
    assert values[0] == pytest.approx(top, rel=1e-10)
    rows = gn.PerSampleGradients(model, loss_fn, batch)
    weights = np.linspace(0, 1, 6)
    np.testing.assert_allclose(rows.to_scipy().rmatvec(weights), dense(rows).T.numpy() @ weights)
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
    hessian = gn.Hessian(*CASES[0].build())
    with pytest.raises(TypeError):
        hessian + torch.ones(43, 43)
    with torch.inference_mode():
        assert torch.isfinite(hessian @ torch.ones(43)).all()
