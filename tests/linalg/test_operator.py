"""Products, sums, multiples and blocks of operators."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.linalg.convert import as_operator
from gradnoise.linalg.operator import Operator
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


def test_a_block_without_columns_gives_one_without_columns() -> None:
    parts = CASES[0].build()
    hessian, rows = gn.Hessian(*parts), gn.PerSampleGradients(*parts)
    for matrix in (hessian, 2 * hessian + hessian, hessian.restrict(["2"]), rows, rows.T):
        found = matrix @ torch.ones(matrix.shape[1], 0)
        assert found.shape == (matrix.shape[0], 0)
        assert found.dtype == matrix.dtype


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


def test_only_real_numbers_and_operators_combine() -> None:
    hessian = gn.Hessian(*CASES[0].build())
    with pytest.raises(TypeError):
        hessian + torch.ones(43, 43)
    with torch.inference_mode():
        assert torch.isfinite(hessian @ torch.ones(43)).all()


def test_scipy_gets_products_of_the_operators_dtype() -> None:
    model, loss_fn, batch = CASES[0].build()
    hessian = gn.Hessian(model, loss_fn, batch)
    rows = gn.PerSampleGradients(model, loss_fn, batch)
    weights = np.linspace(0, 1, 6)
    np.testing.assert_allclose(rows.to_scipy().rmatvec(weights), dense(rows).T.numpy() @ weights)
    assert hessian.to_scipy().dtype == np.float64
    assert as_operator(torch.eye(2)).to_scipy().dtype == np.float32


def test_vectors_of_parameters_can_be_dicts() -> None:
    model, loss_fn, batch = CASES[0].build()
    named = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    flat = torch.cat([t.reshape(-1) for t in named.values()])
    hessian = gn.Hessian(model, loss_fn, batch)
    product = hessian @ dict(reversed(named.items()))
    assert {name: t.shape for name, t in product.items()} == {n: t.shape for n, t in named.items()}
    torch.testing.assert_close(torch.cat([t.reshape(-1) for t in product.values()]), hessian @ flat)
    rows = gn.PerSampleGradients(model, loss_fn, batch)
    torch.testing.assert_close(rows @ named, rows @ flat)
    with pytest.raises(gn.OperatorError, match="are not a model's parameters"):
        rows.T @ named


def test_a_class_that_is_not_symmetric_has_to_define_its_transpose() -> None:
    class Without(Operator):
        def products(self, block: Tensor) -> Tensor:
            return block

    with pytest.raises(NotImplementedError, match="Without has no transpose: define `T`, or set"):
        _ = Without().T
