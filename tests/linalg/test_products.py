"""Products with any operator, how many are enough, and how many are held."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gradnoise import ArgumentError, OperatorError, diagonal, frobenius_norm, trace
from gradnoise.linalg.leave_one_out import LeaveOneOut, gaussian_tests
from gradnoise.linalg.products import Products, products_within
from gradnoise.tensors.random import generator
from tests.spectra import ASYMMETRIC, MATRICES, METHODS, NOISE, OBLONG, Counting, P, with_spectrum


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_products_enough_for_the_matrix_give_the_exact_answer(size: int) -> None:
    matrix = with_spectrum(NOISE[:size], seed=1)
    for products in (size, size + 1, 64):
        for method in METHODS:
            operator = Counting(matrix)
            found = trace(operator, method=method, products=products)
            assert found.is_exact
            assert operator.count == found.samples == size
            assert float(found) == pytest.approx(float(matrix.trace()), abs=1e-14)
        norm, entries = (f(matrix, products=products) for f in (frobenius_norm, diagonal))
        assert norm.is_exact
        assert float(norm) == pytest.approx(float(matrix.norm()), abs=1e-14)
        assert torch.equal(entries.values, matrix.diagonal())
        assert torch.equal(entries.low, entries.high)


def test_the_probes_are_those_that_the_operator_saw() -> None:
    sketch = LeaveOneOut(Products(torch.eye(P).bfloat16()), gaussian_tests(5, P, generator(0)))
    assert torch.equal(sketch.images, sketch.tests)


@pytest.mark.parametrize(("products", "remainder"), [(12, 10), (15, 11), (29, 11), (31, 11)])
def test_no_more_products_than_allowed_are_spent(products: int, remainder: int) -> None:
    for spent, probes, method in zip(
        (products // 2 * 2, products, products),
        (products // 2, remainder, products),
        METHODS,
        strict=True,
    ):
        operator = Counting(ASYMMETRIC)
        assert trace(operator, method=method, products=products).samples == probes
        assert operator.count == spent
    for function in (frobenius_norm, diagonal):
        operator = Counting(MATRICES["flat"])
        assert function(operator, products=products).samples == products // 2
        assert operator.count == products // 2 * 2


class NotFinite:
    shape = (19, 19)

    def __matmul__(self, block: Tensor) -> Tensor:
        images = block.clone()
        images[3, 1] = math.nan
        return images


class LateNotFinite(NotFinite):
    calls = 0

    def __matmul__(self, block: Tensor) -> Tensor:
        self.calls += 1
        return super().__matmul__(block) if self.calls == 2 else block + 0


EYE = torch.eye(9)


@pytest.mark.parametrize(
    ("operator", "options", "error", "message"),
    [
        (NotFinite(), {}, OperatorError, r"product 2 with the operator is not finite"),
        (LateNotFinite(), {}, OperatorError, r"product 8 with the operator is not finite"),
        *OBLONG,
        (EYE, {"products": 3}, ArgumentError, r"`products` must be at least .*size 9.*got 3"),
        (EYE, {"products": 0}, ArgumentError, r"`products` must be a whole number from 1"),
        (EYE, {"products": 5.0}, ArgumentError, r"`products` must be a whole number"),
        (EYE, {"products": True}, ArgumentError, r"`products` must be a whole number.*got True"),
        (EYE, {"memory_budget": 0}, ArgumentError, r"`memory_budget` must be a whole number"),
        (EYE, {"level": 1.0}, ArgumentError, r"`level` is a coverage"),
    ],
)
@pytest.mark.parametrize("estimator", [trace, frobenius_norm, diagonal])
def test_what_makes_no_sense_is_an_error(
    estimator: Any, operator: Any, options: dict[str, Any], error: type, message: str
) -> None:
    operator = type(operator)() if isinstance(operator, NotFinite) else operator
    with pytest.raises(error, match=message):
        estimator(operator, **{"products": 12, **options})


@pytest.mark.parametrize(
    ("estimator", "held"), [(trace, 4.5), (frobenius_norm, 5.0), (diagonal, 7.0)]
)
def test_more_products_than_the_budget_holds_are_refused(estimator: Any, held: float) -> None:
    budget = int(20.5 * held * P * 8)
    estimator(MATRICES["flat"], products=20, memory_budget=budget)
    with pytest.raises(ArgumentError, match=r"holds 20 products.*got `products` = 21.*at most 20"):
        estimator(MATRICES["flat"], products=21, memory_budget=budget)
    with pytest.raises(ArgumentError, match=r"holds 0 products .* are the fewest, or raise"):
        estimator(MATRICES["flat"], products=21, memory_budget=1000)
    with pytest.raises(ArgumentError, match=r"`memory_budget` = .*got `products` = 1000"):
        estimator(MATRICES["flat"], products=1000, memory_budget=budget)  # the matrix itself


def test_each_method_says_how_many_products_it_needs() -> None:
    for method, least in zip(METHODS, (4, 12, 10), strict=True):
        trace(ASYMMETRIC, method=method, products=least)
        with pytest.raises(ArgumentError, match=f"`products` must be at least {least} "):
            trace(ASYMMETRIC, method=method, products=least - 1)
    for function, least in ((frobenius_norm, 4), (diagonal, 12)):
        function(MATRICES["flat"], products=least)
        with pytest.raises(ArgumentError, match=f"`products` must be at least {least} "):
            function(MATRICES["flat"], products=least - 1)


def test_the_dense_matrix_is_counted_and_in_the_dtype_of_sums() -> None:
    known = Products(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert known.dense().tolist() == [[1, 2], [3, 4]]
    assert known.dense().dtype == torch.float64
    assert known.count == 4
    assert known.resolution == torch.finfo(torch.float32).eps
    assert products_within(known, 2, least=12, held=1.0, memory_budget=2**20) == known.size
    assert products_within(Products(ASYMMETRIC), 12, least=12, held=1.0, memory_budget=2**20) == 12
