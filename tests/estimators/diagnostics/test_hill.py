"""Hill's exponent: the literal quotient, a power law, and what has no tail."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

import gradnoise as gn


def test_hill_reads_a_power_law_and_its_interval_holds() -> None:
    x = stats.pareto(2.5).rvs(400, random_state=0)
    ordered = np.sort(x)[::-1]
    literal = 40 / np.log(ordered[:40] / ordered[40]).sum()
    found = gn.hill_index(x)
    assert float(found) == pytest.approx(literal)
    assert found.samples == 40
    runs = [gn.hill_index(stats.pareto(2.5).rvs(400, random_state=seed)) for seed in range(400)]
    assert np.mean([e.low <= 2.5 <= e.high for e in runs]) == pytest.approx(0.95, abs=0.035)
    bias = np.mean([float(e) for e in runs]) / 2.5 - 1
    assert bias == pytest.approx(1 / 39, abs=0.03)  # α/(k - 1), as the docstring says


def test_hill_of_equal_values_is_infinite() -> None:
    assert float(gn.hill_index([2.0, 2.0, 2.0])) == math.inf


def test_the_interval_is_that_of_chi_squared_for_a_power_law() -> None:
    """2kα/α̂ is χ² with 2k degrees of freedom: its quantiles are the ends."""
    found = gn.hill_index(stats.pareto(2.5).rvs(400, random_state=0), level=0.9)
    for end, share in ((found.low, 0.05), (found.high, 0.95)):
        assert stats.chi2(80).cdf(80 * end / float(found)) == pytest.approx(share, rel=1e-9)
    assert found.stderr == pytest.approx(float(found) / math.sqrt(40))


def test_two_values_at_least_are_the_tail_and_zeros_are_no_part_of_it() -> None:
    values = [0.0, 0.0, 1.0, 2.0, 8.0]
    found = gn.hill_index(values, tail=0.01)
    assert found.samples == 2
    assert float(found) == pytest.approx(2 / (math.log(8) + math.log(2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gn.hill_index([1.0, 0.0, 2.0]), "3 positive numbers"),
        (lambda: gn.hill_index(np.ones(9), tail=1.0), "`tail` is a share"),
    ],
)
def test_what_has_no_tail_is_refused(call, message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        call()
