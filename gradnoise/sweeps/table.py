"""A sweep as text."""

from __future__ import annotations

import math

from rich.table import Table
from rich.text import Text

from ..errors import ArgumentError
from ..show.table import integer, plain_table, render
from ..statistics.estimate import short
from .runs import Runs


def write(sweep: Runs) -> str:
    """Per batch size the largest stable and the best learning rate; then the knee."""
    count = len(sweep.records)
    lost = sum(record.diverged for record in sweep.records)
    how = f"{sweep.vectorised} at once" if sweep.vectorised else "one by one"
    head = f"{count} runs, {lost} diverged; trained {how}{sweep.reason and f': {sweep.reason}'}"
    parts: list[Text | Table] = [Text(head)]
    for budget in sorted({record.run.budget for record in sweep.records}):
        own = sweep.under(budget)
        parts += [Text(), _table(own, budget), Text(), _knee(own)]
    return render(parts)


def _table(sweep: Runs, budget: str) -> Table:
    first = sweep.records[0].metrics
    by = next(iter(first), "test_loss" if sweep.records[0].test_loss is not None else "train_loss")
    table = plain_table(
        f"equal {budget}, B =", "steps", "largest stable ε", "best ε", by, "best by train loss"
    )
    stable, best, train = sweep.largest_stable(), sweep.best(by), sweep.best()
    steps = {record.run.batch_size: record.run.steps for record in sweep.records}
    for size in sweep.batch_sizes:
        own, trained = best.get(size), train.get(size)
        error = f" ± {short(own.stderr)}" if own and not math.isnan(own.stderr) else ""
        table.add_row(
            integer(size),
            integer(steps[size]),
            _rate(stable[size], sweep),
            "–" if own is None else short(own.lr) + ("*" if own.at_edge else ""),
            "–" if own is None else f"{short(own.value)}{error}",
            "–" if trained is None else short(trained.lr) + ("*" if trained.at_edge else ""),
        )
    return table


def _rate(lr: float, sweep: Runs) -> str:
    if lr == 0:
        return f"below {short(sweep.lrs[0])}"
    return f"{short(lr)} or more" if lr == sweep.lrs[-1] else short(lr)


def _knee(sweep: Runs) -> Text:
    try:
        knee = sweep.fit()
    except ArgumentError as error:
        return Text(f"no knee: {error}")
    return Text(
        f"largest stable ε = ε_∞/(1 + B_c/B): ε_∞ {knee.saturation}, B_c {knee.batch_size} samples"
        f"\n* the best lies at the edge of the grid"
    )
