"""tr(Σ²) and (trΣ)² of a population, unbiased, from n of its N samples.

Write u = tr(Σ²), v = (trΣ)², κ = E‖g - G‖⁴ - v - 2u for a distribution with covariance Σ. What n
samples give on the average is linear in these three (Σ̂ with 1/(n - 1), c_i = g_i - ḡ):

    tr(Σ̂²)            u + (u + v)/(n - 1) + κ/n
    (trΣ̂)²            v + 2u/(n - 1) + κ/n
    Σ‖c_i‖⁴/(n - 1)   (n - 1)/n (v + 2u) + ((n - 1)³ + 1)/n³ κ

Solved for (u, v, κ) they are U-statistics, whose mean over all samples of a finite population is
their value there (Tukey 1950, on the average inherited); the first two rows with N in place of n
then give the answer for the population. For N = ∞ u is the estimate of Himeno and Yamada 2014.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEAST = 4  # samples: three do not tell u, v and κ apart


def expected_squares(samples: float) -> Tensor:
    """The three rows above, shape (3, 3), by (u, v, κ)."""
    if math.isinf(samples):
        return torch.tensor([[1.0, 0, 0], [0, 1, 0], [2, 1, 1]], dtype=torch.float64)
    n, m = samples, samples - 1
    rows = [[1 + 1 / m, 1 / m, 1 / n], [2 / m, 1, 1 / n], [2 * m / n, m / n, (m**3 + 1) / n**3]]
    return torch.tensor(rows, dtype=torch.float64)


def unbiased_squares(
    plain: float, squares: Tensor, population: float = math.inf
) -> tuple[float, float]:
    """tr(Σ²) and (trΣ)² of the population; nan from fewer than 4 samples.

    Args:
        plain: tr(Σ̂²).
        squares: ‖g_i - ḡ‖², shape (n,).
        population: N.

    Example:
        >>> own, both = unbiased_squares(1.0, torch.ones(4), 4)  # all of it: (trΣ)² = (4/3)²
        >>> round(own, 6), round(both, 6)
        (1.0, 1.777778)
    """
    n = len(squares)
    trace = float(squares.sum()) / (n - 1)
    if n < LEAST:
        return math.nan, math.nan
    fourth = float(squares.square().sum()) / (n - 1)
    found = torch.tensor([plain, trace**2, fourth], dtype=torch.float64)
    parts = torch.linalg.solve(expected_squares(n), found)
    own, both, _ = (expected_squares(population) @ parts).tolist()
    return own, both
