"""Lanczos on matrices whose spectrum is known."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

import gradnoise as gn
from gradnoise import ArgumentError, Eigenpairs, lanczos
from tests.fuzz import examples
from tests.spectra import spread, with_spectrum


def check_pairs(matrix: Tensor, pairs: Eigenpairs, tol: float) -> None:
    image = matrix @ pairs.vectors
    residuals = (image - pairs.vectors * pairs.values).norm(dim=0)
    scale = float(matrix.abs().max())
    torch.testing.assert_close(residuals, pairs.residuals, rtol=1e-4, atol=1e-10 * scale)
    assert (residuals <= tol * pairs.values.abs() + 1e-9 * scale).all()
    gram = pairs.vectors.T @ pairs.vectors
    torch.testing.assert_close(gram, torch.eye(len(gram), dtype=gram.dtype), rtol=0, atol=1e-10)


@examples(60)
@given(
    st.lists(st.floats(-10, 10).map(lambda value: round(value, 6)), min_size=2, max_size=30),
    st.sampled_from(["LA", "SA", "LM"]),
    st.integers(1, 3),
)
def test_pairs_at_either_end_are_those_of_the_dense_solver(
    values: list[float], which: str, k: int
) -> None:
    k = min(k, len(values))
    pairs = lanczos(with_spectrum(values), k=k, which=which, tol=1e-10)
    order = {"LA": lambda x: -x, "SA": lambda x: x, "LM": lambda x: -abs(x)}[which]
    expected = torch.tensor(sorted(values, key=order)[:k], dtype=torch.float64)
    found = pairs.values if which != "LM" else pairs.values.abs()
    expected = expected if which != "LM" else expected.abs()
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    assert pairs.converged
    check_pairs(with_spectrum(values), pairs, 1e-10)


AWKWARD = (0.0, 1.0, -1.0, 5.0, 9.0, 1e-5, -1e-5)  # repeated, clustered, tiny beside large


def best(values: Tensor, which: str, k: int) -> Tensor:
    """The k wanted of the ascending values, in the order of `lanczos`."""
    if which == "LM":
        return values[values.abs().argsort(descending=True, stable=True)][:k]
    if which == "BE":
        return torch.stack([values.flip(0), values], dim=1).reshape(-1)[:k]
    return values[:k] if which == "SA" else values.flip(0)[:k]


def check_against_dense(matrix: Tensor, k: int, which: str, tol: float, seed: int) -> None:
    """Everything that a result says that it has converged, but for a chance below 1e-4."""
    dense = torch.linalg.eigvalsh(matrix.double())
    size, eps = float(dense.abs().max()), torch.finfo(matrix.dtype).eps
    zero = size * max(1e-12, 8 * eps)
    pairs = lanczos(matrix, k=k, which=which, tol=tol, seed=seed, max_iterations=1000)
    found, expected, vectors = pairs.values, best(dense, which, k), pairs.vectors.double()
    residuals = (matrix.double() @ vectors - vectors * found).norm(dim=0)
    assert pairs.converged
    assert len(found) == k
    assert (residuals <= pairs.residuals * (1 + 1e-4) + 99 * eps * size).all()
    assert (pairs.residuals <= 2 * (tol * found.abs()).clamp(min=zero)).all()
    gaps = found.abs() - expected.abs() if which == "LM" else found - expected
    least = zero if matrix.dtype == torch.float64 else 100 * zero
    assert (gaps.abs() <= 2 * (tol * expected.abs()).clamp(min=least)).all()


@examples(60)
@given(
    st.lists(st.sampled_from(AWKWARD), min_size=1, max_size=30),
    st.sampled_from(["LA", "SA", "LM", "BE"]),
    st.integers(1, 30),
    st.sampled_from([(torch.float64, 1e-10), (torch.float64, 1e-3), (torch.float32, 1e-3)]),
    st.integers(-9, 9),
    st.integers(0, 10**6),
)
def test_awkward_spectra_at_any_scale_are_those_of_the_dense_solver(
    values: list[float], which: str, k: int, how: tuple[torch.dtype, float], scale: int, seed: int
) -> None:
    dtype, tol = how
    matrix = (with_spectrum(values, seed=seed) * 10.0**scale).to(dtype)
    check_against_dense((matrix + matrix.T) / 2, min(k, len(values)), which, tol, seed)


@pytest.mark.parametrize(("k", "tol"), [(3, 1e-10), (1, 1e-10), (3, 1e-6), (6, 1e-3)])
def test_a_residual_at_the_rounding_of_the_largest_eigenvalue_has_converged(
    k: int, tol: float
) -> None:
    matrix = with_spectrum([0.0, 0.0, 1.0, 1.0, 9.0, -1e-5])
    for seed in range(200):
        check_against_dense(matrix, k, "SA", tol, seed)


@pytest.mark.parametrize(
    ("values", "which", "k"),
    [
        (np.repeat(10.0 ** -np.arange(6), 3), "LA", 15),
        ([4.0, 4, 2, 2, *[0.0] * 10, -1e-3, -1e-3], "BE", 6),
        ([4.0, 4, *np.linspace(1, 3, 30), *[0.0] * 10, -1e-3, -1e-3], "BE", 6),
    ],
)
def test_large_eigenvalues_do_not_blur_small_ones_that_are_found_after_them(
    values: list[float], which: str, k: int
) -> None:
    matrix = with_spectrum(values)
    for seed in range(60):
        pairs = lanczos(matrix, k=k, which=which, tol=1e-2, seed=seed, max_iterations=500)
        assert pairs.converged
        check_pairs(matrix, pairs, 2e-2)


def test_what_is_sought_once_more_stays_within_the_limit() -> None:
    matrix = with_spectrum([4.0, 4, 2, 2, *[0.0] * 10, -1e-3, -1e-3])
    options: dict[str, Any] = {"k": 6, "which": "BE", "tol": 1e-2}
    spent = [lanczos(matrix, seed=seed, **options).matvecs for seed in range(60)]
    seed, most = spent.index(max(spent)), max(spent)
    runs = {n: lanczos(matrix, seed=seed, max_iterations=n, **options) for n in range(6, most)}
    expected = pytest.approx([4, -1e-3, 4, -1e-3, 2, 0], abs=1e-5)
    first = next(limit for limit, pairs in runs.items() if pairs.values.tolist() == expected)
    for limit, pairs in runs.items():  # how many there are depends on the rounding
        assert not pairs.converged
        assert pairs.matvecs <= limit
        assert limit < first or pairs.values.tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_copies_are_found_where_the_tolerance_is_finer_than_the_products(
    dtype: torch.dtype,
) -> None:
    pairs = lanczos(with_spectrum([3.0, 3, 1, 1, 0.5]).to(dtype), k=4, tol=1e-17)
    assert pairs.values.tolist() == pytest.approx([3, 3, 1, 1], rel=1e-5)
    assert not pairs.converged


def test_a_zero_is_told_whatever_the_tolerance() -> None:
    matrix = with_spectrum([3.0, 1.0, 0.0]).float()
    for which, converged in (("SA", True), ("LA", False)):
        assert lanczos(matrix, which=which, tol=1e-9).converged == converged


def test_the_bound_holds_where_the_whole_space_was_seen() -> None:
    for size in (2, 3, 5, 8, 12):
        matrix = with_spectrum(np.linspace(1, 2, size))
        top = float(torch.linalg.eigvalsh(matrix)[-1])
        assert all(lanczos(matrix, tol=1e-12, seed=seed).bound >= top for seed in range(100))


def test_the_largest_is_the_most_positive_and_not_the_largest_magnitude() -> None:
    matrix = torch.diag(torch.tensor([-10.0, 3.0, 1.0]))
    assert float(lanczos(matrix, tol=1e-10).values) == pytest.approx(3)
    assert float(lanczos(matrix, which="LM", tol=1e-10).values) == pytest.approx(-10)


@pytest.mark.parametrize(
    ("values", "k", "expected"),
    [
        ([1.0] * 5, 1, [1.0]),
        ([1.0] * 5, 3, [1.0] * 3),
        ([3.0, 3.0, 1.0, 0.0], 2, [3.0, 3.0]),
        ([0.0] * 4, 2, [0.0] * 2),
        ([-2.0] * 3, 1, [-2.0]),
        ([5.0], 1, [5.0]),
        ([2.0, -1.0, 4.0], 3, [4.0, 2.0, -1.0]),
    ],
)
def test_repeated_zero_and_negative_eigenvalues_are_found(
    values: list[float], k: int, expected: list[float]
) -> None:
    pairs = lanczos(with_spectrum(values), k=k, tol=1e-10)
    torch.testing.assert_close(
        pairs.values, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9
    )
    assert pairs.converged
    check_pairs(with_spectrum(values), pairs, 1e-10)


def test_an_eigenvalue_that_comes_twice_is_found_among_many() -> None:
    matrix = with_spectrum([5.0, 5.0, *torch.linspace(0, 4, 60).tolist()])
    for operator in (matrix, matrix.float()):
        pairs = lanczos(operator, k=2, tol=1e-4)
        torch.testing.assert_close(
            pairs.values, torch.tensor([5.0, 5.0]).double(), rtol=1e-5, atol=0
        )
    repeated = torch.diag(torch.tensor([5.0, 5, 1, 1, 1]))
    assert lanczos(repeated, k=2).values.tolist() == pytest.approx([5, 5])


def test_a_start_that_is_another_eigenvector_is_not_believed() -> None:
    matrix = torch.diag(torch.tensor([5.0, 4.0, 1.0], dtype=torch.float64))
    pairs = lanczos(matrix, v0=torch.tensor([0.0, 1.0, 0.0]))
    assert float(pairs.values) == pytest.approx(5)


@pytest.mark.parametrize("k", [1, 3, 4])
def test_a_start_in_the_null_space_does_not_hide_what_is_rounding(k: int) -> None:
    matrix = torch.zeros(22, 22)
    for seed in range(20):
        rest = with_spectrum([-0.13, -0.1, *[0.0] * 15, 0.04, 0.09, 0.11, 0.14], seed).float()
        matrix[1:, 1:] = (rest + rest.T) / 2
        pairs = lanczos(matrix, k=k, which="SA", v0=torch.eye(22)[0], seed=seed)
        assert pairs.converged
        assert pairs.matvecs <= 40  # without a scale, rounding was taken for ever smaller values
        expected = [-0.13, -0.1, 0.0, 0.0][:k]
        assert pairs.values.tolist() == pytest.approx(expected, abs=1e-6)


def test_a_start_in_the_null_space_learns_the_rounding_from_the_search() -> None:
    matrix = torch.zeros(22, 22)
    for seed in range(20):
        rest = with_spectrum([0.0] * 15 + [0.04, 0.09, 0.11, 0.14, 0.2, 0.3], seed).float()
        matrix[1:, 1:] = (rest + rest.T) / 2
        pairs = lanczos(matrix, which="SA", v0=torch.eye(22)[0], seed=seed)
        assert pairs.converged
        assert float(pairs.residuals) >= 0.3 * torch.finfo(torch.float32).eps * 0.99
        assert pairs.matvecs <= 12  # 18 where a Ritz value of -1e-9 is taken for a smaller one


def test_tolerance_buys_accuracy_with_products() -> None:
    matrix = with_spectrum(torch.linspace(0, 1, 100).double())
    rough, fine = (lanczos(matrix, tol=tol) for tol in (1e-1, 1e-6))
    assert rough.matvecs < fine.matvecs < 100
    assert float(fine.values) == pytest.approx(1, abs=1e-9)


def test_a_good_start_saves_products() -> None:
    matrix = with_spectrum(torch.linspace(0, 1, 100).double())
    cold = lanczos(matrix, tol=1e-4)
    warm = lanczos(matrix, tol=1e-4, v0=cold.vectors[:, 0])
    assert warm.matvecs <= 2 < cold.matvecs


def test_float32_products_still_give_seven_digits() -> None:
    matrix = with_spectrum(torch.linspace(-2, 5, 60).double()).float()
    assert float(lanczos(matrix, tol=1e-5).values) == pytest.approx(5, rel=1e-6)


def test_the_seed_decides_the_start() -> None:
    matrix = with_spectrum(torch.linspace(0, 1, 50).double())
    first, again, other = (lanczos(matrix, max_iterations=4, seed=s).values for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 4}, r"`k` must be from 1 to the operator's size 3; got 4"),
        ({"k": 0}, r"`k` must be a whole number from 1 on; got 0"),
        ({"k": 1.5}, r"`k` must be a whole number from 1 on; got 1.5"),
        ({"which": "LR"}, r"`which` must be.*got 'LR'"),
        ({"tol": 0.0}, r"`tol` must be positive; got 0.0"),
        ({"max_iterations": 0}, r"`max_iterations` must be a whole number from 1"),
        ({"max_iterations": 1, "k": 2}, r"cannot give k = 2 pairs"),
        ({"tol": math.inf}, r"`tol` must be positive; got inf"),
        ({"memory_budget": None}, r"`memory_budget` must be a whole.*None"),
        ({"v0": torch.zeros(3)}, r"`v0` must be finite and not zero"),
        ({"v0": {"w": torch.ones(3)}}, r"`v0` must be a vector.*got dict"),
        ({"v0": torch.ones(3, 1)}, r"`v0`.*take a column, v0\[:, 0\]"),
        ({"v0": torch.ones(2)}, r"`v0`.*got shape \(2,\)"),
    ],
)
def test_options_that_make_no_sense_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        lanczos(torch.eye(3), **options)


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("which", ["LA", "SA", "LM", "BE"])
def test_a_basis_within_its_budget_is_restarted(which: str, k: int) -> None:
    matrix = spread(120)
    rows = 8 * 120  # bytes of one vector
    whole = lanczos(matrix, k=k, which=which, tol=1e-8)
    pairs = lanczos(
        matrix, k=k, which=which, tol=1e-8, memory_budget=(2 * k + 8) * rows, max_iterations=2000
    )
    assert pairs.converged
    torch.testing.assert_close(pairs.values, whole.values, rtol=1e-9, atol=1e-9)
    check_pairs(matrix, pairs, 1e-8)
    with pytest.raises(ArgumentError, match=rf"holds {k + 3} vectors of 960 bytes; k = {k} pairs"):
        lanczos(matrix, k=k, memory_budget=(k + 3) * rows)


def test_wishart_spectra_with_a_negative_part() -> None:
    source = torch.Generator().manual_seed(1)
    x = torch.randn(400, 200, generator=source, dtype=torch.float64)
    matrix = x.T @ x / 400 - torch.eye(200)
    truth = torch.linalg.eigvalsh(matrix)
    found = lanczos(matrix, k=4, which="BE", tol=1e-6).values
    torch.testing.assert_close(found, truth[[-1, 0, -2, 1]], rtol=1e-8, atol=1e-8)


def test_softmax_regression_at_zero_has_the_spectrum_of_its_inputs() -> None:
    """H = (1/K)(I - 11ᵀ/K) ⊗ XᵀX/n, so λ = λ_max(XᵀX/n)/K, K - 1 times."""
    classes, x = 5, torch.randn(40, 6, dtype=torch.float64)
    model = torch.nn.Linear(6, classes, bias=False).double()
    torch.nn.init.zeros_(model.weight)
    labels = torch.randint(classes, (40,))
    top = float(torch.linalg.eigvalsh(x.T @ x / 40)[-1]) / classes
    pairs = gn.sharpness(model, torch.nn.CrossEntropyLoss(), (x, labels), k=classes, tol=1e-8)
    assert pairs.values[: classes - 1].tolist() == pytest.approx([top] * (classes - 1))
    assert float(pairs.values[-1]) < top * 0.99


def test_the_smallest_eigenvalue_of_a_singular_matrix_is_found() -> None:
    matrix = with_spectrum([*torch.linspace(1, 2, 30).tolist(), 0.0])
    pairs = lanczos(matrix, which="SA")
    assert pairs.converged
    assert pairs.values.tolist() == pytest.approx([0.0], abs=1e-11)


def eigsh_products(matrix: torch.Tensor, k: int, v0: np.ndarray) -> int:
    """Products that ARPACK takes."""
    array, count = matrix.numpy(), itertools.count(1)
    spent = 0

    def product(vector: np.ndarray) -> np.ndarray:
        nonlocal spent
        spent = next(count)
        return array @ vector.reshape(-1)

    operator = LinearOperator(array.shape, matvec=product, dtype=float)
    eigsh(operator, k=k, which="LA", tol=1e-3, v0=v0)
    return spent


SPECTRA = {
    "one by one": 1 / np.arange(1, 301),
    "outliers": np.concatenate([[10, 6, 4, 3, 2.5], np.linspace(0, 0.7, 295)]),
    "decay": np.exp(-np.arange(300) / 10),
    "both signs": np.concatenate([np.linspace(-3, 3, 296), [4, 3.5, -4.2, -3.3]]),
    "flat": np.linspace(0, 1, 300),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("k", [1, 3, 5])
def test_no_more_products_than_arpack_from_the_same_start(name: str, k: int) -> None:
    matrix = torch.diag(torch.as_tensor(SPECTRA[name]))
    for seed in range(5):
        v0 = np.random.default_rng(seed).normal(size=300)
        pairs = lanczos(matrix, k=k, v0=v0, repeats=False)
        assert pairs.converged
        assert pairs.matvecs <= eigsh_products(matrix, k, v0)


def test_repeated_eigenvalues_are_found_from_every_start() -> None:
    matrix = torch.diag(torch.tensor([3.0, 3.0, 2.0, *np.linspace(-1, 1.5, 200)]).double())
    for seed in range(100):
        pairs = lanczos(matrix, k=2, seed=seed)
        torch.testing.assert_close(
            pairs.values, torch.tensor([3.0, 3.0]).double(), rtol=1e-3, atol=0
        )
        errors = (matrix @ pairs.vectors - pairs.vectors * pairs.values).norm(dim=0)
        assert (errors <= pairs.residuals * (1 + 1e-9)).all()
    assert float(lanczos(matrix, k=2, repeats=False).values[1]) == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_both_ends_are_searched(seed: int) -> None:
    values = [-5.0] * 3 + [5.0] * 3 + torch.linspace(-1, 1, 60).tolist()
    found = lanczos(torch.diag(torch.tensor(values).double()), k=6, which="BE", seed=seed).values
    assert found.tolist() == pytest.approx([5, -5] * 3)
    levels = torch.tensor([-2.0, -1, 0, 1, 2]).double().repeat_interleave(9)
    found = lanczos(torch.diag(levels), k=4, which="BE", seed=seed).values
    assert found.tolist() == pytest.approx([2, -2, 2, -2])


def test_what_hides_behind_a_narrow_bulk_is_found() -> None:
    bulk = 1 + 0.002 * torch.rand(999, generator=torch.Generator().manual_seed(0)).double()
    single = torch.diag(torch.cat([bulk, torch.tensor([1.2]).double()]))
    double = torch.diag(torch.cat([bulk, torch.tensor([2.0, 2.0]).double()]))
    for seed in range(100):
        assert float(lanczos(single, seed=seed).values) == pytest.approx(1.2, rel=1e-3)
        assert lanczos(double, k=2, seed=seed).values.tolist() == pytest.approx([2, 2], rel=1e-3)


@pytest.mark.parametrize("size", [1e-30, 1e30, 1e-200])
def test_the_length_of_a_start_does_not_matter(size: float) -> None:
    v0 = size * torch.ones(3, dtype=torch.float64)
    assert float(lanczos(torch.diag(torch.tensor([1.0, 2.0, 3.0])), v0=v0).values) == pytest.approx(
        3
    )
    assert len(lanczos(torch.eye(3), k=np.int64(2)).values) == 2
