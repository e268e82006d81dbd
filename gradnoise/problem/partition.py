"""How much of the noise of groups is that of grouping: other groups of the same samples differ."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from ..tensors.trees import Batch, flatten, sample_count, select, to_device
from .groups import regrouped
from .objective import Objective
from .samples import Samples

GROUPINGS = 2  # in addition to the one that is measured
ROUNDING = 64.0  # of a mean gradient, in units of its dtype's resolution


def effective_population(objective: Objective, samples: Samples) -> float:
    """The number of groups M for which 1/K - 1/M is the variance of ḡ over that of a group.

    K random groups of b of the N samples. Where losses are not coupled, the mean gradient ḡ of all
    groups is that of the n samples in them, whatever the groups: M = N/b. Where they are coupled,
    it also changes with the grouping. With s the share of the groups' variance that grouping
    makes, Var ḡ = ((1/K)(1 - n/N) + (n/N) s/K) of the variance of a group's gradient:
    s = K·Var(ḡ_r)/Var(g_k) over several groupings r of the same samples.

    Args:
        objective: in the coordinates of the measurement; inside its guard.
        samples: groups, a part or all of `groups_available`. Where they cannot be formed anew,
            since their samples differ in shape, s is taken as 1, its largest value.
    """
    others = [regrouped(samples, seed) for seed in range(1, GROUPINGS + 1)]
    parts = [other for other in others if other is not None]
    share = _share(objective, [samples.batches, *parts]) if parts else 1.0
    return samples.groups_available / (1 - share) if share < 1 else math.inf


def _share(objective: Objective, groupings: list[Iterable[Batch]]) -> float:
    """s, between 0 and 1."""
    means, spreads, count = [], [], 1
    for grouping in groupings:
        mean, spread, count = _mean_and_spread(objective, grouping)
        means.append(mean)
        spreads.append(spread)
    rows = torch.stack(means)
    changed = float(rows.var(0).sum())
    eps = max(torch.finfo(p.dtype).eps for p in objective.parameters.values())
    spread = sum(spreads) / len(spreads)
    if changed <= (ROUNDING * eps) ** 2 * float(rows.square().sum(1).mean()) or not spread > 0:
        return 0.0
    return min(count * changed / spread, 1.0)


def _mean_and_spread(objective: Objective, grouping: Iterable[Batch]) -> tuple[Tensor, float, int]:
    """ḡ, the variance of a group's gradient summed over coordinates, and K (Welford)."""
    mean, spread, count = torch.zeros(()), 0.0, 0
    for batch in grouping:
        batch = to_device(batch, objective.device)
        for index in range(sample_count(batch)):
            own = flatten(objective.gradient(select(batch, slice(index, index + 1))))
            count += 1
            gap = own - mean.to(own)
            mean = mean.to(own) + gap / count
            spread += float(gap.square().sum()) * (count - 1) / count
    return mean, spread / max(count - 1, 1), count
