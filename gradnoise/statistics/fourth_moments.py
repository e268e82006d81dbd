"""tr(Σ²) and (trΣ)² of a population, unbiased, from n of its N samples.

Write u = tr(Σ²), v = (trΣ)², κ = E‖g - G‖⁴ - v - 2u for a distribution with covariance Σ. Three
statistics of n samples have expectations linear in them (Σ̂ with 1/(n - 1), c_i = g_i - ḡ):

    tr(Σ̂²)            u + (u + v)/(n - 1) + κ/n
    (trΣ̂)²            v + 2u/(n - 1) + κ/n
    Σ‖c_i‖⁴/(n - 1)   (n - 1)/n (v + 2u) + ((n - 1)³ + 1)/n³ κ

Solved for (u, v, κ) they are U-statistics: their mean over all samples of size n from a finite
population is their value for the population (Tukey 1950, "inherited on the average"). The first two
rows with N in place of n then give the population's values. For N = ∞ the estimate of u is that of
Himeno and Yamada 2014.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEAST = 4  # samples: from three the 3 × 3 system is singular


def expected_squares(samples: float) -> Tensor:
    """The matrix of the three rows above on (u, v, κ), shape (3, 3)."""
    if math.isinf(samples):
        return torch.tensor([[1.0, 0, 0], [0, 1, 0], [2, 1, 1]], dtype=torch.float64)
    n, m = samples, samples - 1
    rows = [[1 + 1 / m, 1 / m, 1 / n], [2 / m, 1, 1 / n], [2 * m / n, m / n, (m**3 + 1) / n**3]]
    return torch.tensor(rows, dtype=torch.float64)


def unbiased_squares(
    sample_trace_sq: float, gap_sq_norms: Tensor, population: float = math.inf
) -> tuple[float, float]:
    """Unbiased tr(Σ²) and (trΣ)² of the population; nan from fewer than 4 samples.

    Args:
        sample_trace_sq: tr(Σ̂²), biased.
        gap_sq_norms: ‖g_i - ḡ‖², shape (n,).
        population: N.

    Example:
        >>> trace_sq, sq_trace = unbiased_squares(1.0, torch.ones(4), 4)  # n = N: (trΣ)² = (4/3)²
        >>> round(trace_sq, 6), round(sq_trace, 6)
        (1.0, 1.777778)
    """
    n = len(gap_sq_norms)
    if n < LEAST:
        return math.nan, math.nan
    trace = float(gap_sq_norms.sum()) / (n - 1)
    fourth = float(gap_sq_norms.square().sum()) / (n - 1)
    statistics = torch.tensor([sample_trace_sq, trace**2, fourth], dtype=torch.float64)
    parts = torch.linalg.solve(expected_squares(n), statistics)
    trace_sq, sq_trace, _ = (expected_squares(population) @ parts).tolist()
    return trace_sq, sq_trace
