"""Whether the runs of one batch size can be one vectorised program, and whether that is faster."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import nn

from ..errors import ArgumentError, first_line
from ..problem.state.wrappers import trainable
from ..tensors.trees import select
from .batch_order import BatchOrder
from .ensemble import Ensemble
from .plan import Plan
from .record import Run
from .run import stepper

MOST_RUNS = 256  # of one program
MEMORY, COPIES = 2**31, 5  # bytes for parameters, gradients, momenta and what updates them
TOLERANCE = 1e-3  # relative, of the trial gradients: float32 in another order of operations
TIMED = 3  # steps, after one that is not counted
clock = time.perf_counter


def runs_per_program(
    plan: Plan,
    model: nn.Module,
    runs: Sequence[Run],
    vectorise: bool | str,
    earlier: tuple[int, str] = (0, ""),
) -> tuple[int, str]:
    """How many runs may be one program at most, 0 for none, and why.

    Args:
        plan: of the sweep.
        model: a fresh one, whose weights may change.
        runs: all of the sweep.
        vectorise: as for `gn.sweep`.
        earlier: what an earlier call of the same sweep found. Where it found one program faster,
            that is not timed again, so that programs that were cut off go on.

    Raises:
        ArgumentError: `vectorise` out of range, or True where it is not possible.
    """
    if vectorise not in (True, False, "auto"):
        raise ArgumentError(f'`vectorise` must be "auto", True or False; got {vectorise!r}')
    plan.start_loss(runs[0].seed)  # a loss that cannot be trained at all is refused here
    if vectorise is False:
        return 0, ""
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    most = min(MOST_RUNS, MEMORY // (COPIES * size))
    too_large = "the model is too large to be stacked"
    reason = why_not_vectorised(plan, runs[0]) if most > 1 else too_large
    if reason is not None:
        if vectorise is True:
            raise ArgumentError(f"`vectorise` = True, but the runs cannot be one program: {reason}")
        return 0, f"they cannot be one program: {reason}"
    if vectorise is True:
        return most, ""
    if earlier[0]:
        return most, earlier[1]
    timed = _most_work(groups(runs, most))
    stacked, alone = seconds_per_step(plan, model, timed)
    count = f"{len(timed)} run{'s' * (len(timed) > 1)}"
    return most if stacked < alone else 0, (
        f"a step of {count} at B = {timed[0].batch_size} takes {1e3 * stacked:.3g} ms "
        f"as one program, {1e3 * alone:.3g} ms one by one"
    )


def groups(runs: Sequence[Run], most: int) -> Iterator[list[Run]]:
    """The runs by batch size and length, at most so many in each group."""
    by = sorted(runs, key=lambda run: (run.budget, run.batch_size, run.steps))
    for _, own in itertools.groupby(by, key=lambda run: (run.budget, run.batch_size, run.steps)):
        several = list(own)
        for start in range(0, len(several), most):
            yield several[start : start + most]


def _most_work(several: Iterator[list[Run]]) -> list[Run]:
    """The group that takes the most samples; of equal ones the one with the most steps."""
    return max(several, key=lambda own: (own[0].steps * own[0].batch_size, own[0].steps))


def seconds_per_step(plan: Plan, model: nn.Module, runs: Sequence[Run]) -> tuple[float, float]:
    """Seconds of one step of these runs, as one program and one by one.

    Every run is timed at the smallest ε from the weights of `model`, which change.
    """
    run = min(runs, key=lambda each: each.lr)
    ensemble = Ensemble(plan, [run] * len(runs), {run.seed: model})
    step = stepper(plan, run, model)

    def all_at_once() -> None:
        losses, gradients = ensemble.gradients(0)
        ensemble.update(0, gradients)
        losses.tolist()  # waits for the device

    return _seconds(all_at_once), len(runs) * _seconds(lambda: step(0).item())


def _seconds(work: Callable[[], object]) -> float:
    """The shortest of a few times, the first of all left out."""
    times = []
    for _ in range(1 + TIMED):
        start = clock()
        work()
        times.append(clock() - start)
    return min(times[1:])


def why_not_vectorised(plan: Plan, run: Run) -> str | None:
    """Why runs like this one cannot be one program; None where they can.

    The first gradients of two runs are compared with those of the models by themselves. Buffers
    must not change, and must be the same for every seed, because a program has one copy of them.
    """
    reason = None if plan.start is None else plan.start.why_not_stacked()
    if reason is not None:
        return reason
    with torch.random.fork_rng():
        try:
            return _difference(plan, run)
        except Exception as error:  # whatever vmap, the model or the loss has to say
            return first_line(error)


def _difference(plan: Plan, run: Run) -> str | None:
    both = [run, replace(run, seed=run.seed + 1)]
    models = {each.seed: plan.model(each.seed) for each in both}
    for first, second in zip(*(model.buffers() for model in models.values()), strict=True):
        if not torch.equal(first, second):
            return "the model has random buffers"
    before = [buffer.clone() for buffer in models[run.seed].buffers()]
    _, found = Ensemble(plan, both, models).gradients(0)
    for place, each in enumerate(both):
        model = models[each.seed]
        samples, _ = plan.on(next(model.parameters()).device)
        rows = BatchOrder(plan.count, each.batch_size, each.seed).rows(0)
        loss = plan.bound(model)(select(samples, rows)).mean()
        named = trainable(model)
        expected = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        for name, gradient in zip(named, expected, strict=True):
            if gradient is None:
                continue
            gap = (found[name][place] - gradient).norm()
            if not gap <= TOLERANCE * gradient.norm() + 1e-12:
                return f"under vmap {name!r} has another gradient (dropout, or a custom kernel)"
    if not all(map(torch.equal, before, models[run.seed].buffers())):
        return "a forward pass changes the model's buffers (batch normalisation)"
    return None
