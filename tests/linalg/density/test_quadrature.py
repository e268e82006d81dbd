"""Gauss rules of a start vector, and the bounds that they give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradnoise.linalg.density.quadrature import gauss_rule
from gradnoise.tensors.random import generator, random_vector
from tests.densities import SIZE, SPECTRA, diagonal, gauss_rules
from tests.fuzz import examples
from tests.spectra import with_spectrum


@examples(40)
@given(
    st.lists(st.integers(-5, 5), min_size=2, max_size=6, unique=True),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_a_rule_with_a_node_per_distinct_eigenvalue_is_exact(
    distinct: list[int], copies: int, seed: int
) -> None:
    check_a_node_per_distinct_eigenvalue(distinct, copies, seed)


@pytest.mark.parametrize(
    ("distinct", "copies", "seed"),
    [
        ([0, 1, 2, -5, 3, 4], 4, 0),
        ([-4, -3, -2, -1, 0, 5], 3, 0),
        ([-5, -4, -3, -2, -1, 5], 3, 0),
        ([-5, -4, -3, -2, -1, 5], 2, 1),
        ([-5, 1, 2, 3, 4, 5], 4, 0),
    ],
)
def test_a_rule_closes_where_rounding_is_amplified(
    distinct: list[int], copies: int, seed: int
) -> None:
    check_a_node_per_distinct_eigenvalue(distinct, copies, seed)


def check_a_node_per_distinct_eigenvalue(distinct: list[int], copies: int, seed: int) -> None:
    values = sorted(map(float, distinct)) * copies
    matrix = with_spectrum(values, seed)
    start = random_vector(len(values), generator(seed), torch.device("cpu"))
    rule = gauss_rule(matrix, start, steps=50)
    assert rule.is_closed
    np.testing.assert_allclose(rule.nodes, sorted(distinct), atol=1e-8)
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    seen = (vectors.T @ start).square().numpy()
    expected = [seen[np.abs(eigenvalues.numpy() - x) < 1e-6].sum() for x in sorted(distinct)]
    np.testing.assert_allclose(rule.weights, expected, atol=1e-8)


def test_k_steps_match_2k_moments_and_no_more() -> None:
    values = np.linspace(-1, 1, 60) ** 3
    start = random_vector(60, generator(0), torch.device("cpu"))
    rule = gauss_rule(diagonal(values), start, steps=5)
    for degree in range(11):
        truth = float((start.square().numpy() * values**degree).sum())
        found = float((rule.weights * rule.nodes**degree).sum())
        assert (abs(found - truth) < 1e-13) == (degree <= 9)


def test_an_eigenvalue_far_away_leaves_no_ghosts() -> None:
    values = np.append(np.linspace(0, 1, 99), 1e6)
    start = random_vector(100, generator(0), torch.device("cpu"))
    rule = gauss_rule(diagonal(values), start, steps=100)
    np.testing.assert_allclose(rule.nodes, values, atol=1e-8)


@pytest.mark.parametrize("steps", [1, 4, 12, 30])
@pytest.mark.parametrize("name", SPECTRA)
def test_the_bounds_of_a_share_hold_what_a_vector_sees(name: str, steps: int) -> None:
    values = SPECTRA[name]
    start = random_vector(SIZE, generator(steps), torch.device("cpu"))
    rule = gauss_rule(diagonal(values), start, steps)
    for x in np.linspace(values.min() - 0.1, values.max() + 0.1, 23):
        low, high = rule.share_below(float(x))
        truth = float(start.square().numpy()[values < x].sum())
        assert low - 1e-9 <= truth <= high + 1e-9
        assert low - 1e-9 <= rule.weights[rule.nodes < x].sum() <= high + 1e-9


def test_the_bounds_of_a_share_are_reached() -> None:
    # two moments, mean 0 and variance 1: at least 0 and at most 1/(1 + x²) below -x (Cantelli)
    start = torch.full((2,), 0.5**0.5, dtype=torch.float64)
    rule = gauss_rule(diagonal([-1.0, 1.0]), start, steps=1)
    assert rule.share_below(-2.0) == pytest.approx((0.0, 1 / 5))
    assert rule.share_below(2.0) == pytest.approx((4 / 5, 1.0))


def test_a_shorter_rule_is_the_rule_of_fewer_steps() -> None:
    matrix = diagonal(SPECTRA["wishart"])
    start = random_vector(SIZE, generator(0), torch.device("cpu"))
    long, short = gauss_rule(matrix, start, steps=9), gauss_rule(matrix, start, steps=4)
    np.testing.assert_allclose(long.shortened(4).nodes, short.nodes, rtol=1e-12)
    np.testing.assert_allclose(long.shortened(4).weights, short.weights, rtol=1e-12)
    assert long.shortened(9) is long
    closed = gauss_rule(diagonal([2.0] * SIZE), start, steps=9)
    assert closed.is_closed
    assert closed.shortened(1) is closed


def test_the_coefficients_are_those_of_lanczos_written_out() -> None:
    start = random_vector(SIZE, generator(0), torch.device("cpu"))
    for values in SPECTRA.values():
        rule = gauss_rule(diagonal(values), start, steps=8)  # later ones amplify rounding
        (expected,) = gauss_rules(values, start.numpy()[None], steps=8)
        np.testing.assert_allclose(rule.alphas, expected.alphas, rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(rule.betas, expected.betas, rtol=1e-7, atol=1e-10)
