"""`gn.advise`: a batch size and a learning rate, tried by short training from here."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ArgumentError, check_whole, number
from ..problem.losses.loss_fn import LossFn
from ..problem.optimizer_settings import read_optimizer
from ..problem.state.guard import untouched
from ..statistics.estimate import Estimate, Status, check_level
from ..training.schedule import Schedule
from .advice import (
    AHEAD,
    MARGIN,
    NEARLY,
    RATIO,
    Advice,
    Choice,
    LastTrial,
    chosen,
    likely_lower,
    lower_elsewhere,
    next_below,
    why_rough,
    write_reasons,
)
from .branches import Branches, in_order
from .search import Length, SizeSearch, search
from .trials import LEAST, Trials, known_batch_size, plan_from

EPOCHS = 2  # of the default budget
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the rate in use, at the batch size in use
LATER = (0.5, 1.0, 2.0)  # of the rate that those of the nearest batch size let expect
SEVERAL = 3  # batch sizes; the next ones are tried towards B_crit
LEAST_STEPS = 8  # of a run at the largest batch size
FURTHER, FARTHER = 3, 8  # rates beyond these, at most; at B₀ the rate in use may be far off
FEW, MORE = 4.5, 3.6  # whole runs per batch size, and in addition, that a search takes about
ALL = 4  # the budget for several batch sizes over that for one, about
FIRST = 0.5  # share of the budget for the batch size; the rest is for the rate
FINAL = (0.5, 1.0, 2.0)  # rates that are tried for longer, as factors
SAME = (
    "The loss is the same after all runs, whatever the learning rate: it does not depend on what "
    "the optimizer trains, or its gradient is zero here."
)
LONG = 1000  # steps that are enough to judge a rate, where an epoch has more
SHORT = 200  # steps that are too few for it, even where an epoch has fewer


def advise(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    optimizer: torch.optim.Optimizer,
    *,
    budget: int | None = None,
    samples: int | None = None,
    batch_size: int | None = None,
    seeds: int = 2,
    extra: float = 0.25,
    level: float = 0.95,
    max_grad_norm: float | None = None,
    schedule: str | Schedule | None = None,
    vectorise: bool | str = "auto",
    executor: Executor | None = None,
    path: str | Path | None = None,
    progress: bool = False,
) -> Advice:
    """Find a batch size and a learning rate by short training runs from where a model stands.

    Copies of the model are trained as `gn.branch` does. Half of the budget (where `samples` is
    given, all that the last runs do not need) finds the batch size: runs at B₀, with rates from ¼
    to 4 times the one in use, then at B₀/4 (no single samples), 4B₀ and 16B₀, as far as the budget
    allows (the largest is smaller where it would make fewer than 8 steps), and at further rates
    where the best is at an end. In place of 16B₀, and once more if that can be paid, B₀/16 or 64B₀
    is tried where B_crit is below or above all the others, or where a smaller one is likely to end
    lower by 20 % of the loss or of the gain. All are on one order of the samples, because longer
    runs tell more than several orders. Advised is the largest batch size that needs at most `extra`
    more samples for its loss than the smallest one, and whose loss is at most 20 % above the
    lowest, at rates of which twice held; B₀ where the losses do not tell it. The rest finds the
    rate: longer runs at that batch size, on other orders of the samples, with three rates a factor
    of 2 apart around the geometric middle of the best ones by the losses of the last quarter of the
    steps and at averaged weights (by the first alone where these runs are as long as the training
    ahead). Advised is the best one of those at which twice the rate held as well: at averaged
    weights; where these runs are as long as the training ahead, by the last quarter, which is right
    for a rate that stays constant. Unless they took 1000 steps, no smaller temperature than in use
    is advised, if that holds, because in short runs less noise always looks better.

    With a `schedule` all runs have it, and losses are those at the end. Then a rate is not advised
    where the batch losses of all steps were above √2 times the loss at the start on average, and
    temperatures may be smaller than in use.

    The advice is about as many steps as were tried. Say in `samples` how long the training ahead
    is: then no run is longer, and where the budget pays for runs as long as that, both the rate and
    the critical batch size are those of this training. It is "good" where the last runs took an
    epoch of at least 200 steps, or 1000 steps, or with `samples` half of these; the loss fell, but
    not to less than half, unless they took all of `samples`; no other rate had a loss that is lower
    by more than 5 %; the best rate is not their smallest; the best ones by the two losses are
    within a factor of 4, unless they took all of `samples`; no smaller batch size than all that
    were tried is likely to end lower by 20 % of the loss or of the gain; the second moments of the
    optimizer, if it has any, settle within these steps; and there were several seeds and batch
    sizes. Otherwise it is "rough", and the reasons are printed. Where the budget is small, B₀ alone
    is tried.

    Args:
        model, loss_fn, data, optimizer: as for `gn.branch`.
        budget: samples that gradients are taken of, in all runs together; default: twice the number
            of samples of `data`. With two seeds 16 times `samples` pay for last runs as long as
            that, 30 to 40 times for all of them. Losses at the end of runs are taken besides, on
            2048 samples at most, and trΣ on 512; a few steps find out whether runs can be one
            program.
        samples: how many the training ahead takes, enough for 8 steps at B₀; None: not known.
        batch_size: B₀; by default that of a DataLoader.
        seeds: orders of the samples in the longer runs; fewer where the budget is too small.
        level, max_grad_norm, schedule, vectorise, executor, path, progress: as for `gn.branch`.
        extra: how many more samples a larger batch may cost, relative: 0.25 for 25 %.

    Returns:
        Advice.

    Raises:
        ArgumentError: an argument out of range.
        ModelError: the model cannot be copied.
        SweepFileError: `path` is of other runs, or damaged.

    Source: Smith, Elsen and De 2020 (arXiv:2006.15081) for the recipe: the largest stable rate from
    a short search, and a batch size that balances time and compute.

    Example:
        >>> from gradnoise.toy import NoisyQuadratic
        >>> toy = NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
        >>> model, data = toy.model(), toy.sample(4096, seed=0)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> found = advise(model, toy.loss_fn, data, sgd, batch_size=4)
        >>> found.lr < 0.5  # 2/λ
        True
    """
    base = known_batch_size(data, batch_size)
    check_whole("seeds", seeds, 1)
    if budget is not None:
        check_whole("budget", budget, 1)
    check_level(level)
    if not 0 < number("extra", extra) < math.inf:
        raise ArgumentError(f"`extra` must be positive; got {extra!r}")
    if samples is not None:
        check_whole("samples", samples, 1)
        if samples < LEAST_STEPS * base:
            raise ArgumentError(
                f"`samples` must be enough for {LEAST_STEPS} steps at batch size {base}, at least "
                f"{LEAST_STEPS * base}; got {samples}"
            )
    ahead = math.inf if samples is None else int(samples)
    seeds = int(seeds)  # a whole number of NumPy cannot be written to the file
    with untouched(model, data):
        plan = plan_from(
            model, loss_fn, data, optimizer, max_grad_norm=max_grad_norm,
            samples=None if budget is None else max(int(budget), base), schedule=schedule,
        )  # fmt: skip
        if base > plan.count:
            raise ArgumentError(
                f"`batch_size` = {base} is more than the {plan.count} samples of `data`: give the "
                f"batch size that the steps have in fact"
            )
        spend = EPOCHS * plan.count if budget is None else int(budget)
        last = (len(FINAL) + 1) * seeds * ahead  # what the last trial takes where it is that long
        first = max(FIRST * spend, spend - last)
        sizes, least = sizes_within(base, plan.count, first, ahead)
        own = {
            "batch_size": base,
            "budget": spend,
            AHEAD: None if samples is None else int(samples),
            "seeds": 1,
            "seeds of the last trial": seeds,
        }
        trials = Trials(
            plan, own, budget=spend, path=path, vectorise=vectorise, executor=executor,
            progress=progress,
        )  # fmt: skip
        if budget is not None and plan.count >= max(budget, LEAST):
            trials.epoch = math.inf  # a part of the data was drawn
        if not sizes:
            return _too_little(trials, base, spend)
        lrs = [trials.start.lr * factor for factor in FACTORS]
        length = Length(least, (0,)).whole(max(sizes))
        searched = SizeSearch(trials, base, lrs, LATER, 0.5, length, FURTHER)

        def branches() -> Branches:
            return Branches(
                in_order(searched.records), trials.settings, *trials.how, in_order(searched.parts),
                trials.start.lr, base, *trials.noise, level=level,
            )  # fmt: skip

        trials.budget = first
        _search(searched, sizes, length, plan.count, branches)
        trials.budget = spend
        return _tried(trials, branches(), least, ahead, extra, seeds)


def _search(
    searched: SizeSearch,
    sizes: list[int],
    length: Length,
    count: int,
    so_far: Callable[[], Branches],
) -> None:
    """Runs at B₀ and at the other batch sizes, and beyond them where B_crit is.

    Args:
        searched: where they are collected.
        sizes: B₀ first, then the others in ascending order.
        length: of the runs.
        count: samples of the data.
        so_far: what the runs until then say.
    """
    searched.add(sizes[0], FARTHER)
    for size in sizes[1:2]:
        searched.add(size)
    searched.take_parts()
    for size in sizes[2:SEVERAL]:
        searched.add(size)
    if len(sizes) < SEVERAL:
        return
    for default in (*sizes[SEVERAL:], None):
        wanted = (_towards_critical(so_far(), length, count), default)
        paid = [size for size in wanted if size is not None and searched.can_add(size)]
        if paid:
            searched.add(paid[0])
            if paid[0] < min(sizes):
                searched.take_parts()


def _towards_critical(branches: Branches, length: Length, count: int) -> int | None:
    """The next batch size towards B_crit, where that is beyond those that were tried."""
    if all(record.diverged for record in branches.records):
        return None
    critical, sizes = branches.critical_batch_size, branches.batch_sizes
    value = float(critical)
    if not critical.is_resolved:  # below all of them, above all, or not known
        value = 0.0 if math.isfinite(critical.high) else math.inf if critical.low > 0 else math.nan
    smaller, larger = next_below(sizes[0]), sizes[-1] * RATIO
    wanted = value < sizes[0] or likely_lower(branches, smaller)
    if wanted and branches.batch_size // RATIO**2 <= smaller < sizes[0]:
        return smaller
    steps, rest = divmod(length.samples, larger)
    fits = larger <= count and steps >= LEAST_STEPS and not rest
    return larger if value > sizes[-1] and fits else None


def sizes_within(
    base: int, count: int, budget: float, most: float = math.inf
) -> tuple[list[int], int]:
    """The batch sizes that a budget allows, B₀ first, and how many samples a run takes.

    None where the budget is too small even for B₀.

    Args:
        base: B₀.
        count: samples of the data.
        budget: samples of all these runs together.
        most: samples of a run, at most.
    """
    wanted = sorted({next_below(base), base, base * RATIO, base * RATIO**2})
    wanted = [size for size in wanted if size <= count]
    for several in range(len(wanted), 1, -1):
        samples = int(min(budget / (FEW * several + MORE), most))
        largest = min(samples // LEAST_STEPS, count)
        sizes = [size for size in wanted[:several] if size <= largest]
        if base not in sizes:
            continue
        if len(sizes) == several - 1 and largest >= 2 * sizes[-1]:
            sizes.append(base * 2 ** int(math.log2(largest / base)))
        if len(sizes) == several:
            return [base, *(size for size in sizes if size != base)], samples
    samples = int(min(budget / (FEW + MORE), most))
    return ([base], samples) if samples >= LEAST_STEPS * base else ([], 0)


def _tried(
    trials: Trials, branches: Branches, least: int, ahead: float, extra: float, seeds: int
) -> Advice:
    """The advice of these branches, after rates around it were tried for longer.

    Args:
        trials, branches, extra, seeds: as in `advise`.
        least: samples of a run before; the last ones are no shorter, if that can be paid.
        ahead: samples of the training ahead; the last runs are no longer.
    """
    choice = chosen(branches, extra, branches.samples_each >= NEARLY * ahead)
    if choice is None:
        return _nothing(trials, branches, "No learning rate held: start from a smaller one.")
    if len(branches.records) > 1 and len({r.averaged_loss for r in branches.records}) == 1:
        return _nothing(trials, branches, SAME)
    left = trials.budget - trials.spent
    paid = int(left // (len(FINAL) * LEAST_STEPS * choice.batch_size))
    orders = max(1, min(seeds, paid))
    several = left / orders  # one rate more than these, or as long as before where that can be paid
    each = max(int(several / (len(FINAL) + 1)), min(least, int(several / len(FINAL))))
    final = Length(int(min(each, ahead)), tuple(range(1, orders + 1)), "samples of the last trial")
    long = final.samples >= min(LONG * choice.batch_size, ahead)
    cools = branches.schedule is not None  # then less noise does not look better than it is
    lowest = 0.0 if long or cools else least_rate(trials, branches, choice)
    whole = final.samples >= ahead
    centre = max(choice.constant if whole else choice.middle, lowest)
    further = FURTHER if whole else 1
    records = search(trials, choice.batch_size, [centre * f for f in FINAL], final, further)
    unstable = lowest_unstable(branches, choice.batch_size)
    best = Choice.of(records, MARGIN, lowest, unstable) or Choice.of(records, MARGIN, 0.0, unstable)
    if best is None:
        reason = (
            f"At batch size {choice.batch_size} no learning rate held when it was tried for "
            f"longer: give a larger `budget`, or start from a smaller rate."
        )
        return _nothing(trials, branches, reason)
    last = LastTrial(best, records, whole)
    steps = last.runs[0].run.steps
    doubts = (
        *_too_short(trials, final, best.batch_size, seeds, ahead),
        *_not_settled(trials, steps),
        *why_rough(last, branches),
        *lower_elsewhere(last, branches.tolerance),
    )
    return Advice(
        best.batch_size,
        last.lr,
        write_reasons(last, branches, doubts),
        "rough" if doubts else "good",
        (best.constant, best.averaged),
        steps,
        len(last.runs),
        branches.critical_batch_size,
        trials.spent,
        branches,
    )


def _too_short(
    trials: Trials, final: Length, batch_size: int, seeds: int, ahead: float
) -> tuple[str, ...]:
    """Whether longer runs are needed, and the budget that pays for them with all seeds."""
    known = math.isfinite(ahead)
    enough = ahead if known else max(min(trials.epoch, LONG * batch_size), SHORT * batch_size)
    if final.samples >= (enough / 2 if known else enough):
        return ()
    needed = math.ceil((len(FINAL) + 1) * seeds * enough / (1 - FIRST))
    told = f"`budget` = {needed}{_passes(trials, needed, ', {}, is enough', ' is enough')}"
    what = "less than half as long as the training ahead" if known else "short"
    return (f"the trial was {what} (for batch size {batch_size}, {told}; it may find another one)",)


def _passes(trials: Trials, samples: int, known: str, unknown: str) -> str:
    """How often samples are all of the data, if it is known how many these are."""
    if math.isinf(trials.epoch):
        return unknown
    return known.format(f"{float(f'{samples / trials.epoch:.2g}'):g} passes over the data")


def _not_settled(trials: Trials, steps: int) -> tuple[str, ...]:
    """Whether the second moments of an adaptive optimizer settle only after the trial."""
    settings = read_optimizer(trials.start.optimizer)
    if settings is None or settings.steps is None or settings.settled_after is None:
        return ()
    if settings.steps + steps >= settings.settled_after:
        return ()
    return (
        f"{settings.name} has taken {settings.steps} steps, and its second moments settle after "
        f"about {settings.settled_after}",
    )


def lowest_unstable(branches: Branches, batch_size: int) -> float:
    """The smallest rate that diverged at a batch size."""
    own = (record.run for record in branches.records if record.diverged)
    return min((run.lr for run in own if run.batch_size == batch_size), default=math.inf)


def least_rate(trials: Trials, branches: Branches, choice: Choice) -> float:
    """The rate in use, scaled to a batch size as far as it held; 0 where twice of it diverges.

    In a short run every smaller rate looks better, because the noise of the steps falls at once and
    the progress that it costs shows later.
    """
    power = 1.0 if isinstance(trials.start.optimizer, torch.optim.SGD) else 0.5

    def scaled(lr: float, size: int) -> float:
        return lr * math.pow(choice.batch_size / size, power)

    held = max(trials.start.lr, choice.stable)
    least = min(scaled(trials.start.lr, branches.batch_size), held)
    # a larger batch bears a larger rate, but not more noise; so a smaller one bears no larger rate
    unstable = (
        max(record.run.lr, scaled(record.run.lr, record.run.batch_size))
        for record in branches.records
        if record.diverged
    )
    return least if all(lr > MARGIN * least * (1 + 1e-9) for lr in unstable) else 0.0


def _nothing(trials: Trials, branches: Branches, reason: str) -> Advice:
    unknown = Estimate(math.nan, 0.0, math.inf, branches.level, math.nan, 0, Status.BEYOND_GRID)
    return Advice(None, None, (reason,), "none", None, 0, 0, unknown, trials.spent, branches)


def _too_little(trials: Trials, base: int, budget: int) -> Advice:
    needed = (FEW + MORE) / FIRST * LEAST_STEPS * base
    least = math.ceil(needed)
    reason = (
        f"Nothing was tried: a budget of {budget} samples is too small for runs of {LEAST_STEPS} "
        f"steps at batch size {base}. Give `budget` = {least} or more"
        f"{_passes(trials, least, ' ({})', '')}; {math.ceil(ALL * needed)} are enough for several "
        f"batch sizes."
    )
    nothing = Branches((), trials.settings, lr=trials.start.lr, batch_size=base)
    return _nothing(trials, nothing, reason)
