"""Runs carried out: together or one by one, here or by an executor, written down as they end."""

from __future__ import annotations

import itertools
import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, as_completed

import torch
from torch import nn

from ..errors import ArgumentError
from ..show.progress import progress_bar
from .checkpoint import Checkpoint
from .ensemble import Ensemble, obstacle
from .ledger import Ledger
from .plan import Plan, Record, Run
from .run import train

TOGETHER = 256  # runs of one program at most
MEMORY, COPIES = 2**31, 5  # bytes for parameters, gradients, momenta and what updates them


def together(plan: Plan, model: nn.Module, run: Run, vectorise: bool | str) -> tuple[int, str]:
    """How many runs like this one may be one program, 0 for none, and why not."""
    if vectorise not in (True, False, "auto"):
        raise ArgumentError(f'`vectorise` must be "auto", True or False; got {vectorise!r}')
    plan.start_loss(run.seed)  # a loss that cannot be trained is no matter of programs
    if vectorise is False:
        return 0, ""
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    most = min(TOGETHER, MEMORY // (COPIES * size))
    reason = obstacle(plan, run) if most > 1 else "the model is too large to be stacked"
    if reason is None:
        return most, ""
    if vectorise is True:
        raise ArgumentError(f"`vectorise` = True, but the runs cannot be one program: {reason}")
    return 0, f"they cannot be one program: {reason}"


def groups(runs: Sequence[Run], most: int) -> Iterator[list[Run]]:
    """Runs of one batch size and length, at most so many."""
    by = sorted(runs, key=lambda run: (run.budget, run.batch_size, run.steps))
    for _, own in itertools.groupby(by, key=lambda run: (run.budget, run.batch_size, run.steps)):
        several = list(own)
        for start in range(0, len(several), most):
            yield several[start : start + most]


def carry_out(
    plan: Plan,
    runs: Sequence[Run],
    ledger: Ledger,
    at_once: int,
    executor: Executor | None,
    progress: bool,
) -> None:
    """Train what the ledger does not hold yet, the longest first."""
    done = {record.run.key for record in ledger.records}
    left = [run for run in runs if run.key not in done]
    tasks = sorted(groups(left, max(at_once, 1)), key=lambda own: -own[0].steps)
    checkpoints = [
        Checkpoint(ledger.path, ledger.mark, tuple(run.key for run in task)) for task in tasks
    ]
    with progress_bar(progress) as stage:
        tick = stage("training", sum(run.steps for run in left))
        if executor is None:
            for task, kept in zip(tasks, checkpoints, strict=True):
                ledger.add(run_group(plan, task, kept, bool(at_once), tick))
                kept.clear()
            return
        for seed in sorted({run.seed for run in left}):
            plan.start_loss(seed)  # sent along
        _check_sendable(plan, executor)
        futures: dict[Future[list[Record]], Checkpoint] = {
            executor.submit(run_group, plan, task, kept, bool(at_once)): kept
            for task, kept in zip(tasks, checkpoints, strict=True)
        }
        try:
            for future in as_completed(futures):
                ledger.add(future.result())
                tick(sum(record.run.steps for record in future.result()))
                futures[future].clear()
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def run_group(
    plan: Plan,
    runs: list[Run],
    checkpoint: Checkpoint,
    vectorised: bool,
    tick: Callable[[int], None] | None = None,
) -> list[Record]:
    """The records of runs of one batch size; what an executor is given."""
    done = tick or (lambda _steps: None)
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # the processes share the cores
    if vectorised:
        return Ensemble(plan, runs).run(done, checkpoint)
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
