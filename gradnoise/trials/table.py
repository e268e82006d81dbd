"""Branches as text."""

from __future__ import annotations

import math

from rich.table import Table
from rich.text import Text

from ..errors import ArgumentError
from ..show.table import integer, plain_table, render
from ..statistics.estimate import Estimate, short
from ..sweeps.runs import Best
from .results import BranchRuns
from .search import AVERAGED, CONSTANT

EDGE = "*"
LOSSES = (
    "late loss: of the batches in the last quarter of the steps; averaged loss: at the mean "
    "weights of the last half. "
)


def write(found: BranchRuns) -> str:
    """The best rates of every batch size and where runs diverge; then what follows from them."""
    if not found.records:
        return "no runs"
    losses = (CONSTANT, AVERAGED) if found.schedule is None else (AVERAGED,)
    best = [found.best(loss) for loss in losses]
    parts: list[Text | Table] = [Text(_head(found)), Text(), _table(found, best), Text()]
    try:
        parts += [Text(line) for line in _conclusions(found)]
    except ArgumentError as error:
        parts.append(Text(f"{error}"))
    if any(one.at_edge for each in best for one in each.values()):
        parts += [Text(), Text(f"{EDGE} the smallest or largest rate that was tried there")]
    return render(parts)


def _head(found: BranchRuns) -> str:
    several = (*found.records, *found.parts)
    lost = sum(record.diverged for record in several)
    how = f"{found.vectorised} at once" if found.vectorised else "one by one"
    why = f": {found.reason}" if found.reason else ""
    schedule = "" if found.schedule is None else f" (schedule: {found.schedule})"
    return (
        f"{len(several)} runs from a loss of {short(found.start_loss)}, with learning rate "
        f"{short(found.lr)} at batch size {integer(found.batch_size)}{schedule}; {lost} diverged\n"
        f"{integer(found.samples_each)} samples each (whole steps at the largest batch size); "
        f"{integer(found.samples)} in all runs together\n"
        f"trained {how}{why}"
    )


def _table(found: BranchRuns, best: list[dict[int, Best]]) -> Table:
    heads = ("late loss", "averaged loss") if len(best) > 1 else ("loss at the end",)
    table = plain_table(
        "B", "steps", "ε tried", *(head for loss in heads for head in ("best ε", loss)), "samples",
        "stable to",
    )  # fmt: skip
    for column in table.columns:
        column.no_wrap = "loss" not in str(column.header)  # these have a place to break at
    limits = found.stability_limit()
    factors = _factors(found)
    for size in found.batch_sizes:
        own = [record.run for record in found.records if record.run.batch_size == size]
        lrs = sorted({run.lr for run in own})
        table.add_row(
            integer(size),
            integer(own[0].steps),
            "–".join(f"{lr:.2g}" for lr in dict.fromkeys((lrs[0], lrs[-1]))),
            *(cell for one in best for cell in _best(one.get(size))),
            factors.get(size, "–"),
            _limit(limits[size]),
        )
    return table


def _factors(found: BranchRuns) -> dict[int, str]:
    """How many times the samples of the smallest batch size each one takes."""
    try:
        shares = found.shares()
    except ArgumentError:
        return {}
    return {size: _factor(share, found.smallest_share) for size, share in shares.items()}


def _factor(share: float, least: float) -> str:
    """1/share; only a bound where it is that of the shortest runs."""
    if math.isnan(share):
        return "–"
    return f"{'≥ ' * (share <= least * (1 + 1e-9) < 1)}{1 / share:.2f}×"


def _best(best: Best | None) -> tuple[str, str]:
    if best is None:
        return "–", "–"
    error = "" if math.isnan(best.stderr) else f" ± {best.stderr:.1g}"
    return short(best.lr) + EDGE * best.at_edge, short(best.value) + error


def _limit(limit: Estimate) -> str:
    below, above = limit.low > 0, math.isfinite(limit.high)
    if below and above:
        return f"{limit.low:.2g}–{limit.high:.2g}"
    return f"≥ {limit.low:.2g}" if below else f"< {limit.high:.2g}" if above else "–"


def _conclusions(found: BranchRuns) -> list[str]:
    ways = ""
    if found.schedule is None and not found.agrees:
        ways = "; its two ways do not agree, or there is one only"
    if len(found.batch_sizes) == 1:
        ways = ": one batch size does not tell it"
    losses, loss = "", "loss at the end"
    if found.schedule is None:
        losses, loss = LOSSES, "averaged loss"
    return [
        f"{losses}samples: how many times those of the smallest batch size are needed for the same "
        f"{loss}. stable to: between these rates runs begin to diverge (no seed does at the first "
        f"and below; every seed does at the second or below)",
        "",
        f"critical batch size of runs of {found.samples_each} samples: "
        f"{_told(found.critical_batch_size)}{ways}",
        f"largest batch size within {100 * found.tolerance:g} % of the lowest {loss}: "
        f"{_told(found.largest_batch_size)}",
    ]


def _told(estimate: Estimate) -> str:
    if math.isnan(float(estimate)):
        return f"{estimate.bounds_in_words()} ({estimate.status.value})"
    return f"{estimate} samples"
