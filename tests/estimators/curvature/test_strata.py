"""Samples that make a step and others that judge it: all choices of a small population."""

from __future__ import annotations

import itertools
import math
import warnings

import pytest
import torch

import gradnoise as gn
from gradnoise.estimators.curvature.strata import Strata
from gradnoise.problem.samples import Samples

VALUES = torch.tensor([3.0, -1.0, 4.0, 1.5, -9.0, 2.6], dtype=torch.float64)


def test_over_all_choices_of_the_others_the_mean_is_that_of_the_population() -> None:
    """Samples 0 and 1 make the step, 2 of the other 4 judge it: six choices."""
    means, variances = [], []
    for others in itertools.combinations(range(2, 6), 2):
        columns = VALUES[[0, 1, *others]]
        found = Strata(torch.tensor([True, True, False, False]), 6.0)
        assert float(found.weights.sum()) == pytest.approx(1)
        (mean,), cov, _ = found.moments(columns)
        means.append(mean)
        variances.append(float(cov[0, 0]))
    assert sum(means) / 6 == pytest.approx(float(VALUES.mean()))
    expected = float(torch.tensor(means, dtype=torch.float64).var(correction=0))
    assert sum(variances) / 6 == pytest.approx(expected)


def test_of_a_distribution_the_others_alone_count() -> None:
    found = Strata(torch.tensor([True, True, False, False, False, False]), math.inf)
    (mean, twice), cov, _ = found.moments(VALUES, 2 * VALUES)
    assert mean == pytest.approx(float(VALUES[2:].mean()))
    assert twice == pytest.approx(2 * mean)
    expected = float(VALUES[2:].var()) / 4
    torch.testing.assert_close(cov, expected * torch.tensor([[1.0, 2.0], [2.0, 4.0]]).double())


@pytest.mark.parametrize("size", [1, 5, 6])
def test_of_the_whole_population_the_mean_is_exact(size: int) -> None:
    found = Strata.of(Samples((VALUES,), 6.0), size, seed=0)
    assert found.counts == (size, 6 - size)
    assert found.is_exact
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one other has no variance
        (mean,), cov, _ = found.moments(VALUES)
    assert mean == pytest.approx(float(VALUES.mean()))
    assert float(cov) == 0
    assert len(found.rows) == (1 if size == 6 else 2)
    torch.testing.assert_close(found.rows.sum(1), torch.ones(len(found.rows)).double())


def test_by_default_half_makes_the_step_of_a_part_of_the_population() -> None:
    assert Strata.of(Samples((VALUES,), 6.0), None, seed=0).counts == (6, 0)
    assert Strata.of(Samples((VALUES,), 7.0), None, seed=0).counts == (3, 3)
    draws = {tuple(Strata.of(Samples((VALUES,), 7.0), None, s).made.tolist()) for s in range(9)}
    assert len(draws) > 3


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(gn.ArgumentError, match="`batch_size` = 7 is more than 6: 6 samples are"):
        Strata.of(Samples((VALUES,), 6.0), 7, seed=0)
    with pytest.raises(gn.ArgumentError, match=r"more than 4: .* at least 2 others have to judge"):
        Strata.of(Samples((VALUES,), 7.0), 5, seed=0)
