"""How many of many intervals must hold the truth, with the probability of a false alarm stated."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from scipy import stats

import gradnoise as gn

CHANCE = 1e-3  # that intervals of the stated coverage are refused; seeds are fixed besides


def fewest(runs: int, coverage: float = 0.95, chance: float = CHANCE) -> int:
    """The number of hits that fewer than this has a binomial probability of `chance` at most."""
    return int(stats.binom.ppf(chance, runs, coverage))


def most(runs: int, coverage: float = 0.95, chance: float = CHANCE) -> int:
    """The same for more than this."""
    return int(stats.binom.isf(chance, runs, coverage))


def holding(estimates: Iterable[gn.Estimate], truth: float) -> int:
    """How many intervals hold the truth."""
    return sum(e.low <= truth <= e.high for e in estimates)


def half_as_wide(estimates: Iterable[gn.Estimate]) -> list[gn.Estimate]:
    """With both ends half as far from the value; those without one as they are."""
    return [
        e
        if math.isnan(e.value)
        else replace(e, low=(e.value + e.low) / 2, high=(e.value + e.high) / 2)
        for e in estimates
    ]
