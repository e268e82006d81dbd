"""Runs from one start, trained when they are asked for and kept."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ArgumentError, check_whole
from ..problem.losses import LossFn
from ..tensors.random import generator
from ..tensors.trees import sample_count, select
from ..training.execute import run_all
from ..training.fingerprint import fingerprint, start_values
from ..training.ledger import Ledger
from ..training.plan import Plan, collated
from ..training.record import Record, Run
from ..training.start import Start
from ..training.vectorise import groups, runs_per_program

JUDGED = 2048  # samples that losses are taken on, at most
LEAST = 4096  # samples that are drawn, where there are as many


class Trials:
    """Short runs on copies of a model and its optimizer.

    Args:
        plan: with a start.
        settings: what all have in common, in words; kept in the file.
        path: of the file; None keeps nothing.
        vectorise, executor, progress: as for `gn.sweep`.
    """

    def __init__(
        self,
        plan: Plan,
        settings: dict[str, Any],
        *,
        path: str | Path | None = None,
        vectorise: bool | str = "auto",
        executor: Executor | None = None,
        progress: bool = False,
    ) -> None:
        self._plan, self._vectorise = plan, vectorise
        self._executor, self._progress = executor, progress
        model = plan.model(0)
        self.settings = {
            "fingerprint": fingerprint(plan, model),
            **settings,
            "start": start_values(plan, model),
        }
        self._ledger = Ledger(path, self.settings)

    @property
    def how(self) -> tuple[int, str]:
        """How many runs were one program, 0 for none, and why."""
        return self._ledger.how

    def run(self, runs: Sequence[Run]) -> list[Record]:
        """The records of these runs, in their order; those that are known are not run again."""
        done = {record.run.key for record in self._ledger.records}
        left = [run for run in runs if run.key not in done]
        if left:
            plan, how = self._plan, self._ledger.how
            most, reason = runs_per_program(plan, plan.model(0), left, self._vectorise, how)
            at_once = max(len(group) for group in groups(left, most)) if most else 0
            self._ledger.trained(at_once, reason)
            run_all(plan, left, self._ledger, most, self._executor, self._progress)
        records = {record.run.key: record for record in self._ledger.records}
        return [records[run.key] for run in runs]


def plan_from(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    optimizer: torch.optim.Optimizer,
    *,
    samples: int,
    max_grad_norm: float | None = None,
) -> Plan:
    """The plan of runs that start from a model and its optimizer.

    Args:
        model, loss_fn, data, optimizer: as for `gn.branch`.
        samples: about how many are needed; of larger data a part is drawn.
        max_grad_norm: as for `gn.branch`.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ArgumentError(
            f"`optimizer` must be the torch.optim.Optimizer that trains the model; got "
            f"{type(optimizer).__name__}"
        )
    if max_grad_norm is not None and not max_grad_norm > 0:
        raise ArgumentError(f"`max_grad_norm` must be positive, or None; got {max_grad_norm!r}")
    start = Start(model, optimizer)
    train = collated(data, "data", max(samples, LEAST))
    count = sample_count(train)
    rows = torch.randperm(count, generator=generator(0))[:JUDGED]
    return Plan(
        start.copy,
        loss_fn,
        train,
        start=start,
        judged=select(train, rows) if count > JUDGED else None,
        averages=True,
        max_grad_norm=max_grad_norm,
    )


def known_batch_size(data: Any, batch_size: int | None) -> int:
    """B₀: as given, or that of the loader.

    Raises:
        ArgumentError: neither is there.
    """
    found = getattr(data, "batch_size", None) if batch_size is None else batch_size
    if found is None:
        raise ArgumentError(
            "`batch_size` is needed, the batch size that the optimizer's learning rate is used "
            "with: `data` is not a DataLoader that says it"
        )
    check_whole("batch_size", found, 1)
    return int(found)
