"""How heavy the tails of gradient noise are, with the control that a tail index needs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...errors import ArgumentError, check_whole
from ...statistics.estimate import Estimate, Status, check_level
from ...statistics.ratio import ratio
from ...tensors.random import generator
from ...tensors.trees import widen
from ..from_arrays.inputs import as_rows, as_tensor

ENTRIES = 2**20  # of the pooled noise that are used, at most
CONTROLS = 39  # Gaussian replicates: their range is a 95 % interval


def stable_index(values: Any, *, block: int | None = None, level: float = 0.95) -> Estimate:
    """Index α of a symmetric stable distribution from sums: m values add up to size m^(1/α).

    1/α = (E log‖X_1 + … + X_m‖ - E log‖X‖)/log m, over blocks of m: α = 2 for independent Gaussians
    of one scale or of any covariance, 1 for Cauchy. It is valid for stable distributions only. For
    any other one with finite variance the estimate tends to 2 as m grows, slowly: from 10⁵ values
    Student's t with 3 degrees of freedom gives 1.74, and Gaussians of different scales (log-normal,
    σ = 1.5 to 2) give 1.0 to 1.2. A small index alone does not prove heavy tails.

    Args:
        values: independent, around zero, in random order: numbers (k,) or vectors (k, d).
        block: m, from 2 to k/2; default √k.
        level: coverage of the interval, from independent blocks.

    Returns:
        Estimate without unit; `samples` counts blocks. It can exceed 2.

    Raises:
        ArgumentError: fewer than 4 values, a block out of range, or values that are all zero.

    Source: Mohammadi, Mohammadpour and Ogata 2015, corollary 2.4, as used by Simsekli et al. 2019
    (arXiv:1901.06053).

    Example:
        >>> float(stable_index([1.0, 1.0, 1.0, 1.0], block=2))  # sums grow like m: α = 1
        1.0
    """
    check_level(level)
    rows = widen(as_tensor("values", values))
    rows = rows.reshape(len(rows), -1) if rows.ndim else rows.reshape(1, 1)
    rows = rows[rows.abs().amax(1) > 0]
    block = max(2, math.isqrt(len(rows))) if block is None else block
    check_whole("block", block, 2)
    blocks = len(rows) // block
    if blocks < 2:
        raise ArgumentError(
            f"`block` = {block} needs twice as many `values` that are not zero; got {len(rows)}. "
            f"Give more values, or a smaller block from 2 on"
        )
    return _index(_growth(rows, block), block, level)


def _index(growth: Tensor, block: int, level: float) -> Estimate:
    """α = log m/mean growth, with Fieller's interval for an exact numerator."""
    return ratio(
        math.log(block),
        float(growth.mean()),
        variances=(0.0, float(growth.var()) / len(growth)),
        covariance=0.0,
        level=level,
        samples=len(growth),
        freedom=len(growth) - 1,
        positive_denominator=True,
    )


def _growth(rows: Tensor, block: int) -> Tensor:
    """log‖sum‖ less the mean of log‖x‖, for every block of rows, shape (blocks,)."""
    blocks = rows[: len(rows) // block * block].reshape(-1, block, rows.shape[1])
    tiny = torch.finfo(rows.dtype).tiny
    sums = torch.linalg.vector_norm(blocks.sum(1), dim=-1).clamp(min=tiny).log()
    parts = torch.linalg.vector_norm(blocks, dim=-1).clamp(min=tiny).log()
    growth: Tensor = sums - parts.mean(1)
    return growth


@dataclass(frozen=True)
class TailIndex:
    """Stable indices of gradient noise, with those of Gaussians as a control; without unit.

    Args:
        pooled: from all entries of g_i - ḡ together, as in Simsekli et al.
        gaussian: the same for Gaussian noise with the same scale in every coordinate; its interval
            is the range of the replicates.
        vectors: from the vectors g_i - ḡ, on which different scales of coordinates have no effect.

    Source: Simsekli, Sagun and Gurbuzbalaban 2019 (arXiv:1901.06053); docs/theory/diagnostics.md.
    """

    pooled: Estimate
    gaussian: Estimate
    vectors: Estimate

    @property
    def below_gaussian(self) -> bool:
        """Whether the pooled index is smaller than different scales of coordinates explain."""
        return float(self.pooled) < self.gaussian.low

    def __str__(self) -> str:
        pooled, control = float(self.pooled), self.gaussian
        verdict = (
            "it is smaller: tails heavier than Gaussian, or samples of different scales; neither "
            "alone makes the variance infinite (Student's t with 3 degrees of freedom gives 1.74)"
            if self.below_gaussian
            else "it is not smaller: different scales of coordinates explain it, no sign of heavy "
            "tails"
        )
        return (
            f"tail index {pooled:.2f} of all entries, {float(self.vectors):.2f} of whole vectors; "
            f"Gaussians with the same scale in every coordinate give {control.low:.2f} to "
            f"{control.high:.2f}: {verdict}"
        )


def tail_index(
    per_sample_gradients: Any,
    *,
    block: int | None = None,
    controls: int = CONTROLS,
    level: float = 0.95,
    seed: int = 0,
) -> TailIndex:
    """The stable index of gradient noise, with Gaussian noise as a control.

    Departures from Simsekli et al.: entries are shuffled, so that the order of parameters does not
    matter; the index of Gaussians with the same scale in every coordinate is measured too; and so
    is that of the vectors, on which different scales of coordinates have no effect. Centring by ḡ
    shortens sums of m of the n vectors by a factor √(1 - m/n), which is corrected.

    Args:
        per_sample_gradients: (n, P), or name -> (n, *shape), n from 8 on.
        block: m for the entries, and for the vectors n/2 at most; default the square root of their
            number.
        controls: Gaussian replicates.
        level: coverage of the interval of `.vectors`.
        seed: of the shuffle and the replicates.

    Returns:
        TailIndex; `.pooled` has no interval, since entries of one sample depend on each other.

    Raises:
        ArgumentError: rows that are not finite, no noise, or an option out of range.

    Source: Simsekli, Sagun and Gurbuzbalaban 2019 (arXiv:1901.06053); docs/theory/diagnostics.md.

    Example:
        >>> rows = torch.randn(64, 50, generator=torch.Generator().manual_seed(0))
        >>> tail_index(rows * torch.logspace(-3, 3, 50)).below_gaussian
        False
    """
    check_level(level)
    check_whole("controls", controls, 2)
    source = generator(seed)
    named = as_rows(per_sample_gradients, least=8)
    centred = torch.cat([widen(tensor).reshape(len(tensor), -1) for tensor in named.values()], 1)
    centred = centred - centred.mean(0)
    if not centred.any():
        raise ArgumentError(
            "`per_sample_gradients` are all equal: there is no noise to measure; give other samples"
        )
    some = _at_most(centred, source)
    order = torch.randperm(some.numel(), generator=source).to(some.device)
    pooled = stable_index(some.reshape(-1)[order], block=block, level=level)
    indices, scales = [], _scales(some)
    for _ in range(controls):
        noise = torch.randn(some.shape, generator=source).to(some) * scales
        noise -= noise.mean(0)
        indices.append(float(stable_index(noise.reshape(-1)[order], block=block)))
    return TailIndex(
        pooled=_without_interval(pooled),
        gaussian=_range(torch.tensor(indices).double()),
        vectors=_of_vectors(centred, block, level),
    )


def _at_most(rows: Tensor, source: torch.Generator) -> Tensor:
    """Coordinates with noise, so many at random that their entries are at most ENTRIES."""
    rows = rows[:, rows.any(0)]
    most = max(1, ENTRIES // len(rows))
    if rows.shape[1] <= most:
        return rows
    return rows[:, torch.randperm(rows.shape[1], generator=source)[:most].to(rows.device)]


def _scales(rows: Tensor) -> Tensor:
    """Scales of Gaussians with the same mean of log|x| in every coordinate, up to a common factor.

    Not standard deviations: those of Cauchy noise differ by orders of magnitude between
    coordinates, and Gaussians of such scales would have as small an index.
    """
    nonzero = rows != 0
    logs = torch.where(nonzero, rows.abs(), 1.0).log().sum(0) / nonzero.sum(0)
    return (logs - logs.mean()).exp()


def _without_interval(estimate: Estimate) -> Estimate:
    if not estimate.is_resolved:
        return estimate
    open_ended = replace(estimate, low=-math.inf, high=math.inf, stderr=math.nan)
    return replace(open_ended, status=Status.NO_INTERVAL)


def _range(values: Tensor) -> Estimate:
    """Mean and range of R values: one more of them lies outside with probability 2/(R + 1)."""
    count = len(values)
    ends, error = (float(values.min()), float(values.max())), float(values.std())
    return Estimate(float(values.mean()), *ends, 1 - 2 / (count + 1), error, count)


def _of_vectors(centred: Tensor, block: int | None, level: float) -> Estimate:
    count = len(centred)
    block = min(math.isqrt(count) if block is None else block, count // 2)
    shortened = 0.5 * math.log((1 - block / count) / (1 - 1 / count))
    return _index(_growth(centred, block) - shortened, block, level)
