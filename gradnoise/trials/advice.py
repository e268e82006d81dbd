"""What trials say about batch size and learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..statistics.estimate import Estimate, short
from ..training.record import Record
from .branches import Branches
from .search import best_rates

MARGIN = 2.0  # the smallest rate that is not stable over the rate that is advised, at least
CLOSE = 4.0  # the two best rates of a batch size, where they agree
ENOUGH = 20  # steps of a run that can be called a trial


@dataclass(frozen=True)
class Advice:
    """A batch size and a learning rate that were tried; `print` it.

    Args:
        batch_size, lr: B in samples and ε of the first parameter group; None where nothing holds.
        reasons: one sentence each.
        confidence: "good": tried long enough, stable with a margin, and the two ways to compare
            losses agree; "rough": tried, but one of these is missing; "none".
        lr_range: the best rates of the trials at that batch size: by the loss at the last weights
            (for a constant rate) and at averaged weights (for a rate that decays afterwards).
        steps, seeds: how long the advised pair was tried, on how many orders of the samples.
        critical_batch_size: B_crit of the branches, in samples.
        samples: what the trials cost: samples that gradients were taken of.
        branches: all trials.

    Source: as for `advise`.
    """

    batch_size: int | None
    lr: float | None
    reasons: tuple[str, ...]
    confidence: str
    lr_range: tuple[float, float] | None
    steps: int
    seeds: int
    critical_batch_size: Estimate
    samples: int
    branches: Branches

    def __str__(self) -> str:
        head = f"What to do (confidence: {self.confidence})"
        return "\n".join([head, *(f"- {reason}" for reason in self.reasons)])


@dataclass(frozen=True)
class Choice:
    """The best of one batch size.

    Args:
        batch_size: B.
        iterate, averaged: the best rates by the loss at the last weights, at averaged weights.
        unstable: the smallest rate at which a seed was not stable; ∞ where none is.
        loss: the lowest mean loss at averaged weights.
        at_end: whether a best rate is the smallest or largest that was tried.
    """

    batch_size: int
    iterate: float
    averaged: float
    unstable: float
    loss: float
    at_end: bool

    @property
    def lr(self) -> float:
        """The middle of the best rates, with a margin to what is not stable."""
        return min(math.sqrt(self.iterate * self.averaged), self.unstable / MARGIN)

    @property
    def agrees(self) -> bool:
        """Whether the two best rates are close, and inside of what was tried."""
        apart = max(self.iterate, self.averaged) / min(self.iterate, self.averaged)
        return apart <= CLOSE and not self.at_end


def choices(records: Sequence[Record]) -> list[Choice]:
    """One for every batch size that has a stable rate, ascending."""
    found = []
    for size in sorted({record.run.batch_size for record in records}):
        own = [record for record in records if record.run.batch_size == size]
        best = best_rates(own)
        if best is None:
            continue
        stable = [r.run.lr for r in own if not r.diverged]
        unstable = min((r.run.lr for r in own if r.diverged), default=math.inf)
        losses = [r.averaged_loss for r in own if r.run.lr == best[1]]
        at_end = best[0] == min(stable) or (best[1] == max(stable) and math.isinf(unstable))
        mean = sum(x for x in losses if x is not None) / len(losses)
        found.append(Choice(size, *best, unstable, mean, at_end))
    return found


def chosen(found: Sequence[Choice], branches: Branches, extra: float) -> Choice:
    """The largest batch size that costs at most so many more samples than the best one."""
    shares = branches.shares()
    most = max((share for share in shares.values() if math.isfinite(share)), default=math.nan)
    within = [c for c in found if shares.get(c.batch_size, math.nan) * (1 + extra) >= most]
    return max(within or found[:1], key=lambda choice: choice.batch_size)


def write_reasons(choice: Choice, branches: Branches, tried: Sequence[Record]) -> tuple[str, ...]:
    """The advice in sentences.

    Args:
        choice: the best rates of the last trial.
        branches: the trials before.
        tried: runs at the advised rate.
    """
    critical, steps = branches.critical_batch_size, tried[0].run.steps
    scale = short(float(critical)) if critical.is_resolved else critical.bounds_in_words()
    after = sum(record.train_loss for record in tried) / len(tried)
    return (
        f"Batch size {choice.batch_size}, learning rate {short(choice.iterate)}: tried {steps} "
        f"steps from here on {len(tried)} seeds: holds. The loss went from "
        f"{short(branches.start_loss)} to {short(after)}.",
        f"If the rate decays to 0 afterwards: {short(choice.averaged)}{_beyond(choice)}.",
        f"Critical batch size {scale} samples"
        f"{_ends(critical)}: there a run takes twice the fewest samples and twice the fewest "
        f"steps.",
        *_costs(branches),
    )


def _ends(critical: Estimate) -> str:
    if not critical.is_resolved:
        return ""
    return f" ({short(critical.low)} to {short(critical.high)})"


def _costs(branches: Branches) -> tuple[str, ...]:
    """What the batch sizes cost in samples."""
    shares = {size: share for size, share in branches.shares().items() if math.isfinite(share)}
    others = [
        f"{1 / share:.2g} times at {size}" for size, share in shares.items() if size > min(shares)
    ]
    if not others:
        return ()
    return (f"Samples that the same loss takes, against {min(shares)}: {', '.join(others)}.",)


def _beyond(choice: Choice) -> str:
    if math.isinf(choice.unstable):
        return "; no rate that was tried was unstable"
    return f"; {short(choice.unstable)} was not stable"
