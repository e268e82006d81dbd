"""What trials say about batch size and learning rate."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..show.table import listed, render
from ..statistics.estimate import Estimate, short
from ..training.divergence import RISE
from ..training.record import Record
from .branches import Branches
from .search import AVERAGED, CONSTANT, MEAN_WEIGHTS, best_rate, best_rates

MARGIN = 2.0  # the largest rate that held over the rate that is advised, at least
NEARLY = 0.95  # shares above are told as equal
AHEAD = "samples of the training ahead"  # its name in the file
HIGHER = 0.2  # of the loss of the batch size that is advised over the lowest, at most
RATIO = 4  # of one batch size to the next
CLOSE = 4.0  # the two best rates of a batch size, where they agree


@dataclass(frozen=True)
class Advice:
    """A batch size and a learning rate that were tried; `print` it.

    Args:
        batch_size, lr: B in samples and ε of the first parameter group; None where nothing holds.
        reasons: one sentence each.
        confidence: "good", "rough" or "none"; see `advise`.
        lr_range: the best rates of the last trial: by the losses of the last quarter of the steps
            (for a constant rate), and at averaged weights (for a rate that decays afterwards). With
            a schedule both are that at the end.
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
        return render(listed(f"What to do (confidence: {self.confidence})", self.reasons))


def rose(record: Record) -> bool:
    """Whether, on average over all steps, the losses were above √2 times that at the start.

    A learning rate that falls to zero hides at the end what it did before.
    """
    start, mean = record.start_loss, record.mean_batch_loss
    return mean is not None and mean > start + (RISE - 1) * abs(start)


@dataclass(frozen=True)
class Choice:
    """The best rates of one batch size.

    Args:
        batch_size: B.
        constant, averaged: the best rates by the late and by the averaged losses.
        stable: the largest rate at which, and below which, all seeds were stable.
        at_end: whether the best of all stable rates by the late losses is the smallest.
    """

    batch_size: int
    constant: float
    averaged: float
    stable: float
    at_end: bool

    @classmethod
    def of(
        cls,
        records: Sequence[Record],
        margin: float = 1.0,
        least: float = 0.0,
        unstable: float = math.inf,
    ) -> Choice | None:
        """From runs at one batch size; None where no rate is stable with that margin.

        Nor is a rate chosen with which, or below which, losses rose on the way.

        Args:
            records: the runs.
            margin: the largest rate that held over the best ones, at least.
            least: smaller rates are left out.
            unstable: a rate that is known to diverge.
        """
        unstable = min([unstable, *(r.run.lr for r in records if r.diverged)])
        stable = max((r.run.lr for r in records if r.run.lr < unstable), default=0.0)
        low, high = least * (1 - 1e-9), stable / margin * (1 + 1e-9)
        first = min((r.run.lr for r in records if rose(r)), default=math.inf)
        best = best_rates([r for r in records if low <= r.run.lr <= high and r.run.lr < first])
        if best is None:
            return None
        lowest = min(record.run.lr for record in records)
        at_end = best_rate([r for r in records if r.run.lr <= stable], CONSTANT) == lowest
        return cls(records[0].run.batch_size, *best, stable, at_end)

    @property
    def middle(self) -> float:
        """The geometric middle of the best rates."""
        return math.sqrt(self.constant * self.averaged)

    @property
    def apart(self) -> float:
        """The factor between the best rates, at least 1."""
        return max(self.constant, self.averaged) / min(self.constant, self.averaged)


@dataclass(frozen=True)
class LastTrial:
    """The runs at the batch size that is advised, on other orders of the samples.

    Args:
        choice: the best rates.
        records: all runs.
        whole: whether they are as long as the training ahead.
    """

    choice: Choice
    records: Sequence[Record]
    whole: bool

    @property
    def loss(self) -> str:
        """By which loss the rate is chosen: in short runs the late loss prefers too small ones."""
        return CONSTANT if self.whole else AVERAGED

    @property
    def lr(self) -> float:
        """The rate that is advised."""
        return self.choice.constant if self.whole else self.choice.averaged

    @property
    def runs(self) -> list[Record]:
        """Those at this rate."""
        return [record for record in self.records if record.run.lr == self.lr]

    def mean(self, lr: float) -> float:
        """The mean loss at a rate."""
        return _mean(self.records, lr, self.loss)


def chosen(branches: Branches, extra: float, whole: bool = False) -> Choice | None:
    """The largest batch size that costs at most so many more samples than the smallest one.

    Nor may its loss be more than `HIGHER` above the lowest, at rates of which twice held: where
    losses fall steeply a few more samples are worth much. Where losses do not tell what batch sizes
    cost, the one in use.

    Args:
        branches: the runs.
        extra: 0.25 for 25 %.
        whole: whether they are as long as the training ahead; then losses are those at a constant
            rate, where there is no schedule.
    """
    sizes, costs = branches.batch_sizes, known_costs(branches)
    losses = _losses(branches, CONSTANT if whole else AVERAGED) if costs else {}
    lowest = min(losses.values(), default=0.0)
    most = lowest + HIGHER * abs(lowest)
    for size in reversed(sizes) if costs else sorted(sizes, key=lambda b: b != branches.batch_size):
        cheap = costs.get(size, math.inf) <= 1 + extra and losses.get(size, math.inf) <= most
        if not costs or cheap or size == sizes[0]:
            found = Choice.of(_at(branches, size))
            if found is not None:
                return found
    return None


def _mean(records: Sequence[Record], lr: float, loss: str) -> float:
    """The mean of a loss over the runs at a rate that did not diverge."""
    own = [record for record in records if record.run.lr == lr and not record.diverged]
    return statistics.fmean(getattr(record, loss) for record in own)


def _at(branches: Branches, size: int) -> list[Record]:
    return [record for record in branches.records if record.run.batch_size == size]


def _losses(branches: Branches, loss: str) -> dict[int, float]:
    """The loss of every batch size at its best rate of which twice held, or the best that held."""
    found = {}
    for size in branches.batch_sizes:
        own = _at(branches, size)
        choice = Choice.of(own, MARGIN) or Choice.of(own)
        if choice is not None:
            last = LastTrial(choice, own, loss == CONSTANT)
            found[size] = last.mean(last.lr)
    return found


def next_below(size: int) -> int:
    """The next smaller batch size: no single samples, which BatchNorm refuses."""
    return min(size, max(2, size // RATIO))


def _by_critical(branches: Branches) -> bool:
    """Whether costs are those of B_crit: shares, at averaged weights, are those of a falling rate.

    Not with a schedule, and not where B_crit is only bounded.
    """
    return branches.schedule is None and branches.critical_batch_size.is_resolved


def known_costs(branches: Branches) -> dict[int, float]:
    """How many times the samples of the smallest batch size each one needs for the same loss.

    At a constant rate by B_crit; with a schedule, or where B_crit is only bounded, by the shares,
    which are bounds as well. None where losses do not fall, or every run diverged.
    """
    shares = branches.shares() if any(not r.diverged for r in branches.records) else {}
    shares = {size: share for size, share in shares.items() if math.isfinite(share)}
    if not shares:
        return {}
    if _by_critical(branches):
        critical = float(branches.critical_batch_size)
        least = 1 + min(shares) / critical
        return {size: (1 + size / critical) / least for size in shares}
    return {size: 1 / share for size, share in shares.items()}


def unfinished(branches: Branches) -> list[int]:
    """The batch sizes whose loss still fell by more than the tolerance at the largest rate."""
    found = []
    for size in branches.batch_sizes:
        own = _at(branches, size)
        lrs = sorted({record.run.lr for record in own if not record.diverged})
        if len(lrs) < 2 or best_rate(own, AVERAGED) != max(record.run.lr for record in own):
            continue
        below, last = (_mean(own, lr, AVERAGED) for lr in lrs[-2:])
        if below - last > branches.tolerance * abs(last):
            found.append(size)
    return found


def likely_lower(branches: Branches, smaller: int) -> bool:
    """Whether a smaller batch size than all that held is likely to end much lower.

    By `HIGHER` of the loss, or of the gain: a cross-entropy never falls by much of itself. In place
    of the smallest one, B, a batch size b needs (1 + b/B_crit)/(1 + B/B_crit) of the samples, and
    the loss falls by D per e-fold of them.
    """
    critical, losses = branches.critical_batch_size, branches.losses()
    smallest = min(losses)
    value = float(critical) if critical.is_resolved else critical.high
    loss = float(losses[smallest].mean())
    factor = math.log1p(smallest / value) - math.log1p(smaller / value)
    return branches.fall * factor > HIGHER * min(abs(loss), branches.start_loss - loss)


def why_rough(last: LastTrial, branches: Branches) -> tuple[str, ...]:
    """What makes the advice uncertain, however long the rate was tried."""
    choice, tried = last.choice, last.runs
    alone = len(branches.batch_sizes) < 2
    start, end = statistics.fmean(record.start_loss for record in tried), last.mean(last.lr)
    samples = tried[0].run.steps * choice.batch_size
    smaller = next_below(choice.batch_size)
    falling = ", ".join(map(str, unfinished(branches)))
    reasons = {
        "a smaller batch size is likely to end at a lower loss, and was not tried": (
            choice.batch_size == min(branches.losses()) > smaller
            and likely_lower(branches, smaller)
        ),
        f"the loss still fell at the largest learning rate that was tried at batch size {falling}, "
        f"and what it costs is not known (a larger `budget`, or a larger rate in use)": (
            bool(falling)
        ),
        f"the best constant rate, {short(choice.constant)}, is the smallest of the last trial": (
            choice.at_end
        ),
        f"the best rates for a constant and for a decaying rate are a factor "
        f"{short(choice.apart)} apart": choice.apart > CLOSE and not last.whole,
        "the loss did not fall in the trial": not end < start,
        f"the loss more than halved in the trial, and then the best rate depends on the length of "
        f"the run: this one is for runs of about {samples} samples": (
            0 <= end < start / 2 and not last.whole
        ),
        "there is one seed only": len(tried) < 2,
        "no other batch size was tried: nothing is said about it (a larger `budget` does)": alone,
        "the losses of the batch sizes do not tell what they cost": not alone
        and not known_costs(branches),
    }
    return tuple(reason for reason, holds in reasons.items() if holds)


def lower_elsewhere(last: LastTrial, tolerance: float) -> tuple[str, ...]:
    """Whether another rate of the trial had a loss that is lower by more than a tolerance.

    A larger one is not advised where twice of it is not known to hold, a smaller one because in
    short runs less noise looks better than it is.
    """
    choice, records = last.choice, last.records
    losses = {lr: last.mean(lr) for lr in {r.run.lr for r in records if r.run.lr <= choice.stable}}
    best, own = min(losses, key=lambda lr: losses[lr]), losses[last.lr]
    if not own - losses[best] > tolerance * abs(own):
        return ()
    less = f"{100 * (own - losses[best]) / abs(own):.0f} %"
    twice = [r for r in records if r.diverged and r.run.lr <= MARGIN * best * (1 + 1e-9)]
    larger = "twice of it diverged" if twice else "it is not known whether twice of it holds"
    if any(rose(record) for record in records if record.run.lr <= best):
        larger = "its losses were above the start on the way"
    why = f"and {larger}" if best > last.lr else "as less noise has in short trials"
    return (f"the learning rate {short(best)} had a loss {less} lower, {why}",)


def write_reasons(last: LastTrial, branches: Branches, doubts: Sequence[str]) -> tuple[str, ...]:
    """The advice in sentences.

    Args:
        last: the last trial.
        branches: the trials before.
        doubts: why the advice is rough.
    """
    choice, schedule = last.choice, branches.schedule
    long = ", as long as the training ahead," if last.whole else ""
    falls = "" if schedule is None else f", changed by the schedule ({schedule})"
    where = "mean of the batches in the last quarter" if last.whole else MEAN_WEIGHTS
    steps, seeds = last.runs[0].run.steps, len(last.runs)
    return (
        f"Batch size {choice.batch_size}, learning rate {short(last.lr)}{falls}: tried {steps} "
        f"steps from here{long} on {seeds} seed{'s' if seeds > 1 else ''}: holds. The "
        f"learning rate {short(choice.stable)} holds as well. The training loss went from "
        f"{short(branches.start_loss)} to {short(last.mean(last.lr))} "
        f"({'at the end' if schedule else where}).",
        *(f"This is rough, because {doubt}." for doubt in doubts),
        *_other_rate(last),
        _about(branches),
        *_costs(branches),
    )


def _other_rate(last: LastTrial) -> tuple[str, ...]:
    """What is best for a rate that decays, or stays constant, where that is another one."""
    choice = last.choice
    if choice.constant == choice.averaged:
        return ()
    if last.whole:
        return (
            f"This is for a learning rate that stays constant. For one that falls to zero, "
            f"{short(choice.averaged)} looked best (loss {MEAN_WEIGHTS}): `schedule` tries it.",
        )
    return (
        f"If the rate stays constant, {short(choice.constant)} had the lowest loss in these steps; "
        f"{short(choice.averaged)} was best for a rate that decays at the end (loss at averaged "
        f"weights).",
    )


def _about(branches: Branches) -> str:
    """The critical batch size, and what it means."""
    critical = branches.critical_batch_size
    if critical.low <= 0 and math.isinf(critical.high):
        return (
            "The critical batch size is not known from these trials: several batch sizes are "
            "needed, and losses that fall (a larger `budget`)."
        )
    said = critical.bounds_in_words()
    if critical.is_resolved:
        said = f"about {short(float(critical))} ({said})"
    sure = branches.agrees or branches.schedule is not None or not critical.is_resolved
    doubt = "" if sure else " It is uncertain: its two ways do not agree, or there is one only."
    ahead = branches.settings.get(AHEAD) or 0
    fewer = f"; the training ahead has {ahead}" if branches.samples_each < NEARLY * ahead else ""
    how = "at a constant rate" if branches.schedule is None else "with this schedule"
    return (
        f"Critical batch size of runs of {branches.samples_each} samples {how}, as the trials "
        f"had{fewer}: {said}. There a run takes twice the steps of very large batches and twice "
        f"the samples of very small ones.{doubt}"
    )


def _costs(branches: Branches) -> tuple[str, ...]:
    """What the batch sizes cost in samples."""
    costs = known_costs(branches)
    if len(costs) < 2:
        return ()
    by_critical = _by_critical(branches)
    most = math.inf if by_critical else 1 / branches.smallest_share
    others = [_cost(size, cost, most) for size, cost in costs.items() if size > min(costs)]
    how = "By this, samples" if by_critical else "Samples that the trials needed"
    return (
        f"{how} for the same loss, compared with batch size {min(costs)}: {', '.join(others)}.",
    )


def _cost(size: int, cost: float, most: float) -> str:
    if cost * NEARLY < 1:
        return f"no more at {size}"
    bound = "at least " if cost >= most * (1 - 1e-9) else ""
    return f"{bound}{cost:.2g} times at {size}"
