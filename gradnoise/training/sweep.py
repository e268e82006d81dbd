"""`gn.sweep`: train over a grid of learning rates, batch sizes and seeds."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ArgumentError, check_whole
from ..losses import LossFn
from ..report import progress_bar
from .ensemble import Ensemble, obstacle
from .ledger import Ledger
from .plain import train
from .plan import OPTIMIZERS, Metric, Plan, Record, Run, gathered
from .result import Sweep

TOGETHER = 256  # runs of one program at most


def sweep(
    make_model: Callable[[], nn.Module],
    loss_fn: LossFn | nn.Module,
    train_data: Any,
    *,
    batch_sizes: Sequence[int],
    lrs: Sequence[float],
    momentum: float = 0.0,
    epochs: float | None = None,
    steps: int | None = None,
    seeds: int | Sequence[int] = 1,
    executor: Executor | None = None,
    optimizer: str = "sgd",
    weight_decay: float = 0.0,
    schedule: Callable[[float], float] | None = None,
    test_data: Any = None,
    metrics: Mapping[str, Metric] | None = None,
    vectorise: bool | str = "auto",
    path: str | Path | None = None,
    progress: bool = False,
) -> Sweep:
    """Train with every learning rate, batch size and seed, and see what is stable and what is best.

    Runs of one batch size are one vectorised program where the model allows, which is tried on one
    step and held to torch's own. Batches are drawn without replacement, anew every epoch, the same
    for all learning rates of a seed; an incomplete last batch is left out.

    A run *diverges* when its loss is not finite, exceeds 10⁴ times its start (on a running mean of
    ten steps), ends above its start, or ends above 0.9 of its start after the running mean was
    above 1.5 of it.

    Args:
        make_model: returns a new model, called without arguments under each seed.
        loss_fn: as for `gn.profile`.
        train_data: as for `gn.profile`, all of it; samples of equal shapes.
        batch_sizes, lrs: B and ε.
        momentum: m, or β₁ of "adam".
        epochs: length of the runs in passes over the data.
        steps: length of the runs in steps; given with `epochs`, both are swept.
        seeds: how many, or which.
        executor: any `concurrent.futures.Executor`: processes here, or a cluster's; None trains
            in this process.
        optimizer: "sgd", "nesterov" or "adam", as torch has them.
        weight_decay: its coefficient, as a penalty.
        schedule: factor of ε by the fraction of a run that is done, from 0 to below 1.
        test_data: what `test_loss` and `metrics` are about.
        metrics: `metric(model, batch)` with one number per sample, by name.
        vectorise: "auto", or whether runs have to be, or must not be, one program.
        path: of a file that finished runs are written to as they finish. With the same file a
            sweep that was stopped goes on; the grid may grow.
        progress: show a progress bar on stderr.

    Returns:
        Sweep.

    Raises:
        ArgumentError: an argument out of range; neither `epochs` nor `steps`; `vectorise=True`
            where the model does not allow it; something that cannot be sent to the executor.
        SweepFileError: `path` is of another sweep.

    Example:
        >>> from gradnoise.toy import NoisyQuadratic
        >>> toy = NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
        >>> data = toy.sample(64, seed=0)
        >>> found = sweep(toy.model, toy.loss_fn, data, batch_sizes=[16], lrs=[0.4, 0.6], steps=50)
        >>> found.largest_stable()  # 2/λ = 0.5
        {16: 0.4}
    """
    plan = _plan(
        make_model, loss_fn, train_data, test_data, metrics, optimizer, momentum, weight_decay,
        schedule,
    )  # fmt: skip
    chosen = range(seeds) if isinstance(seeds, int) else seeds
    runs = _grid(plan, batch_sizes, lrs, list(chosen), epochs, steps)
    header = {
        "fingerprint": plan.fingerprint,
        "optimizer": optimizer,
        "momentum": momentum,
        "weight_decay": weight_decay,
    }
    ledger = Ledger(path, header)
    together, reason = _together(plan, runs, vectorise)
    carry_out(plan, runs, ledger, together, executor, progress)
    wanted = {run.key for run in runs}
    records = {r.run.key: r for r in ledger.records if r.run.key in wanted}
    return Sweep(tuple(records[run.key] for run in runs), header, together, reason)


def _plan(
    make_model: Any, loss_fn: Any, train_data: Any, test_data: Any, metrics: Any, optimizer: str,
    momentum: float, weight_decay: float, schedule: Any,
) -> Plan:  # fmt: skip
    if optimizer not in OPTIMIZERS:
        names = ", ".join(OPTIMIZERS)
        raise ArgumentError(f"`optimizer` must be one of {names}; got {optimizer!r}")
    if not 0 <= momentum < 1:
        raise ArgumentError(f"`momentum` must be at least 0 and below 1; got {momentum!r}")
    if optimizer == "nesterov" and not momentum:
        raise ArgumentError("`optimizer` 'nesterov' needs a `momentum` above 0")
    if not callable(make_model) or isinstance(make_model, nn.Module):
        raise ArgumentError(
            "`make_model` must be a function that returns a new model, such as "
            "lambda: nn.Linear(4, 2); a model that exists can be trained only once"
        )
    return Plan(
        make_model,
        loss_fn,
        gathered(train_data, "train_data"),
        None if test_data is None else gathered(test_data, "test_data"),
        dict(metrics or {}),
        optimizer,
        float(momentum),
        float(weight_decay),
        schedule,
    )


def _grid(
    plan: Plan,
    batch_sizes: Sequence[int],
    lrs: Sequence[float],
    seeds: list[int],
    epochs: float | None,
    steps: int | None,
) -> list[Run]:
    _check_grid(plan, batch_sizes, lrs, seeds)
    if epochs is None and steps is None:
        raise ArgumentError("say how long to train: `epochs`, `steps`, or both")
    if epochs is not None and not 0 < epochs < math.inf:
        raise ArgumentError(f"`epochs` must be a positive number; got {epochs}")
    if steps is not None:
        check_whole("steps", steps, 1)
    budgets: list[tuple[str, int, int]] = []
    for size in sorted(set(batch_sizes)):
        if epochs is not None:
            budgets.append(("epochs", size, max(1, round(epochs * (plan.count // size)))))
        if steps is not None:
            budgets.append(("steps", size, steps))
    return [
        Run(size, float(lr), seed, budget, length)
        for budget, size, length in sorted(budgets)
        for lr in sorted(set(lrs))
        for seed in sorted(set(seeds))
    ]


def _check_grid(
    plan: Plan, batch_sizes: Sequence[int], lrs: Sequence[float], seeds: list[int]
) -> None:
    if not (batch_sizes and lrs and seeds):
        raise ArgumentError("`batch_sizes`, `lrs` and `seeds` must each hold something")
    for size in batch_sizes:
        check_whole("batch_sizes", size, 1)
    for seed in seeds:
        check_whole("seeds", seed, 0)
    if max(batch_sizes) > plan.count:
        raise ArgumentError(
            f"`batch_sizes` holds {max(batch_sizes)}, and there are {plan.count} samples"
        )
    if not all(0 < lr < math.inf for lr in lrs):
        raise ArgumentError(f"`lrs` must be positive numbers; got {list(lrs)}")


def _together(plan: Plan, runs: list[Run], vectorise: bool | str) -> tuple[int, str]:
    """How many runs at once, and why not."""
    if vectorise is False:
        return 0, ""
    if vectorise not in (True, "auto"):
        raise ArgumentError(f'`vectorise` must be "auto", True or False; got {vectorise!r}')
    reason = obstacle(plan, runs[0])
    if reason is None:
        return min(TOGETHER, max(len(group) for group in groups(runs, TOGETHER))), ""
    if vectorise is True:
        raise ArgumentError(f"`vectorise` = True, but the runs cannot be one program: {reason}")
    return 0, f"they cannot be one program: {reason}"


def groups(runs: Sequence[Run], together: int) -> Iterator[list[Run]]:
    """Runs of one batch size and length, at most so many."""
    by = sorted(runs, key=lambda run: (run.budget, run.batch_size, run.steps))
    for _, own in itertools.groupby(by, key=lambda run: (run.budget, run.batch_size, run.steps)):
        several = list(own)
        for start in range(0, len(several), together):
            yield several[start : start + together]


def carry_out(
    plan: Plan,
    runs: Sequence[Run],
    ledger: Ledger,
    together: int,
    executor: Executor | None,
    progress: bool,
) -> None:
    """Train what the ledger does not hold yet, the longest first."""
    done = {record.run.key for record in ledger.records}
    left = [run for run in runs if run.key not in done]
    tasks = sorted(groups(left, max(together, 1)), key=lambda own: -own[0].steps)
    with progress_bar(progress) as stage:
        tick = stage("training", sum(run.steps for run in left))
        if executor is None:
            for task in tasks:
                ledger.add(run_group(plan, task, bool(together), tick))
            return
        _check_sendable(plan, executor)
        futures: dict[Future[list[Record]], list[Run]] = {
            executor.submit(run_group, plan, task, bool(together)): task for task in tasks
        }
        try:
            for future in as_completed(futures):
                ledger.add(future.result())
                tick(sum(run.steps for run in futures[future]))
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def run_group(
    plan: Plan, runs: list[Run], vectorised: bool, tick: Callable[[int], None] | None = None
) -> list[Record]:
    """The records of runs of one batch size; what an executor is given."""
    done = tick or (lambda _steps: None)
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # the processes share the cores
    if vectorised:
        return Ensemble(plan, runs).run(done)
    records = []
    for run in runs:
        records.append(train(plan, run)[0])
        done(run.steps)
    return records


def _check_sendable(plan: Plan, executor: Executor) -> None:
    if type(executor).__name__ == "ThreadPoolExecutor":
        raise ArgumentError(
            "`executor` runs threads, which share torch's random state; use processes "
            "(ProcessPoolExecutor), or None"
        )
    try:
        pickle.dumps(plan)
    except Exception as error:
        raise ArgumentError(
            f"`make_model`, `loss_fn`, `schedule`, `metrics` and the data are sent to the executor "
            f"and have to be picklable: functions at the top of a module, no lambdas ({error})"
        ) from error
