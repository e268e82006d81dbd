"""`gn.advise` and `gn.branch` from checkpoints of the reference runs, held to plain training."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradnoise as gn
from benchmarks import measure

from .problems import Problem
from .search import SHARES, Search, budget_of
from .store import Store
from .train import State, fresh, restored, train
from .truth import short, starting_loss, summary

RESULTS = Path("benchmarks/results/advice/held")
SEEDS = (101, 102)  # orders of the samples in the runs that the advice is held to


def hold(problem: Problem, epochs: Sequence[float], seed: int) -> None:
    """Ask for advice at every checkpoint, train as advised, and write both down."""
    path = RESULTS / f"{problem.name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    search = Search(problem, Store(problem), [seed])
    for share in SHARES:
        for budget in epochs:
            key = f"{share:g} {budget:g} {seed}"
            if key not in found:
                found[key] = _one(problem, search, share, budget, seed)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(found, indent=1) + "\n")


def _one(problem: Problem, search: Search, share: float, epochs: float, seed: int) -> Any:
    saved, data = search.checkpoint(share, seed), search.data
    size, lr = problem.reference
    state = restored(problem, saved, lr)
    count, began = len(data[0]), time.perf_counter()
    advice = gn.advise(
        state.model, problem.loss_fn, data, state.optimizer, batch_size=size,
        budget=round(epochs * count),
    )  # fmt: skip
    out: dict[str, Any] = {
        "seconds": round(time.perf_counter() - began, 1), "samples": advice.samples,
        "batch_size": advice.batch_size, "lr": advice.lr, "confidence": advice.confidence,
        "lr_range": advice.lr_range, "steps": advice.steps,
        "critical": _triple(advice.critical_batch_size),
    }  # fmt: skip
    if advice.branches.records:
        stable = advice.branches.largest_stable()
        out["largest_stable"] = {str(size): rate for size, rate in stable.items()}
    if advice.lr is not None and advice.batch_size is not None:
        out["loss"] = _trained(problem, search, saved, advice.batch_size, advice.lr, share)
        out["scratch"] = _trained(problem, search, None, advice.batch_size, advice.lr, 0.0)
    return out


def _triple(estimate: gn.Estimate) -> list[float | None]:
    ends = float(estimate), estimate.low, estimate.high
    return [x if math.isfinite(x) else None for x in ends]


def _trained(
    problem: Problem, search: Search, saved: Any, batch_size: int, lr: float, share: float
) -> list[float | None]:
    """Losses after the samples that the grid was given, from the checkpoint or from scratch."""
    losses: list[float | None] = []
    for seed in SEEDS:
        state: State = fresh(problem, lr, seed) if saved is None else restored(problem, saved, lr)
        state.seed, state.seen = seed, 0
        end = budget_of(problem, share)
        run = train(problem, state, search.data, batch_size, [end], search.untrained)
        losses.append(run.losses[-1] if run.losses else None)
    return losses


def rows(problem: Problem) -> list[dict[str, Any]]:
    """What was told beside what was right, a row per checkpoint and budget."""
    store = Store(problem)
    path = RESULTS / f"{problem.name}.json"
    told = json.loads(path.read_text()) if path.exists() else {}
    scratch = summary(problem, store, 0.0)
    found = []
    for key, own in told.items():
        share, epochs, _ = key.split()
        here = summary(problem, store, float(share))
        row = {"problem": problem.name, "from": share, "epochs": epochs, **own}
        row["true here"], row["true"] = here["critical"]["value"], scratch["critical"]["value"]
        row["start"] = starting_loss(store, float(share))
        for name, truth in (("loss", here), ("scratch", scratch)):
            if name in own:
                best = min(r["loss"] for r in truth["rates"].values() if r["loss"])
                losses = [math.inf if x is None else x for x in own[name]]
                row[f"{name} ratio"] = statistics.fmean(losses) / best
                same = truth["rates"].get(str(own["batch_size"]))
                row[f"{name} same B"] = (
                    statistics.fmean(losses) / same["loss"] if same else math.nan
                )
                row[f"{name} best lr"] = same["best"] if same else None
        found.append(row)
    return found


def show(problems: Sequence[Problem], markdown: bool) -> None:
    """The tables."""
    table = [[
        "problem", "from", "epochs", "advised B", "rate", "confidence", "loss / best of all",
        "/ best at B", "best rate at B", "scratch: / best of all", "/ best at B", "B_crit told",
        "interval", "B_crit from here", "of the run",
    ]]  # fmt: skip
    for problem in problems:
        for row in rows(problem):
            value, low, high = (math.nan if x is None else x for x in row["critical"])
            table.append([
                row["problem"], row["from"], row["epochs"], str(row["batch_size"]),
                short(row["lr"]), row["confidence"],
                *(short(row.get(k)) for k in ("loss ratio", "loss same B", "loss best lr",
                                              "scratch ratio", "scratch same B")),
                short(value), f"{short(low)} to {short(high)}", short(row["true here"]),
                short(row["true"]),
            ])  # fmt: skip
    measure.show("advice, held to training", table, markdown)
