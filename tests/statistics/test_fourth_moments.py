"""tr(Σ²) and (trΣ)²: unbiased over every sample of a small population, by enumeration."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from gradnoise.statistics.fourth_moments import LEAST, expected_squares, unbiased_squares


def every_sample(rows: Tensor, size: int) -> list[Tensor]:
    return [rows[list(pick)] for pick in itertools.combinations(range(len(rows)), size)]


def of_sample(rows: Tensor) -> tuple[float, Tensor]:
    """tr(Σ̂²) and ‖g_i - ḡ‖²."""
    centred = rows - rows.mean(0)
    gram = (centred @ centred.T).square().sum()
    return float(gram) / (len(rows) - 1) ** 2, centred.square().sum(1)


@pytest.mark.parametrize("size", [4, 5, 6])
def test_squares_are_unbiased_over_all_samples_of_a_population(size: int) -> None:
    rows = torch.randn(7, 3, dtype=torch.float64) ** 3
    sigma = torch.cov(rows.T)
    found = torch.tensor([unbiased_squares(*of_sample(s), 7) for s in every_sample(rows, size)])
    truth = torch.stack([sigma.square().sum(), sigma.trace() ** 2])
    torch.testing.assert_close(found.double().mean(0), truth, rtol=1e-6, atol=0)
    biased = torch.tensor([of_sample(s)[0] for s in every_sample(rows, size)])
    assert abs(float(biased.mean()) - float(truth[0])) > 0.05 * float(truth[0])


def test_squares_for_a_distribution_are_means_over_distinct_samples() -> None:
    """tr(Σ²) by pairs of differences, ¼((g_i - g_j)ᵀ(g_k - g_l))² over distinct i, j, k, l."""
    rows = torch.randn(6, 4, dtype=torch.float64)
    quads = list(itertools.permutations(range(6), 4))
    first = torch.stack([rows[i] - rows[j] for i, j, _, _ in quads])
    second = torch.stack([rows[k] - rows[m] for _, _, k, m in quads])
    trace_sq, sq_trace = unbiased_squares(*of_sample(rows))
    assert trace_sq == pytest.approx(float((first * second).sum(1).square().mean()) / 4)
    norms = first.square().sum(1) * second.square().sum(1)
    assert sq_trace == pytest.approx(float(norms.mean()) / 4)
    assert math.isnan(unbiased_squares(*of_sample(rows[:3]))[0])


def test_the_whole_population_is_its_own_answer() -> None:
    rows = torch.randn(5, 2, dtype=torch.float64)
    sigma = torch.cov(rows.T)
    trace_sq, sq_trace = unbiased_squares(*of_sample(rows), 5)
    assert trace_sq == pytest.approx(float(sigma.square().sum()), rel=1e-12)
    assert sq_trace == pytest.approx(float(sigma.trace() ** 2), rel=1e-12)


@pytest.mark.parametrize("count", range(1, LEAST))
def test_fewer_than_four_samples_do_not_determine_them(count: int) -> None:
    assert all(map(math.isnan, unbiased_squares(1.0, torch.ones(count))))


def test_the_expectations_of_many_samples_are_those_of_infinitely_many() -> None:
    torch.testing.assert_close(
        expected_squares(1e12), expected_squares(math.inf), rtol=0, atol=1e-11
    )
