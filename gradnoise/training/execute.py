"""Train the missing runs, here or by an executor, and write each to the file when it ends."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, as_completed

import torch

from ..errors import ArgumentError
from ..show.progress import progress_bar
from .checkpoint import Checkpoint
from .ensemble import Ensemble
from .ledger import Ledger
from .plan import Plan
from .record import Record, Run
from .run import train
from .vectorise import groups


def run_all(
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
