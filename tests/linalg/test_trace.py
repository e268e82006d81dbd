"""Traces against those of known matrices."""

from __future__ import annotations

import math

import pytest
import torch

from gradnoise import ArgumentError, trace
from tests.spectra import (
    ASYMMETRIC,
    INDEX,
    MATRICES,
    METHODS,
    NOISE,
    SPECTRA,
    P,
    large,
    measured,
    with_spectrum,
)


@pytest.mark.parametrize("rank", [0, 1, 3, 9])
def test_a_low_rank_is_found_down_to_rounding_with_an_error_of_that_size(rank: int) -> None:
    for matrix in (
        with_spectrum(NOISE * INDEX.le(rank), seed=1),
        ASYMMETRIC[:, :rank] @ ASYMMETRIC[:rank],
    ):
        for method in ("xtrace", "hutch++"):
            found = trace(matrix, method=method, products=30)
            scale = float(torch.linalg.matrix_norm(matrix, 2))
            assert float(found) == pytest.approx(float(matrix.trace()), abs=1e-12 * scale)
            assert found.low <= float(matrix.trace()) <= found.high
            assert found.stderr <= 1e-13 * scale
            assert found.stderr > 0 or rank == 0


def test_what_many_equal_eigenvalues_add_in_rounding_is_within_the_error() -> None:
    matrix = with_spectrum(INDEX.le(21).double(), seed=1)
    for method in ("xtrace", "hutch++"):
        options = {"products": 64, "method": method}
        assert measured(trace, matrix, matrix.trace(), 60, **options)[2] >= 0.95


def test_zero_and_the_identity_are_exact() -> None:
    eye, zero = torch.eye(P, dtype=torch.float64), torch.zeros(P, P, dtype=torch.float64)
    for method in METHODS:
        assert trace(zero, method=method, products=20).is_exact
        assert float(trace(zero, method=method, products=20)) == 0
    for method in ("xtrace", "hutchinson"):
        found = trace(eye, method=method, products=20)
        assert float(found) == pytest.approx(P, rel=1e-13)
        assert found.low <= P <= found.high


@pytest.mark.parametrize("products", [8, 20])
@pytest.mark.parametrize("name", SPECTRA)
def test_the_intervals_of_xtrace_hold_the_truth(name: str, products: int) -> None:
    matrix = MATRICES[name]
    errors, _, coverage = measured(trace, matrix, matrix.trace(), 200, products=products)
    assert coverage >= 0.9
    assert abs(float(errors.mean())) <= 4 * float(errors.std()) / math.sqrt(200)


def test_where_the_probes_are_as_many_as_the_large_eigenvalues_the_error_is_still_seen() -> None:
    matrix = MATRICES["step"]  # 20 probes: each misses one direction of 20; s²/k alone covers 0.42
    errors, stderr, coverage = measured(trace, matrix, matrix.trace(), 200, products=40)
    assert coverage >= 0.9
    assert 0.9 <= float(stderr.square().mean() / errors.square().mean()) <= 1.8


@pytest.mark.parametrize("method", ["hutch++", "hutchinson"])
def test_few_coordinates_that_decide_are_like_any_other_directions(method: str) -> None:
    block, equal = torch.zeros(2, P, P, dtype=torch.float64)
    block[:4, :4] = 1  # of random signs, forms of 0, 4 and 16: covered in 0.82
    equal[0, 0] = equal[1, 1] = equal[2, 2] = 100
    for matrix in (block, equal, large(1)):
        options = {"products": 12, "method": method}
        errors, _, coverage = measured(trace, matrix, matrix.trace(), 200, **options)
        assert coverage >= 0.9
        assert abs(float(errors.mean())) <= 4 * float(errors.std()) / math.sqrt(200) + 1e-12


def test_hutchinsons_variance_is_that_of_random_directions() -> None:
    matrix = MATRICES["1/i"]
    errors = measured(trace, matrix, matrix.trace(), 400, products=10, method="hutchinson")[0]
    spread = 2 * P / (P + 2) * (matrix.square().sum() - matrix.trace() ** 2 / P) / 10
    assert float(errors.square().mean() / spread) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("name", SPECTRA)
def test_the_other_estimates_are_unbiased_and_their_intervals_hold(name: str) -> None:
    matrix = MATRICES[name]
    for method in ("hutch++", "hutchinson"):
        options = {"products": 30, "method": method}
        errors, _, coverage = measured(trace, matrix, matrix.trace(), 200, **options)
        assert coverage >= 0.9
        assert abs(float(errors.mean())) <= 4 * float(errors.std()) / math.sqrt(200)


@pytest.mark.parametrize("name", ["1/i²", "0.9^i", "0.7^i", "outliers and noise", "1/i"])
def test_on_decaying_spectra_xtrace_beats_hutch_plus_plus_beats_hutchinson(name: str) -> None:
    matrix = MATRICES[name]
    errors = [
        float(
            measured(trace, matrix, matrix.trace(), 60, products=48, method=method)[0]
            .square()
            .mean()
        )
        for method in METHODS
    ]
    assert errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize("name", ["0.7^i", "step", "1/i²"])
def test_the_stated_error_is_not_below_what_float32_resolves(name: str) -> None:
    exact = MATRICES[name]
    rounded = exact.float()
    truth = rounded.double()
    for method in METHODS:
        options = {"products": 60, "method": method}
        _, stderr, coverage = measured(trace, rounded, truth.trace(), 40, **options)
        assert coverage >= 0.85
        assert float(stderr.min()) >= 1e-7


def test_a_matrix_that_is_not_symmetric_has_a_trace() -> None:
    for method in METHODS:
        options = {"products": 30, "method": method}
        errors, _, coverage = measured(trace, ASYMMETRIC, ASYMMETRIC.trace(), 200, **options)
        assert coverage >= 0.9
        assert abs(float(errors.mean())) <= 4 * float(errors.std()) / math.sqrt(200)


def test_a_method_that_there_is_not_is_an_error() -> None:
    with pytest.raises(ArgumentError, match=r"`method` must be one of xtrace, .*; got 'exact'"):
        trace(torch.eye(9), method="exact")


def test_where_the_budget_holds_few_vectors_they_are_taken_one_by_one() -> None:
    values = torch.linspace(1, 3, 300, dtype=torch.float64)
    matrix = torch.diag(values)
    row = 300 * 8
    assert trace(matrix, memory_budget=108 * row).samples == 12  # of 24 products by xtrace
    inside = 0
    for seed in range(100):
        found = trace(matrix, memory_budget=5 * row, seed=seed)
        assert found.samples == 64
        inside += found.low <= float(values.sum()) <= found.high
    assert inside >= 90
    with pytest.raises(ArgumentError, match=r"`memory_budget` = 2400 .*or raise the budget"):
        trace(matrix, memory_budget=row)
    assert trace(matrix, memory_budget=4 * row).samples == 64  # the budget raised
