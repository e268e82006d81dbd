"""Runs from one start, trained when they are asked for and kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ArgumentError, GradNoiseError, check_whole, number
from ..learning_rate.update_rule import Momentum
from ..measurement.opened import Opened
from ..problem.losses.loss_fn import LossFn
from ..problem.optimizer_settings import read_optimizer
from ..problem.options import Options
from ..problem.state.guard import frozen
from ..problem.state.wrappers import bare_model, bare_optimizer, batch_size_of
from ..tensors.random import generator
from ..tensors.trees import sample_count, select
from ..training.execute import run_all
from ..training.fingerprint import fingerprint, start_values
from ..training.ledger import Ledger
from ..training.plan import Plan, collated
from ..training.record import Record, Run
from ..training.schedule import NAMED, Schedule, as_schedule
from ..training.start import Start
from ..training.vectorise import groups, runs_per_program

JUDGED = 2048  # samples that losses are taken on, at most
LEAST = 4096  # samples that are drawn, where there are as many
MEASURED = 512  # samples that trΣ is measured on
TRACE = "trace of the gradient noise"  # its name in the file
SCHEDULE = "schedule"  # its name in the file


class Trials:
    """Short runs on copies of a model and its optimizer.

    Args:
        plan: with a start.
        settings: what all have in common, in words; kept in the file.
        budget: samples that may be spent.
        path: of the file; None keeps nothing.
        vectorise, executor, progress: as for `gn.sweep`.
    """

    def __init__(
        self,
        plan: Plan,
        settings: dict[str, Any],
        *,
        budget: float = math.inf,
        path: str | Path | None = None,
        vectorise: bool | str = "auto",
        executor: Executor | None = None,
        progress: bool = False,
    ) -> None:
        assert plan.start is not None
        self.plan, self.start, self.budget = plan, plan.start, budget
        self.epoch: float = plan.count  # samples of the data; infinite where a part was drawn
        self._vectorise, self._executor, self._progress = vectorise, executor, progress
        self.noise = _noise(plan)
        model, (trace_cov, drift) = plan.model(0), self.noise
        measured = {} if trace_cov is None else {TRACE: trace_cov}
        self.settings = {
            "fingerprint": fingerprint(plan, model),
            "lr": self.start.lr,
            "drift": drift,
            **settings,
            **({} if plan.schedule is None else {SCHEDULE: _name(plan.schedule)}),
            "start": {**start_values(plan, model), **measured},
        }
        self._ledger = Ledger(path, self.settings)
        self._decided = False
        self._most = 0
        self._asked: dict[str, Record] = {}

    @property
    def how(self) -> tuple[int, str]:
        """How many runs were one program, 0 for none, and why."""
        return self._ledger.how

    @property
    def spent(self) -> int:
        """Samples that gradients were taken of, in the runs that were asked for."""
        return samples_of(self._asked.values())

    def can_pay(self, runs: Sequence[Run]) -> bool:
        """Whether the budget is enough for these runs as well."""
        new = {run.key: run for run in runs if run.key not in self._asked}
        return self.spent + sum(run.steps * run.batch_size for run in new.values()) <= self.budget

    def run(self, runs: Sequence[Run]) -> list[Record]:
        """The records of these runs, in their order; those that are known are not run again."""
        done = {record.run.key for record in self._ledger.records}
        left = [run for run in runs if run.key not in done]
        if left:
            self._decide(left)
            run_all(self.plan, left, self._ledger, self._most, self._executor, self._progress)
        records = {record.run.key: record for record in self._ledger.records}
        self._asked.update({run.key: records[run.key] for run in runs})
        return [records[run.key] for run in runs]

    def _decide(self, runs: Sequence[Run]) -> None:
        """Whether runs are one program, once: checks and timings take gradients as well."""
        if self._decided:
            return
        plan, how = self.plan, self._ledger.how
        self._most, reason = runs_per_program(plan, plan.model(0), runs, self._vectorise, how)
        self._ledger.trained(len(next(groups(runs, self._most))) if self._most else 0, reason)
        self._decided = True


def _noise(plan: Plan) -> tuple[float | None, float]:
    """trΣ in the metric of the optimizer, and the total step for one gradient in units of ε.

    Of the parameters that the optimizer holds. None where gradients cannot be measured, where they
    are cut, or where the metric of the optimizer is not known.
    """
    assert plan.start is not None
    if plan.max_grad_norm is not None:  # the steps are shorter than the rate says
        return None, 1.0
    model, optimizer = plan.start.model, plan.start.optimizer
    settings = read_optimizer(optimizer)
    assert settings is not None
    part = select(plan.train, torch.randperm(plan.count, generator=generator(1))[:MEASURED])
    options = Options(optimizer=optimizer, max_samples=MEASURED)
    try:
        with frozen(plan.start.left):
            opened = Opened.open(model, plan.loss_fn, part, options)
            found = float(opened.in_samples(opened.moments(intervals=False)).trace_cov)
    except GradNoiseError:
        return None, 1.0
    own = opened.problem.metric == "optimizer" and settings.is_settled
    if not (settings.is_plain or own):
        return None, 1.0
    return found, Momentum.of(settings.kind, settings.momentum).drift


def _name(schedule: Schedule) -> str:
    """Of a schedule, for the file: its values are in the fingerprint."""
    return next((name for name, own in NAMED.items() if own is schedule), "a function")


def samples_of(records: Any) -> int:
    """Samples that gradients were taken of."""
    steps = ((r.run.steps if r.stopped is None else r.stopped, r) for r in records)
    return sum(count * record.run.batch_size for count, record in steps)


def plan_from(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    optimizer: torch.optim.Optimizer,
    *,
    samples: int | None,
    max_grad_norm: float | None = None,
    schedule: str | Schedule | None = None,
) -> Plan:
    """The plan of runs that start from a model and its optimizer.

    Args:
        model, loss_fn, data, optimizer: as for `gn.branch`.
        samples: about how many are needed: of larger data a part is drawn. None takes all.
        max_grad_norm, schedule: as for `gn.branch`.

    Raises:
        ArgumentError: no optimizer, one that runs cannot be trained with, a norm that is not
            positive, or no such schedule.
    """
    model, optimizer = bare_model(model), bare_optimizer(optimizer)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ArgumentError(
            f"`optimizer` must be the torch.optim.Optimizer that trains the model; got "
            f"{type(optimizer).__name__}"
        )
    if max_grad_norm is not None and not number("max_grad_norm", max_grad_norm) > 0:
        raise ArgumentError(f"`max_grad_norm` must be positive, or None; got {max_grad_norm!r}")
    start = Start(model, optimizer)
    start.check()
    train = collated(data, "data", None if samples is None else max(samples, LEAST))
    count = sample_count(train)
    rows = torch.randperm(count, generator=generator(0))[:JUDGED]
    return Plan(
        start.copy,
        loss_fn,
        train,
        start=start,
        judged=select(train, rows) if count > JUDGED else None,
        averages=True,
        schedule=as_schedule(schedule),
        max_grad_norm=max_grad_norm,
    )


def known_batch_size(data: Any, batch_size: int | None) -> int:
    """B₀: as given, or that of the loader.

    Raises:
        ArgumentError: neither is there.
    """
    found = batch_size_of(data) if batch_size is None else batch_size
    if found is None:
        raise ArgumentError(
            "`batch_size` is needed, the batch size that the optimizer's learning rate is used "
            "with: `data` is not a DataLoader that says it"
        )
    check_whole("batch_size", found, 1)
    return int(found)
