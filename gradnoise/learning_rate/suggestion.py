"""The batch size and the learning rate that one profile can stand for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .formulas import max_lr, scale_lr
from .landscape import Landscape
from .setting import Setting

# at the limit itself the spread of the weights grows without end; at half of it, it is twice that
# of small rates. The noise-scale rule has half of 2/λ at B = B_noise as well.
MARGIN = 0.5


@dataclass(frozen=True)
class Suggestion:
    """A batch size with the learning rate for it, and the largest rate that is backed there.

    Args:
        batch_size: B in samples.
        lr: ε in parameter²/loss; None where none can be told.
        ceiling: the largest rate that is named at that batch size, in parameter²/loss.
        limited: whether the ceiling, and not the noise scale, forbids a larger batch.
    """

    batch_size: int
    lr: float | None
    ceiling: float
    limited: bool = False


def suggest(landscape: Landscape, current: Setting, scale: float, largest: float) -> Suggestion:
    """What to try next.

    With a learning rate in use, it is carried to larger batches, doubling by doubling, as long as
    the noise of the steps can be kept within the limit: runs of equal temperature train alike for
    equal samples (arXiv:2006.15081). Without one, the noise-scale rule gives it.

    Args:
        landscape: what limits a step.
        current: the setting in use.
        scale: the critical batch size, in samples.
        largest: the larger one of the noise scales, in samples.
    """
    target = round_batch(scale, landscape.population)
    if not (current.batch_size and current.lr):
        return _by_rule(landscape, current, target, largest)
    batch = int(current.batch_size)
    if batch > 2 * target and batch > largest:
        return _smaller(landscape, current, target, largest)
    found = Suggestion(batch, None, ceiling(landscape, current, batch))
    if current.lr <= lowest_limit(landscape, batch):
        found = replace(found, lr=current.lr)
    while 2 * found.batch_size <= min(math.sqrt(2) * scale, landscape.population):
        size = 2 * found.batch_size
        carried = scale_lr(current.lr, batch, size, current.scaling)
        most = ceiling(landscape, current, size)
        if carried > most:
            return replace(found, limited=True)
        found = Suggestion(size, carried, most)
    return found


def lowest_limit(landscape: Landscape, batch_size: float) -> float:
    """The lower one of the limits of stability at a batch size, in parameter²/loss.

    The noise-scale rule and the one-step limit are none: they say how much a step gains.
    """
    limits = float(landscape.stable_lr), float(landscape.mean_square_lr(batch_size))
    return min(limit for limit in limits if not math.isnan(limit))


def ceiling(landscape: Landscape, current: Setting, batch_size: float) -> float:
    """The largest learning rate that is named, in parameter²/loss.

    Half of the lower limit, and of the rate at which noise doubles the loss. The second moments of
    Adam fall like 1/√B where noise dominates, and its limit with them.
    """
    limits = lowest_limit(landscape, batch_size), float(landscape.doubling_lr(batch_size))
    most = MARGIN * min(limit for limit in limits if not math.isnan(limit))
    if current.rescales and current.batch_size:
        most *= min(1.0, math.sqrt(current.batch_size / batch_size))
    return most


def round_batch(noise_scale: float, population: float) -> int:
    """The nearest power of two, the usual choice of a batch size, at most the population."""
    power = 2 ** round(math.log2(max(noise_scale, 1.0)))
    return int(min(power, population))


def _by_rule(landscape: Landscape, current: Setting, batch_size: int, largest: float) -> Suggestion:
    rule = max_lr(
        float(landscape.sharpness), largest, batch_size, landscape.optimizer, landscape.momentum
    )
    most = ceiling(landscape, current, batch_size)
    return Suggestion(batch_size, min(rule, most), most)


def _smaller(landscape: Landscape, current: Setting, batch_size: int, largest: float) -> Suggestion:
    """From beyond the noise scale: ε(B) = ε_∞/(1 + B_noise/B)."""
    shrink = (1 + largest / (current.batch_size or 1)) / (1 + largest / batch_size)
    most = ceiling(landscape, current, batch_size)
    return Suggestion(batch_size, min((current.lr or most) * shrink, most), most)
