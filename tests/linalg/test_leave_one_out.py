"""Estimates without some of the test vectors: exact, and with honest standard errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gradnoise import frobenius_norm, trace
from gradnoise.linalg.diagonal import _Deflated
from gradnoise.linalg.frobenius import _without as without_in_square
from gradnoise.linalg.leave_one_out import LeaveOneOut, gaussian_tests
from gradnoise.linalg.products import Products
from gradnoise.linalg.trace import _without as without_in_trace
from gradnoise.tensors.random import generator
from tests.spectra import ASYMMETRIC, MATRICES, P, large, measured


def literal(
    matrix: Tensor, tests: Tensor, probe: int, out: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """The basis without some tests, the projector out of it, and the probe outside of it."""
    size, kept = len(matrix), [i for i in range(tests.shape[1]) if i not in out]
    basis = torch.linalg.qr(matrix @ tests[:, kept]).Q
    outside = torch.eye(size, dtype=torch.float64) - basis @ basis.T
    nu = outside @ tests[:, probe]
    return basis, outside, nu * math.sqrt(size - len(kept)) / nu.norm()


def literal_trace(matrix: Tensor, tests: Tensor, probe: int, out: list[int]) -> Tensor:
    basis, _, nu = literal(matrix, tests, probe, out)
    return (basis.T @ matrix @ basis).trace() + nu @ matrix @ nu


def literal_square(matrix: Tensor, tests: Tensor, probe: int, out: list[int]) -> Tensor:
    _, outside, nu = literal(matrix, tests, probe, out)
    known = matrix - outside @ matrix @ outside
    return known.square().sum() + (outside @ matrix @ nu).square().sum()


def literal_diagonal(matrix: Tensor, tests: Tensor, probe: int, out: list[int]) -> Tensor:
    kept = [i for i in range(tests.shape[1]) if i not in out]
    basis = torch.linalg.qr(matrix @ tests[:, kept]).Q
    outside = torch.eye(len(matrix), dtype=torch.float64) - basis @ basis.T
    rest = outside @ matrix @ outside
    return (matrix - rest).diagonal() + tests[:, probe] * (rest @ tests[:, probe])


@pytest.mark.parametrize(
    ("made", "literal", "matrices"),
    [
        (without_in_trace, literal_trace, [MATRICES["1/i"], MATRICES["indefinite"], ASYMMETRIC]),
        (without_in_square, literal_square, [MATRICES["1/i"], MATRICES["indefinite"]]),
        (_Deflated, literal_diagonal, [MATRICES["1/i"], MATRICES["indefinite"]]),
    ],
)
def test_leaving_vectors_out_equals_starting_without_them(
    made: Callable[[LeaveOneOut], Any], literal: Callable[..., Tensor], matrices: list[Tensor]
) -> None:
    for matrix in matrices:
        tests = gaussian_tests(6, P, generator(0))
        sketch = LeaveOneOut(Products(matrix), tests)
        estimate = made(sketch)
        for i in range(6):
            single = estimate(sketch.dropped[i].unsqueeze(1), torch.tensor(i))
            torch.testing.assert_close(
                single, literal(matrix, tests, i, [i]), rtol=1e-9, atol=1e-10
            )
        for i, j, plane in zip(*sketch.pairs(6), strict=True):
            for probe in (int(i), int(j)):
                pair = estimate(plane, torch.tensor(probe))
                expected = literal(matrix, tests, probe, [int(i), int(j)])
                torch.testing.assert_close(pair, expected, rtol=1e-9, atol=1e-10)


def test_estimates_of_all_probes_at_once_are_those_one_by_one() -> None:
    sketch = LeaveOneOut(Products(MATRICES["1/i"]), gaussian_tests(5, P, generator(0)))
    for made in (without_in_trace, without_in_square):
        estimate = made(sketch)
        one_by_one = [estimate(sketch.dropped[i].unsqueeze(1), torch.tensor(i)) for i in range(5)]
        torch.testing.assert_close(sketch.singles(estimate), torch.stack(one_by_one))
    assert len(sketch.pairs(32)[0]) == 10
    assert len(sketch.pairs(3)[0]) == 3


@pytest.mark.parametrize(
    ("products", "falling"), [(6, False), (10, False), (20, False), (20, True)]
)
def test_a_direction_that_all_probes_miss_is_seen_by_leaving_out_two(
    products: int, falling: bool
) -> None:
    matrix = large(products // 2, falling)
    for estimator, truth in ((trace, matrix.trace()), (frobenius_norm, matrix.norm())):
        _, _, coverage = measured(estimator, matrix, truth, 200, products=products)
        assert coverage >= 0.95  # without the jackknife 0.86 to 0.91


def test_the_error_stated_is_a_quarter_of_the_jackknifes_or_more() -> None:
    matrix, tests = large(6), gaussian_tests(6, P, generator(0))
    _, variance = (sketch := LeaveOneOut(Products(matrix), tests)).estimates(
        without_in_trace(sketch)
    )
    wholes = torch.stack(
        [
            torch.stack(
                [literal_trace(matrix, tests, i, [i, j]) for i in range(6) if i != j]
            ).mean()
            for j in range(6)
        ]
    )
    jackknife = 5 / 6 * float((wholes - wholes.mean()).square().sum())
    assert variance == pytest.approx(jackknife / 16, rel=1e-9)


@pytest.mark.parametrize("name", ["flat", "1/i", "0.9^i", "indefinite"])
def test_standard_errors_count_what_the_estimates_share(name: str) -> None:
    matrix = MATRICES[name]
    for estimator, truth in ((trace, matrix.trace()), (frobenius_norm, matrix.norm())):
        errors, stderr, _ = measured(estimator, matrix, truth, 200, products=40)
        ratio = float(stderr.square().mean().sqrt() / errors.square().mean().sqrt())
        assert 0.88 <= ratio <= 1.15  # s²/k alone: 0.6 to 0.85
