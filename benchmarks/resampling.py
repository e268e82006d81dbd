"""Standard errors and intervals by resampling: dear, but they assume less than formulas do.

They check the analytic intervals (benchmarks/intervals.py) and take arrays, not models.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gradnoise.errors import check_whole
from gradnoise.statistics.estimate import Estimate, check_level
from gradnoise.tensors.random import generator

Statistic = Callable[[Tensor], Tensor]


def block_jackknife(statistic: Statistic, samples: Tensor, *, blocks: int = 20) -> float:
    """Standard error of a smooth statistic, from leaving out one block of samples after another.

    √((b - 1)/b Σ_j (θ_j - θ̄)²) with θ_j without block j: Quenouille and Tukey for b = n. For an
    infinite population; of N samples in all it is larger by 1/√(1 - n/N).

    Args:
        statistic: a number from samples (m, ...).
        samples: shape (n, ...); in random order, or in blocks that belong together.
        blocks: b, at most n.

    Raises:
        ArgumentError: fewer than 2 blocks, or more than samples.

    Example:
        >>> x = torch.tensor([1.0, 2.0, 3.0, 6.0])
        >>> error = block_jackknife(torch.mean, x, blocks=4)  # of a mean it is s/√n
        >>> round(error - float(x.std()) / 2, 6)
        0.0
    """
    check_whole("blocks", blocks, 2)
    check_whole("samples", len(samples), blocks)
    member = torch.arange(len(samples)) * blocks // len(samples)
    left = torch.stack([statistic(samples[member != j]) for j in range(blocks)]).double()
    return math.sqrt((blocks - 1) / blocks * float((left - left.mean()).square().sum()))


def bootstrap(statistic: Statistic, samples: Tensor, *, draws: int = 1000, seed: int = 0) -> Tensor:
    """The statistic on samples drawn again with replacement (Efron 1979), shape (draws,).

    Its standard deviation is the standard error for an infinite population.

    Args:
        statistic: a number from samples (n, ...).
        samples: shape (n, ...).
        draws: how often.
        seed: of the draws.

    Raises:
        ArgumentError: fewer than 2 draws.

    Example:
        >>> x = torch.arange(100.0)
        >>> bool(abs(bootstrap(torch.mean, x).std() - x.std() / 10) < 0.2)
        True
    """
    check_whole("draws", draws, 2)
    source, n = generator(seed), len(samples)
    picks = (torch.randint(n, (n,), generator=source) for _ in range(draws))
    return torch.stack([statistic(samples[pick]) for pick in picks])


def bootstrap_t(
    values: Tensor,
    *,
    population: float = math.inf,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Mean of a population with the studentised bootstrap interval (Efron 1982; Hall 1988).

    The quantiles of (m* - m)/s.e.* of samples drawn again stand for those of (m - μ)/s.e. Of
    influences it is the second opinion on `with_skew`, at the cost of n·draws numbers.

    Args:
        values: shape (n,).
        population: N; its factor √(1 - n/N) enters the standard error.
        level: nominal coverage.
        draws: how often samples are drawn again.
        seed: of the draws.

    Raises:
        ArgumentError: level or draws out of range.

    Example:
        >>> values = torch.linspace(0.0, 3.0, 20).double().exp()
        >>> found = bootstrap_t(values)
        >>> found.high - found.value > found.value - found.low  # a long tail upwards
        True
    """
    check_level(level)
    check_whole("draws", draws, 2)
    n, mean = len(values), float(values.mean())
    picks = torch.randint(n, (draws, n), generator=generator(seed))
    again = values[picks]
    scores = (again.mean(1) - mean) / (again.std(1) / math.sqrt(n))
    tails = torch.tensor([0.5 - level / 2, 0.5 + level / 2], dtype=scores.dtype)
    # draws that hold one value alone have no standard error
    lowest, highest = torch.quantile(scores[scores.isfinite()], tails).tolist()
    stderr = math.sqrt((1 / n - 1 / population) * float(values.var()))
    return Estimate(mean, mean - highest * stderr, mean - lowest * stderr, level, stderr, n)
