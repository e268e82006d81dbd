"""`gn.advise` and `gn.branch` from checkpoints of the reference runs, held to plain training."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradnoise as gn
from benchmarks import measure

from .critical import KNOWN, trained_at
from .decaying import Decaying
from .problems import ALL, Problem
from .search import CHECKPOINTS, SHARES, Search, budget_of
from .stability_tables import RISE
from .store import LEAST, Store
from .train import State, fresh, restored, train
from .truth import short, starting_loss, summary

RESULTS = {  # by whether the rate falls to zero
    False: Path("benchmarks/results/advice/held"),
    True: Path("benchmarks/results/advice/held_decaying"),
}
RUNS = CHECKPOINTS / "trials"
ORDERS = tuple(range(101, 109))  # of the samples, in runs from a checkpoint
FROM_SCRATCH = ORDERS[:2]
NEAREST = 3  # pairs of the grid that are trained on these orders as well


def hold(
    problem: Problem, epochs: Sequence[float], seed: int, again: bool, decays: bool = False
) -> None:
    """Ask for advice at every checkpoint, train as advised, and write both down.

    With `again` also where it was asked before: trials are kept in `RUNS`, and what a pair came to
    is taken over, so that only new runs are trained. With `decays` the rate falls to zero in the
    trials and in training; this is not tried from scratch.
    """
    path, store = RESULTS[decays] / f"{problem.name}.json", Store(problem)
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    told, trained = found.setdefault("told", {}), found.setdefault("trained", {})
    named = set()
    search = Search(problem, store, [seed])
    for share in SHARES:
        saved = search.checkpoint(share, seed)
        for budget in epochs:
            key = f"{share:g} {budget:g} {seed}"
            if again or key not in told:
                told[key] = _ask(problem, search, share, budget, seed, decays)
        here = [
            (row["batch_size"], row["lr"])
            for key, row in told.items()
            if row["lr"] and key.split()[0] == f"{share:g}"
        ]
        best = best_pairs(problem, store, share, decays)
        for start, pairs in ((share, [*here, *best]), (0.0, [] if decays else here)):
            for pair in pairs:
                key = _name(start, *pair)
                named.add(key)
                if key not in trained:
                    began = saved if start else None
                    trained[key] = _train(problem, search, began, *pair, start, decays)
        if share == SHARES[-1]:
            found["trained"] = {key: losses for key, losses in trained.items() if key in named}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")


def _name(start: float, batch_size: int, lr: float) -> str:
    return f"from {start:g} B {batch_size} lr {lr:.5g}"


def best_pairs(
    problem: Problem, store: Store, share: float, decays: bool
) -> list[tuple[int, float]]:
    """The pairs of the grid with the lowest losses from a checkpoint, of those that hold."""
    if decays:
        return Decaying(problem).best_pairs(share, NEAREST)
    budget, untrained = budget_of(problem, share), store.facts["untrained"]
    cells = [c for key, c in store.cells.items() if key[0] == share and c.stable(budget, untrained)]
    cells = sorted(cells, key=lambda cell: cell.loss(budget))[:NEAREST]
    return [(cell.batch_size, cell.lr) for cell in cells]


def _ask(
    problem: Problem, search: Search, share: float, epochs: float, seed: int, decays: bool
) -> dict[str, Any]:
    data, (size, lr) = search.data, problem.reference
    state = restored(problem, search.checkpoint(share, seed), lr)
    name = f"{problem.name}_{share:g}_{epochs:g}_{seed}"
    kept = RUNS / f"{name}{'_decaying' * decays}.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    advice = gn.advise(
        state.model, problem.loss_fn, data, state.optimizer, batch_size=size,
        budget=round(epochs * len(data[0])), samples=budget_of(problem, share), path=kept,
        schedule="linear" if decays else None,
    )  # fmt: skip
    return {
        "samples": advice.samples, "batch_size": advice.batch_size, "lr": advice.lr,
        "confidence": advice.confidence,
        "lr_range": advice.lr_range, "steps": advice.steps,
        "critical": _triple(advice.critical_batch_size), "agrees": _agrees(advice.branches),
        "samples_each": advice.branches.samples_each,
    }  # fmt: skip


def _agrees(branches: gn.Branches) -> bool:
    return any(not record.diverged for record in branches.records) and branches.agrees


def _triple(estimate: gn.Estimate) -> list[float | None]:
    ends = float(estimate), estimate.low, estimate.high
    return [x if math.isfinite(x) else None for x in ends]


def _train(
    problem: Problem,
    search: Search,
    saved: Any,
    batch_size: int,
    lr: float,
    share: float,
    decays: bool,
) -> list[float | None]:
    """Losses after the samples that the grid was given, from the checkpoint or from scratch."""
    losses: list[float | None] = []
    for seed in FROM_SCRATCH if saved is None else ORDERS:
        state: State = fresh(problem, lr, seed) if saved is None else restored(problem, saved, lr)
        state.seed, state.seen = seed, 0
        end = budget_of(problem, share)
        run = train(problem, state, search.data, batch_size, [end], search.untrained, decays)
        losses.append(float(f"{run.losses[-1]:.5g}") if run.losses else None)
    return losses


def _mean(losses: Sequence[float | None]) -> float:
    """Geometric, as that of the grid; infinite where one of them diverged."""
    known = [max(loss, LEAST) for loss in losses if loss is not None and math.isfinite(loss)]
    return statistics.geometric_mean(known) if len(known) == len(losses) else math.inf


def _highest(losses: Sequence[float | None]) -> float:
    return max(math.inf if loss is None or math.isnan(loss) else loss for loss in losses)


def rows(problem: Problem, decays: bool = False) -> list[dict[str, Any]]:
    """What was told beside what was right, a row per checkpoint and budget.

    "loss" is over that of the best of the nearest pairs of the grid on the same orders, "highest"
    of one order over the loss at the checkpoint, "scratch" over the lowest loss of the grid.
    """
    store, path = Store(problem), RESULTS[decays] / f"{problem.name}.json"
    found = json.loads(path.read_text()) if path.exists() else {"told": {}, "trained": {}}
    trained = {key: _mean(losses) for key, losses in found["trained"].items()}
    highest = {key: _highest(losses) for key, losses in found["trained"].items()}
    every = []
    for key, own in found["told"].items():
        share, epochs, _ = key.split()
        row = {"problem": problem.name, "from": share, "epochs": float(epochs), **own}
        row |= {"loss": None, "scratch": None, "highest": None}
        if own["lr"]:
            best = min(
                trained[_name(float(share), *pair)]
                for pair in best_pairs(problem, store, float(share), decays)
            )
            assert math.isfinite(best), "no pair of the grid to compare with"
            pair = _name(float(share), own["batch_size"], own["lr"])
            row["loss"] = trained[pair] / best
            row["highest"] = highest[pair] / starting_loss(store, float(share))
        if own["lr"] and not decays:
            rates = summary(problem, store, 0.0)["rates"].values()
            least = min(rate["loss"] for rate in rates if rate["loss"])
            row["scratch"] = trained[_name(0.0, own["batch_size"], own["lr"])] / least
        every.append(row)
    return every


def show(problems: Sequence[Problem], markdown: bool, decays: bool = False) -> None:
    """Every case, and how often the advice was near the best of the grid."""
    every = [row for problem in problems for row in rows(problem, decays)]
    cases = [[
        "problem", "from", "epochs", "B", "rate", "confidence", "steps", "from here", "from scratch"
    ]]  # fmt: skip
    for row in every:
        cases.append([
            row["problem"], row["from"], short(row["epochs"]), str(row["batch_size"] or "–"),
            short(row["lr"]), row["confidence"], str(row["steps"]), short(row["loss"]),
            short(row["scratch"]),
        ])  # fmt: skip
    measure.show("loss where advice was followed, over the best of the grid", cases, markdown)
    kinds = {
        f"{epochs:g} epochs": [row for row in every if row["epochs"] == epochs]
        for epochs in sorted({row["epochs"] for row in every})
    }
    kinds['"good"'] = [row for row in every if row["confidence"] == "good"]
    kinds["all"] = every
    table = [[
        "", "asked", "named", "diverged", "an order lost", "median", "within 5 %", "within 20 %",
        "worst",
    ]]  # fmt: skip
    for name, own in kinds.items():
        losses = [row["loss"] for row in own if row["loss"] is not None]
        if not losses:
            continue
        lost = sum(math.inf in (row["loss"], row["scratch"]) for row in own)
        table.append([
            name, str(len(own)), str(len(losses)), str(lost),
            str(sum(row["highest"] > RISE for row in own if row["highest"] is not None)),
            short(statistics.median(losses)),
            *(f"{sum(x <= limit for x in losses)}" for limit in (1.05, 1.2)), short(max(losses)),
        ])  # fmt: skip
    measure.show("summary, from the checkpoints", table, markdown)
    sizes = [["", "asked", "told", "within 2", "in the interval", "ways agree", "and within 2"]]
    for name, own in kinds.items():
        sizes.append([name, *map(str, _sizes(own, decays))])
    most = max((row["epochs"] for row in every), default=0.0)
    known = [
        row for row in every if row["epochs"] == most
        and _spread(ALL[row["problem"]], float(row["from"]), decays) <= KNOWN
    ]  # fmt: skip
    sizes.append([f"{most:g}, where training tells it", *map(str, _sizes(known, decays))])
    measure.show("critical batch size of the trials", sizes, markdown)


def _spread(problem: Problem, share: float, decays: bool) -> float:
    """Between the ends of what training tells."""
    _, low, high = trained_at(problem, share, decays)
    return high / low


def _sizes(own: Sequence[dict[str, Any]], decays: bool) -> list[int]:
    """Asked, told, within a factor 2 of training, in the interval, agree, and within 2."""
    told = within = inside = agree = right = 0
    for row in own:
        true, _, _ = trained_at(ALL[row["problem"]], float(row["from"]), decays)
        value, low, high = row["critical"]
        near = value is not None and 0.5 <= value / true <= 2
        told, within = told + (value is not None), within + near
        inside += (low or 0.0) <= true <= (math.inf if high is None else high)
        agree, right = agree + row["agrees"], right + (row["agrees"] and near)
    return [len(own), told, within, inside, agree, right]
