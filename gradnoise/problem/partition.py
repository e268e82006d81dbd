"""How much of the noise of groups is that of grouping: other groups of the same samples differ."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..tensors.random import generator
from ..tensors.trees import (
    Batch,
    flatten,
    rebuild,
    sample_count,
    sample_leaves,
    select,
    to_device,
    widen,
)
from .objective import Objective
from .samples import Samples
from .unit import Seeded

BLOCK = 4  # groups that are put together anew
LEAST_MIXED = 2  # groups that can exchange parts
LEAST_BLOCKS = 16  # a share from fewer is uncertain by more than a third
ROUNDING = 64.0  # of a gradient, in units of its dtype's resolution


def effective_population(objective: Objective, samples: Samples) -> tuple[float, float]:
    """The number of groups M for which 1/K - 1/M is the variance of a mean over that of a group.

    K random groups of b of the N samples. Where losses are not coupled, the mean gradient ḡ of all
    groups is that of the n samples in them, whatever the groups: M = N/b. Where they are coupled,
    it also changes with the grouping. With s the share of the groups' variance that grouping
    makes, Var ḡ = ((1/K)(1 - n/N) + (n/N) s/K) of the variance of a group's gradient.

    What grouping makes is what is left of Σ_k f(g_k) - Σ_k f(g_k') for four groups g_k that are cut
    into quarters, and g_k' with quarter j of group k + j: what single samples, and pairs within a
    quarter, add to f cancels. p is the share of such pairs among all of a group, and
    s = E(...)²/(8(1 - p) Var f). What three samples and more add together is counted as if it were
    of pairs, which add more (Hoeffding 1948): s is too large by at most 1/(1 - p), about 4/3.

    Args:
        objective: in the coordinates of the measurement; inside its guard.
        samples: groups, a part or all of `groups_available`. Where they cannot exchange quarters,
            because their samples differ in shape, s is taken as 1, its largest value.

    Returns:
        M of gradients and M of losses.
    """
    shares = _shares(objective, samples)
    found = [samples.groups_available / (1 - s) if s < 1 else math.inf for s in shares]
    return found[0], found[1]


def _shares(objective: Objective, samples: Samples) -> list[float]:
    """s of gradients and of losses, each between 0 and 1."""
    own = sum(samples.counts), *_here(objective, samples)
    told = objective.ranks.gathered(own, "shares of grouping")
    known = [own for own in told if own[0] >= LEAST_MIXED] or [(1, 1.0, 1.0)]
    total = sum(count for count, *_ in known)
    return [sum(own[0] * own[1 + k] for own in known) / total for k in range(2)]


def _here(objective: Objective, samples: Samples) -> list[float]:
    """The same of the groups of this rank."""
    groups, pairs = list(_alone(samples)), math.comb(objective.unit.size, 2)
    count = min(BLOCK, len(groups))
    if not pairs:  # groups of one sample
        return [0.0, 0.0]
    if count < LEAST_MIXED:
        return [1.0, 1.0]
    parts = [len(own) for own in torch.arange(objective.unit.size).tensor_split(count)]
    apart = 1 - sum(math.comb(part, 2) for part in parts) / pairs
    sums = _Sums(), _Sums()
    for turn, block in _blocks(groups, count):
        mixed = _mixed(block, parts)
        if mixed is None:
            return [1.0, 1.0]
        for sign, half in ((1, block), (-1, mixed)):
            for group in half:
                found = _gradient_and_loss(objective, group)
                for own, value in zip(sums, found, strict=True):
                    own.change(sign * value)
                    if not turn and sign > 0:
                        own.add(value)
        for own in sums:
            own.close(count)
    eps = max(torch.finfo(p.dtype).eps for p in objective.parameters.values())
    return [own.share(apart, ROUNDING * eps) for own in sums]


def _blocks(groups: list[Seeded], count: int) -> Iterator[tuple[int, list[Seeded]]]:
    """Blocks of groups; of few groups several times, in other orders: (which time, block)."""
    blocks = len(groups) // count
    for turn in range(max(1, -(-LEAST_BLOCKS // max(blocks, 1)))):
        order = torch.randperm(len(groups), generator=generator(turn)).tolist()
        for k in range(blocks):
            yield turn, [groups[i] for i in order[k * count : (k + 1) * count]]


class _Sums:
    """The spread of a number or a vector over groups, and of what regrouping does to its sum."""

    def __init__(self) -> None:
        self._count, self._mean, self._spread, self._square = 0, torch.zeros(()), 0.0, 0.0
        self._mixed, self._changed, self._open = 0, 0.0, torch.zeros(())

    def add(self, own: Tensor) -> None:
        """One group (Welford 1962)."""
        self._count += 1
        gap = own - self._mean.to(own)
        self._mean = self._mean.to(own) + gap / self._count
        self._spread += float(gap.square().sum()) * (self._count - 1) / self._count
        self._square += float(own.square().sum())

    def change(self, own: Tensor) -> None:
        """One group of a block, or less one of the same samples regrouped."""
        self._open = self._open.to(own) + own

    def close(self, count: int) -> None:
        """The end of a block of so many groups."""
        self._mixed += count
        self._changed += float(self._open.square().sum())
        self._open = torch.zeros(())

    def share(self, apart: float, rounding: float) -> float:
        """s, with apart = 1 - p; relative changes up to `rounding` count as none."""
        if self._count < 2 or not self._spread > 0:
            return 0.0
        changed = self._changed / (2 * self._mixed)
        if changed <= rounding**2 * self._square / self._count:
            return 0.0
        return min(changed / apart / (self._spread / (self._count - 1)), 1.0)


def _alone(samples: Samples) -> Iterator[Seeded]:
    """The groups one by one."""
    for batch in samples.batches:
        for index in range(sample_count(batch)):
            yield select(batch, slice(index, index + 1))


def _mixed(block: list[Seeded], parts: list[int]) -> list[Seeded] | None:
    """Groups with part j of group k + j; None where samples differ in shape."""
    columns = list(zip(*(sample_leaves(group.batch) for group in block), strict=True))
    if any(len({(leaf.shape, leaf.dtype) for leaf in own}) > 1 for own in columns):
        return None
    cut = [[leaf.split(parts, dim=1) for leaf in own] for own in columns]
    count = len(block)
    return [
        Seeded(
            rebuild(
                group.batch,
                [torch.cat([own[(k + j) % count][j] for j in range(count)], dim=1) for own in cut],
            ),
            group.seeds,
        )
        for k, group in enumerate(block)
    ]


def _gradient_and_loss(objective: Objective, group: Batch) -> tuple[Tensor, Tensor]:
    losses = objective.losses(to_device(group, objective.device))
    return flatten(objective.differentiate(losses.sum())), widen(losses.detach()).sum()
