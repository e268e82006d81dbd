"""The critical batch size of `gn.branch` from checkpoints, held to that of plain training."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradnoise as gn
from benchmarks import measure

from .problems import Problem
from .search import SHARES, Search
from .store import Store
from .train import restored
from .truth import short, summary

RESULTS = Path("benchmarks/results/advice/critical")
SIZES, SAMPLES, FURTHER = (8, 32, 128, 512), 4096, 4


def hold(problem: Problem, seed: int) -> None:
    """Branches at every checkpoint of the reference run of a seed."""
    path = RESULTS / f"{problem.name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    search = Search(problem, Store(problem), [seed])
    for share in SHARES:
        key = f"{share:g} {seed}"
        if key in found:
            continue
        size, lr = problem.reference
        state = restored(problem, search.checkpoint(share, seed), lr)
        branches = gn.branch(
            state.model, problem.loss_fn, search.data, state.optimizer, batch_size=size,
            batch_sizes=SIZES, samples=SAMPLES, further=FURTHER,
        )  # fmt: skip
        told = branches.critical_batch_size
        ends = float(told), told.low, told.high
        found[key] = {
            "critical": [x if math.isfinite(x) else None for x in ends],
            "agrees": branches.agrees,
            "stable": {str(b): rate for b, rate in branches.largest_stable().items()},
            "samples": branches.samples,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")


def show(problems: Sequence[Problem], markdown: bool) -> None:
    """Told beside trained, and how often they are near."""
    table = [["problem", "from", "told", "interval", "both ways agree", "trained", "told/trained"]]
    near, inside, sure, right, count = 0, 0, 0, 0, 0
    for problem in problems:
        path = RESULTS / f"{problem.name}.json"
        for key, own in (json.loads(path.read_text()) if path.exists() else {}).items():
            share = key.split()[0]
            trained = summary(problem, Store(problem), float(share))["critical"]["value"]
            value, low, high = (math.nan if x is None else x for x in own["critical"])
            low, high = low if low == low else 0.0, high if high == high else math.inf
            close = 0.5 <= value / trained <= 2
            count, near, inside = count + 1, near + close, inside + (low <= trained <= high)
            known = own["agrees"] and value == value
            sure, right = sure + known, right + (known and close)
            table.append([
                problem.name, share, short(value), f"{short(low)} to {short(high)}",
                "yes" if own["agrees"] else "no", short(trained), short(value / trained),
            ])  # fmt: skip
    measure.show("critical batch size of branches", table, markdown)
    print(
        f"{count} checkpoints: within a factor 2 {near}, in the interval {inside}; where both ways "
        f"agree {right} of {sure}"
    )
