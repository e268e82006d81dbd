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
from .search import CHECKPOINTS, SHARES, Search, budget_of
from .store import Store
from .train import State, fresh, restored, train
from .truth import short, summary

RESULTS = Path("benchmarks/results/advice/held")
RUNS = CHECKPOINTS / "trials"
INTERPOLATES = "separable_mlp"  # its loss goes to 0
SEEDS = (101, 102)  # orders of the samples in the runs that the advice is held to


def hold(problem: Problem, epochs: Sequence[float], seed: int, again: bool) -> None:
    """Ask for advice at every checkpoint, train as advised, and write both down.

    With `again` also where it was asked before: trials are kept in `RUNS`, and what a pair came to
    is taken over, so that only new runs are trained.
    """
    path = RESULTS / f"{problem.name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    search = Search(problem, Store(problem), [seed])
    for share in SHARES:
        for budget in epochs:
            key = f"{share:g} {budget:g} {seed}"
            if again or key not in found:
                found[key] = _one(problem, search, share, budget, seed, found)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(found, indent=1) + "\n")


def _one(
    problem: Problem, search: Search, share: float, epochs: float, seed: int, found: dict[str, Any]
) -> dict[str, Any]:
    saved, data = search.checkpoint(share, seed), search.data
    size, lr = problem.reference
    state = restored(problem, saved, lr)
    count, began = len(data[0]), time.perf_counter()
    kept = RUNS / f"{problem.name}_{share:g}_{epochs:g}_{seed}.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    advice = gn.advise(
        state.model, problem.loss_fn, data, state.optimizer, batch_size=size,
        budget=round(epochs * count), path=kept,
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
        pair = advice.batch_size, advice.lr
        same = [k for k, row in found.items() if (row["batch_size"], row["lr"]) == pair]
        here = [k for k in same if k.split()[0] == f"{share:g}"]
        out["loss"] = (
            found[here[0]]["loss"] if here else _trained(problem, search, saved, *pair, share)
        )
        out["scratch"] = (
            found[same[0]]["scratch"] if same else _trained(problem, search, None, *pair, 0.0)
        )
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
    store, path = Store(problem), RESULTS / f"{problem.name}.json"
    told = json.loads(path.read_text()) if path.exists() else {}
    found = []
    for key, own in told.items():
        share, epochs, _ = key.split()
        row = {"problem": problem.name, "from": share, "epochs": float(epochs), **own}
        for name, start in (("loss", float(share)), ("scratch", 0.0)):
            rates = summary(problem, store, start)["rates"].values()
            best = min(row["loss"] for row in rates if row["loss"])
            row[name] = [math.inf if x is None else x / best for x in own.get(name, [])]
        found.append(row)
    return found


def show(problems: Sequence[Problem], markdown: bool) -> None:
    """Every case, and how often the advice was near the best of the grid."""
    every = [row for problem in problems for row in rows(problem)]
    cases = [
        [
            "problem",
            "from",
            "epochs",
            "B",
            "rate",
            "confidence",
            "steps",
            "from here",
            "from scratch",
        ]
    ]
    for row in every:
        ends = [", ".join(map(short, row[name])) or "–" for name in ("loss", "scratch")]
        cases.append([
            row["problem"], row["from"], short(row["epochs"]), str(row["batch_size"] or "–"),
            short(row["lr"]), row["confidence"], str(row["steps"]), *ends,
        ])  # fmt: skip
    measure.show("loss where advice was followed, over the best of the grid", cases, markdown)
    kinds = {
        f"{epochs:g} epochs": [row for row in every if row["epochs"] == epochs]
        for epochs in sorted({row["epochs"] for row in every})
    }
    kinds['"good"'] = [row for row in every if row["confidence"] == "good"]
    fits = [row for row in every if row["problem"] != INTERPOLATES]
    kinds[f"all but {INTERPOLATES}"] = fits
    kinds[f'"good", all but {INTERPOLATES}'] = [r for r in fits if r["confidence"] == "good"]
    table = [["", "asked", "named", "diverged", "median", "within 5 %", "within 20 %", "worst"]]
    for name, own in kinds.items():
        losses = [statistics.fmean(row["loss"]) for row in own if row["loss"]]
        if not losses:
            continue
        lost = sum(math.inf in (*row["loss"], *row["scratch"]) for row in own)
        table.append([
            name, str(len(own)), str(len(losses)), str(lost), short(statistics.median(losses)),
            *(f"{sum(x <= limit for x in losses)}" for limit in (1.05, 1.2)), short(max(losses)),
        ])  # fmt: skip
    measure.show("summary, from the checkpoints", table, markdown)
