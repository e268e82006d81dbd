"""Trace, Frobenius norm and diagonal on matrices that are known."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gradnoise import (
    ArgumentError,
    Diagonal,
    Estimate,
    Hessian,
    OperatorError,
    diagonal,
    frobenius_norm,
    trace,
)
from gradnoise.linalg.leave_one_out import LeaveOneOut, gaussian_tests
from gradnoise.linalg.products import Products
from gradnoise.tensors.random import generator

P = 100
INDEX = torch.arange(1, P + 1, dtype=torch.float64)
NOISE = torch.randn(P, generator=generator(0), dtype=torch.float64)
SPECTRA = {
    "flat": torch.linspace(1, 3, P, dtype=torch.float64),
    "1/i": 1 / INDEX,
    "1/i²": INDEX**-2,
    "0.9^i": 0.9**INDEX,
    "0.7^i": 0.7**INDEX,
    "step": torch.where(INDEX <= 20, 1.0, 1e-3).double(),
    "outliers and noise": torch.where(INDEX <= 5, 100 / INDEX, 1 + 0.1 * NOISE),
    "indefinite": NOISE - 0.5,
    "±1/i": torch.sign(NOISE - 0.3) / INDEX,
}
METHODS = ("xtrace", "hutch++", "hutchinson")
Estimator = Callable[..., Estimate]


def with_spectrum(values: Tensor) -> Tensor:
    """A symmetric matrix with these eigenvalues in random directions."""
    square = torch.randn(len(values), len(values), generator=generator(1), dtype=torch.float64)
    basis = torch.linalg.qr(square).Q
    return basis * values @ basis.T


MATRICES = {name: with_spectrum(values) for name, values in SPECTRA.items()}
PLAIN = torch.randn(P, P, generator=generator(2), dtype=torch.float64)  # not symmetric


class Counting:
    """A matrix that counts its products; the operator of last resort: `shape` and `@` only."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.shape, self.count = matrix, matrix.shape, 0

    def __matmul__(self, block: Tensor) -> Tensor:
        self.count += block.shape[1]
        return self.matrix @ block


# ---- exact: what is left out, against the same written out with a QR for each


def literal_trace(matrix: Tensor, tests: Tensor, probe: int, out: list[int]) -> Tensor:
    size, kept = len(matrix), [i for i in range(tests.shape[1]) if i not in out]
    basis = torch.linalg.qr(matrix @ tests[:, kept]).Q
    outside = torch.eye(size, dtype=torch.float64) - basis @ basis.T
    nu = outside @ tests[:, probe]
    nu = nu * math.sqrt(size - len(kept)) / nu.norm()
    return (basis.T @ matrix @ basis).trace() + nu @ matrix @ nu


def literal_square(matrix: Tensor, tests: Tensor, probe: int, out: list[int]) -> Tensor:
    size, kept = len(matrix), [i for i in range(tests.shape[1]) if i not in out]
    basis = torch.linalg.qr(matrix @ tests[:, kept]).Q
    outside = torch.eye(size, dtype=torch.float64) - basis @ basis.T
    nu = outside @ tests[:, probe]
    nu = nu * math.sqrt(size - len(kept)) / nu.norm()
    known = matrix - outside @ matrix @ outside
    return known.square().sum() + (outside @ matrix @ nu).square().sum()


def literal_diagonal(matrix: Tensor, tests: Tensor, probe: int, out: list[int]) -> Tensor:
    kept = [i for i in range(tests.shape[1]) if i not in out]
    basis = torch.linalg.qr(matrix @ tests[:, kept]).Q
    outside = torch.eye(len(matrix), dtype=torch.float64) - basis @ basis.T
    rest = outside @ matrix @ outside
    return (matrix - rest).diagonal() + tests[:, probe] * (rest @ tests[:, probe])


def forms_of(sketch: LeaveOneOut, name: str) -> Any:
    module = importlib.import_module(f"gradnoise.linalg.{name}")  # a function at the front
    return module._Deflated(sketch) if name == "diagonal" else module._without(sketch)


@pytest.mark.parametrize(
    ("name", "literal", "matrices"),
    [
        ("trace", literal_trace, [MATRICES["1/i"], MATRICES["indefinite"], PLAIN]),
        ("frobenius", literal_square, [MATRICES["1/i"], MATRICES["indefinite"]]),
        ("diagonal", literal_diagonal, [MATRICES["1/i"], MATRICES["indefinite"]]),
    ],
)
def test_leaving_vectors_out_equals_starting_without_them(
    name: str, literal: Callable[..., Tensor], matrices: list[Tensor]
) -> None:
    for matrix in matrices:
        tests = gaussian_tests(6, P, generator(0))
        sketch = LeaveOneOut(Products(matrix), tests)
        estimate = forms_of(sketch, name)
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
    for name in ("trace", "frobenius"):
        estimate = forms_of(sketch, name)
        one_by_one = [estimate(sketch.dropped[i].unsqueeze(1), torch.tensor(i)) for i in range(5)]
        torch.testing.assert_close(sketch.singles(estimate), torch.stack(one_by_one))
    assert len(sketch.pairs(32)[0]) == 10
    assert len(sketch.pairs(3)[0]) == 3


# ---- exact answers


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_products_enough_for_the_matrix_give_the_exact_answer(size: int) -> None:
    matrix = with_spectrum(NOISE[:size])
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


@pytest.mark.parametrize("rank", [0, 1, 3, 9])
def test_a_low_rank_is_found_down_to_rounding_with_an_error_of_that_size(rank: int) -> None:
    for matrix in (
        with_spectrum(NOISE * INDEX.le(rank)),
        PLAIN[:, :rank] @ PLAIN[:rank],
    ):
        for method in ("xtrace", "hutch++"):
            found = trace(matrix, method=method, products=30)
            scale = float(torch.linalg.matrix_norm(matrix, 2))
            assert float(found) == pytest.approx(float(matrix.trace()), abs=1e-12 * scale)
            assert found.low <= float(matrix.trace()) <= found.high
            assert found.stderr <= 1e-13 * scale
            assert found.stderr > 0 or rank == 0
    matrix = with_spectrum(NOISE * INDEX.le(rank))
    norm, entries = frobenius_norm(matrix, products=30), diagonal(matrix, products=30)
    assert norm.low <= float(matrix.norm()) <= norm.high
    assert norm.stderr <= 1e-13
    torch.testing.assert_close(entries.values, matrix.diagonal(), rtol=0, atol=1e-13)
    assert float(entries.stderr.max()) <= 1e-13
    assert float(entries.stderr.min()) > 0 or rank == 0


def test_what_many_equal_eigenvalues_add_in_rounding_is_within_the_error() -> None:
    matrix = with_spectrum(INDEX.le(21).double())
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
    assert float(frobenius_norm(zero, products=20)) == 0
    assert float(frobenius_norm(eye, products=20)) == pytest.approx(math.sqrt(P), rel=1e-13)
    assert float(diagonal(zero, products=20).values.abs().max()) == 0
    torch.testing.assert_close(
        diagonal(eye, products=20).values, eye.diagonal(), rtol=0, atol=1e-12
    )


# ---- statistics, each with a fixed number of seeds


def measured(
    estimator: Estimator, matrix: Tensor, truth: Tensor, seeds: int, **options: Any
) -> tuple[Tensor, Tensor, float]:
    """Errors, standard errors, and the share of the intervals that hold the truth."""
    found = [estimator(matrix, seed=seed, **options) for seed in range(seeds)]
    errors = torch.tensor([float(e) for e in found], dtype=torch.float64) - truth
    inside = sum(e.low <= float(truth) <= e.high for e in found)
    return errors, torch.tensor([e.stderr for e in found], dtype=torch.float64), inside / seeds


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


def large(count: int, falling: bool = False) -> Tensor:
    """So many large eigenvalues, equal or falling, and 1e-3."""
    return with_spectrum(torch.where(count >= INDEX, 1 / INDEX if falling else 1.0, 1e-3).double())


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
        forms_of(sketch, "trace")
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


def test_entries_that_one_element_decides_have_honest_errors() -> None:
    matrix, even = torch.zeros(P, P, dtype=torch.float64), torch.arange(0, P, 2)
    matrix[even, even + 1] = matrix[even + 1, even] = 1.0
    found = [diagonal(matrix, products=12, seed=seed) for seed in range(40)]
    inside = torch.stack([(d.low <= 0) & (d.high >= 0) for d in found])
    assert float(inside.double().mean()) >= 0.93  # with 4 probes: 0.87


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
    errors, _, coverage = measured(frobenius_norm, matrix, matrix.norm(), 200, products=20)
    assert coverage >= 0.9
    squares = (errors + matrix.norm()).square() - matrix.norm().square()  # the square is unbiased
    assert abs(float(squares.mean())) <= 4 * float(squares.std()) / math.sqrt(200)


@pytest.mark.parametrize("name", ["flat", "1/i", "0.9^i", "indefinite"])
def test_standard_errors_count_what_the_estimates_share(name: str) -> None:
    matrix = MATRICES[name]
    for estimator, truth in ((trace, matrix.trace()), (frobenius_norm, matrix.norm())):
        errors, stderr, _ = measured(estimator, matrix, truth, 200, products=40)
        ratio = float(stderr.square().mean().sqrt() / errors.square().mean().sqrt())
        assert 0.88 <= ratio <= 1.15  # s²/k alone: 0.6 to 0.85


@pytest.mark.parametrize("name", SPECTRA)
def test_the_diagonal_is_unbiased_with_honest_errors_entry_by_entry(name: str) -> None:
    matrix = MATRICES[name]
    found = [diagonal(matrix, products=20, seed=seed) for seed in range(40)]
    errors = torch.stack([d.values for d in found]) - matrix.diagonal()
    scores = errors.mean(0) / (errors.std(0) / math.sqrt(40))
    assert float(scores.square().mean()) < 1.8  # mean 39/37, s.d. 0.15 for P independent entries
    inside = [((d.low <= matrix.diagonal()) & (matrix.diagonal() <= d.high)) for d in found]
    assert float(torch.stack(inside).double().mean()) >= 0.93
    stated = torch.stack([d.stderr for d in found]).square().mean().sqrt()
    assert 0.9 <= float(stated / errors.square().mean().sqrt()) <= 1.25


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


@pytest.mark.parametrize(("name", "gain"), [("1/i", 10), ("0.7^i", 1e3), ("flat", 0.4)])
def test_the_norm_gains_on_the_plain_mean_of_squares(name: str, gain: float) -> None:
    matrix = MATRICES[name]
    plain = torch.stack(
        [
            (matrix @ torch.randn(P, 40, generator=generator(s), dtype=torch.float64)).norm()
            / math.sqrt(40)
            for s in range(60)
        ]
    )
    ours = measured(frobenius_norm, matrix, matrix.norm(), 60, products=40)[0]
    assert float((plain - matrix.norm()).norm()) > gain * float(ours.norm())


def test_the_diagonal_gains_on_plain_signs_where_the_spectrum_decays() -> None:
    for name, gain in (("1/i", 2.0), ("0.7^i", 100.0), ("flat", 0.5)):
        matrix, ours, plain = MATRICES[name], [], []
        for seed in range(20):
            signs = torch.randint(0, 2, (P, 40), generator=generator(seed)).double() * 2 - 1
            plain.append((signs * (matrix @ signs)).mean(1) - matrix.diagonal())
            ours.append(diagonal(matrix, products=40, seed=seed).values - matrix.diagonal())
        assert float(torch.stack(plain).norm()) > gain * float(torch.stack(ours).norm())


# ---- precision, budget, randomness


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
    _, stderr, coverage = measured(frobenius_norm, rounded, truth.norm(), 40, products=60)
    assert coverage >= 0.85
    assert float(stderr.min()) >= 1e-7
    assert float(diagonal(rounded, products=60).stderr.min()) >= 1e-8


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
        operator = Counting(PLAIN)
        assert trace(operator, method=method, products=products).samples == probes
        assert operator.count == spent
    for function in (frobenius_norm, diagonal):
        operator = Counting(MATRICES["flat"])
        assert function(operator, products=products).samples == products // 2
        assert operator.count == products // 2 * 2


def test_a_matrix_that_is_not_symmetric_has_a_trace() -> None:
    for method in METHODS:
        options = {"products": 30, "method": method}
        errors, _, coverage = measured(trace, PLAIN, PLAIN.trace(), 200, **options)
        assert coverage >= 0.9
        assert abs(float(errors.mean())) <= 4 * float(errors.std()) / math.sqrt(200)


def test_the_seed_decides_and_the_global_state_does_not_matter() -> None:
    matrix = MATRICES["1/i"]
    for estimator in (trace, frobenius_norm, lambda a, **o: diagonal(a, **o).values[0]):
        first, other = (float(estimator(matrix, products=20, seed=s)) for s in (1, 2))
        torch.manual_seed(5)
        before = torch.get_rng_state()
        assert float(estimator(matrix, products=20, seed=1)) == first != other
        assert torch.equal(torch.get_rng_state(), before)


def test_the_scale_of_the_matrix_is_the_scale_of_the_estimates() -> None:
    matrix = MATRICES["±1/i"]
    for scale in (2.0**-200, 2.0**200):
        for estimator in (trace, frobenius_norm):
            one, scaled = (estimator(a, products=20) for a in (matrix, matrix * scale))
            for field in ("value", "low", "high", "stderr"):
                expected = getattr(one, field) * scale
                assert getattr(scaled, field) == pytest.approx(expected, rel=1e-9)


def test_the_hessian_of_a_model_is_an_operator_like_any_other() -> None:
    inputs = torch.randn(40, 30, generator=generator(0))
    model = torch.nn.Linear(30, 1, bias=False)
    hessian = Hessian(model, torch.nn.MSELoss(), (inputs, torch.zeros(40, 1)))
    matrix = 2 * inputs.double().T @ inputs.double() / 40
    assert float(trace(hessian)) == pytest.approx(float(matrix.trace()), rel=1e-5)
    for estimator in (trace, frobenius_norm):
        ours, dense = (float(estimator(a, products=12)) for a in (hessian, matrix))
        assert ours == pytest.approx(dense, rel=1e-4)
    ours, dense = (diagonal(a, products=12).values for a in (hessian, matrix))
    torch.testing.assert_close(ours, dense, rtol=1e-3, atol=1e-4)


@pytest.mark.cuda
def test_a_gpu_gives_the_same_numbers() -> None:
    matrix = MATRICES["1/i"]
    for estimator in (trace, frobenius_norm):
        here, there = (float(estimator(a, products=20)) for a in (matrix, matrix.cuda()))
        assert there == pytest.approx(here, rel=1e-10)
    found = diagonal(matrix.cuda(), products=20).values
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), diagonal(matrix, products=20).values)


# ---- errors


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
        (torch.zeros(0, 0), {}, OperatorError, r"square operator.*got shape \(0, 0\)"),
        (torch.zeros(2, 3), {}, OperatorError, r"square operator.*got shape \(2, 3\)"),
        (torch.zeros(3), {}, OperatorError, r"got shape \(3,\)"),
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
        trace(PLAIN, method=method, products=least)
        with pytest.raises(ArgumentError, match=f"`products` must be at least {least} "):
            trace(PLAIN, method=method, products=least - 1)
    for function, least in ((frobenius_norm, 4), (diagonal, 12)):
        function(MATRICES["flat"], products=least)
        with pytest.raises(ArgumentError, match=f"`products` must be at least {least} "):
            function(MATRICES["flat"], products=least - 1)
    with pytest.raises(ArgumentError, match=r"`method` must be one of xtrace, .*; got 'exact'"):
        trace(EYE, method="exact")


def test_intervals_of_a_diagonal_are_symmetric_around_its_values() -> None:
    found = Diagonal(torch.tensor([1.0]), torch.tensor([0.5]), level=0.95, samples=9)
    assert float(found.high) == pytest.approx(1 + 0.5 * 2.306004135)
    assert float(found.low) == pytest.approx(1 - 0.5 * 2.306004135)
