"""`gn.lr_sweep`: the largest stable learning rate of one batch size from a few epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from ..errors import ArgumentError, check_whole
from ..problem.losses.loss_fn import LossFn
from ..problem.state.guard import untouched
from ..show.table import plain_table, render
from ..statistics.estimate import short
from ..training.execute import run_all
from ..training.ledger import Ledger
from ..training.record import Record
from ..training.vectorise import runs_per_program
from .grid import first_model, make_grid, make_plan
from .knee import with_lost

COARSE = tuple(10.0**power for power in np.arange(-4, 2.1, 0.5))
FARTHEST = 1e9  # from the coarse grid, in both directions


@dataclass(frozen=True)
class LrSweep:
    """The stable and the best learning rate at one batch size, in parameter²/loss.

    Args:
        batch_size: B in samples.
        stable: the largest ε tried at which, and below which, no seed diverged.
        diverged: the smallest ε tried at which one did: the limit lies between the two.
        best: the ε with the lowest training loss at the end.
        records: one per run, by ε.

    Source: as for `lr_sweep`.
    """

    batch_size: int
    stable: float
    diverged: float
    best: float
    records: tuple[Record, ...]

    def __str__(self) -> str:
        table = plain_table("learning rate", "training loss", "")
        for lr in sorted({record.run.lr for record in self.records}):
            own = [record for record in self.records if record.run.lr == lr]
            losses = [record.train_loss for record in own]
            said = "diverged" if any(record.diverged for record in own) else ""
            table.add_row(short(lr), short(sum(losses) / len(losses)), said or self._mark(lr))
        return render([table])

    def _mark(self, lr: float) -> str:
        marks = {self.best: "lowest loss", self.stable: "largest stable"}
        return (
            "largest stable, lowest loss" if self.best == self.stable == lr else marks.get(lr, "")
        )


def lr_sweep(
    make_model: Callable[[], nn.Module],
    loss_fn: LossFn | nn.Module,
    train_data: Any,
    *,
    batch_size: int,
    epochs: float = 2,
    lrs: Sequence[float] | None = None,
    refine: int = 4,
    momentum: float = 0.0,
    optimizer: str = "sgd",
    weight_decay: float = 0.0,
    seeds: int | Sequence[int] = 1,
    executor: Executor | None = None,
    vectorise: bool | str = "auto",
    progress: bool = False,
) -> LrSweep:
    """The largest stable learning rate of one batch size, by training for a few epochs.

    Recommended in Smith, Elsen and De 2020 (arXiv:2006.15081) in place of a long search; it is of
    the order of (2/λ)/(1 + B_noise/B), and holds in long runs as well. Rates are in
    parameter²/loss. A coarse grid of factors √10 first, extended until it holds both stable and
    diverged runs, then `refine` rates in between. A run is stopped as soon as its running mean over
    ten steps is three times its start.

    Args:
        make_model, loss_fn, train_data, momentum, optimizer, weight_decay, seeds, executor,
            vectorise, progress: as for `gn.sweep`.
        batch_size: B.
        epochs: length of the runs.
        lrs: the coarse grid; default 10⁻⁴ to 100.
        refine: rates tried between the last stable and the first diverged one, at equal ratios; 0
            for none.

    Returns:
        LrSweep.

    Raises:
        ArgumentError: an argument out of range, or no learning rate at which the loss falls.

    Example:
        >>> import torch
        >>> from gradnoise.toy import NoisyQuadratic
        >>> toy = NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
        >>> found = lr_sweep(
        ...     toy.model, toy.loss_fn, toy.sample(64, seed=0), batch_size=16, epochs=20, refine=9
        ... )
        >>> found.stable < 0.5 < found.diverged  # 2/λ
        True
    """
    check_whole("refine", refine, 0)
    with untouched(nn.Identity(), train_data):
        plan = make_plan(
            make_model, loss_fn, train_data, None, None, optimizer, momentum, weight_decay, None
        )
        plan = replace(plan, tolerates_spikes=False)
        chosen = list(range(seeds) if isinstance(seeds, int) else seeds)
        ledger = Ledger(None, {})
        coarse = COARSE if lrs is None else lrs
        trial = make_grid(plan, [batch_size], coarse, chosen, epochs, None)
        at_once, _ = runs_per_program(plan, first_model(plan), trial, vectorise)

        def try_out(rates: Sequence[float]) -> None:
            runs = make_grid(plan, [batch_size], rates, chosen, epochs, None)
            run_all(plan, runs, ledger, at_once, executor, progress)

        try_out(coarse)
        stable, diverged = _extended(ledger, try_out)
        if refine:
            try_out(np.geomspace(stable, diverged, refine + 2)[1:-1].tolist())
            stable, diverged = _bounds(ledger.records)
        losses = {record.run.lr: 0.0 for record in ledger.records if record.run.lr <= stable}
        for record in ledger.records:
            if record.run.lr in losses:
                losses[record.run.lr] += record.train_loss
        best = min(losses, key=lambda lr: losses[lr])
        records = sorted(
            with_lost(ledger.records), key=lambda record: (record.run.lr, record.run.seed)
        )
        return LrSweep(batch_size, stable, diverged, best, tuple(records))


def _extended(ledger: Ledger, try_out: Callable[[Sequence[float]], None]) -> tuple[float, float]:
    """The bounds once the grid holds both."""
    first = sorted({record.run.lr for record in ledger.records})
    stable, diverged = _bounds(ledger.records)
    while math.isinf(diverged) and stable < FARTHEST * first[-1]:
        try_out([10.0 * stable, 100.0 * stable])
        stable, diverged = _bounds(ledger.records)
    while stable == 0 and diverged > first[0] / FARTHEST:
        try_out([diverged / 10.0, diverged / 100.0])
        stable, diverged = _bounds(ledger.records)
    if stable == 0 or math.isinf(diverged):
        what = "diverged" if stable == 0 else "stayed stable"
        rates = [record.run.lr for record in ledger.records]
        raise ArgumentError(
            f"every run {what}, with learning rates from {min(rates):g} to {max(rates):g}: look at "
            f"the model and the loss, or train for more `epochs`"
        )
    return stable, diverged


def _bounds(records: Sequence[Record]) -> tuple[float, float]:
    """The largest ε below every one that diverged, and the smallest that did."""
    diverged = min((r.run.lr for r in with_lost(records) if r.diverged), default=math.inf)
    return max((r.run.lr for r in records if r.run.lr < diverged), default=0.0), diverged
