"""A sweep as text."""

from __future__ import annotations

import math
from typing import Any

from rich.table import Table
from rich.text import Text

from ..errors import ArgumentError
from ..show.table import integer, plain_table, render
from ..statistics.estimate import short
from .runs import Best, Runs

EDGE = "*"


def write(sweep: Runs) -> str:
    """The largest stable and the best ε of every batch size; then the critical batch size."""
    count = len(sweep.records)
    lost = sum(record.diverged for record in sweep.records)
    how = f"{sweep.vectorised} at once" if sweep.vectorised else "one by one"
    head = f"{count} runs, {lost} diverged; trained {how}{sweep.reason and f': {sweep.reason}'}"
    parts: list[Text | Table] = [Text(head + _optimizer(sweep.settings))]
    starred = False
    for budget in sorted({record.run.budget for record in sweep.records}):
        own = sweep.under(budget)
        bests = {name: own.best(name) for name in _criteria(own)}
        starred |= any(one.at_edge for best in bests.values() for one in best.values())
        parts += [Text(), _table(own, budget, bests), Text(), Text(_knee(own))]
    if starred:
        parts += [Text(), Text(f"{EDGE} the best ε lies at the edge of the grid: extend `lrs`")]
    return render(parts)


def _optimizer(settings: dict[str, Any]) -> str:
    if "optimizer" not in settings:
        return ""
    named = {"momentum": settings.get("momentum"), "weight decay": settings.get("weight_decay")}
    given = [f"{name} {value:g}" for name, value in named.items() if value]
    return f"\noptimizer {', '.join([settings['optimizer'], *given])}"


def _criteria(sweep: Runs) -> list[str]:
    """The criteria of the best ε: a metric or the test loss if there is one; training loss."""
    first = sweep.records[0]
    by = next(iter(first.metrics), "train_loss" if first.test_loss is None else "test_loss")
    return [by] if by == "train_loss" else [by, "train_loss"]


def _table(sweep: Runs, budget: str, bests: dict[str, dict[int, Best]]) -> Table:
    (by, best), *others = bests.items()
    table = plain_table(
        f"equal {budget}, B =", "steps", "largest stable ε", "best ε", by,
        *["best by train loss" for _ in others],
    )  # fmt: skip
    stable = sweep.largest_stable()
    steps = {record.run.batch_size: record.run.steps for record in sweep.records}
    for size in sweep.batch_sizes:
        tried = sorted(r.run.lr for r in sweep.records if r.run.batch_size == size)
        table.add_row(
            integer(size),
            integer(steps[size]),
            _rate(stable[size], tried),
            _best(best.get(size)),
            _value(best.get(size)),
            *[_best(other.get(size)) for _, other in others],
        )
    return table


def _best(best: Best | None) -> str:
    return "–" if best is None else short(best.lr) + EDGE * best.at_edge


def _value(best: Best | None) -> str:
    if best is None:
        return "–"
    return short(best.value) + ("" if math.isnan(best.stderr) else f" ± {short(best.stderr)}")


def _rate(lr: float, tried: list[float]) -> str:
    if lr == 0:
        return f"below {short(tried[0])}"
    return f"{short(lr)} or more" if lr == tried[-1] else short(lr)


def _knee(sweep: Runs) -> str:
    try:
        knee = sweep.fit()
    except ArgumentError as error:
        return f"no critical batch size: {error}"
    found = f"ε_∞ {knee.saturation}, B_c {knee.batch_size} samples"
    return f"largest stable ε = ε_∞/(1 + B_c/B): {found}"
