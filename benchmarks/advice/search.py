"""Which cells are trained: from a guess, both ways to the best rate and to the first unstable."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .problems import Problem
from .store import Cell, Store
from .train import Trained, fresh, judged, restored, train

SHARES = (0.1, 0.3, 0.6)  # of the reference run, where its checkpoints are
BRANCH = 0.25  # budgets that runs from a checkpoint take
# doublings beyond the best rate after which a rate that is not stable is not looked for
REACH, ADAPTIVE_REACH = 8, 4  # an adaptive optimizer trains worse and worse, and rarely diverges
UNIT = 1024  # all numbers of samples are multiples of the largest batch
CHECKPOINTS = Path("out/advice")


def whole(samples: float) -> int:
    return max(1, round(samples / UNIT)) * UNIT


def budget_of(problem: Problem, start: float) -> int:
    return whole(problem.budget * (BRANCH if start else 1.0))


def marks(problem: Problem, start: float, batch_size: int) -> list[int]:
    """Factors of about 1.3 that hold the budget; batches above 64 go on beyond it."""
    budget = budget_of(problem, start)
    beyond = min(problem.stretch, max(1, batch_size // 64))
    steps = np.geomspace(budget / 512, budget, 25) / batch_size
    steps = np.append(
        steps, np.geomspace(1, beyond, 1 + 6 * (beyond > 1))[1:] * budget / batch_size
    )
    return sorted({max(1, round(step)) * batch_size for step in steps})


class Search:
    """Trains the cells of a problem.

    Args:
        seeds: each gives the weights and the order of the samples.
    """

    def __init__(self, problem: Problem, store: Store, seeds: Sequence[int]) -> None:
        self.problem, self.store, self.seeds = problem, store, seeds
        self.data = problem.make_data()
        models = [problem.make_model(seed) for seed in (0, 1)]
        self.untrained = float(np.mean([judged(problem, m, self.data) for m in models]))
        self.best: dict[int, float] = {}  # rates from scratch, by batch size
        store.facts.setdefault("seconds", 0.0)
        store.facts["untrained"] = self.untrained

    def checkpoint(self, share: float, seed: int) -> dict[str, Any]:
        """The reference run after a share of its budget."""
        path = CHECKPOINTS / f"{self.problem.name}_{share:g}_{seed}.pt"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            batch_size, lr = self.problem.reference
            state = fresh(self.problem, lr, seed)
            stop = whole(share * self.problem.budget)
            run = train(self.problem, state, self.data, batch_size, [stop], self.untrained)
            torch.save({**state.saved(), "loss": run.losses[-1]}, path)
        saved: dict[str, Any] = torch.load(path)
        losses = self.store.facts.setdefault("checkpoints", {}).setdefault(f"{share:g}", {})
        losses[str(seed)] = saved["loss"]
        return saved

    def run(self, start: float, batch_size: int, lr: float, seed: int) -> Trained:
        problem = self.problem
        if start:
            state = restored(problem, self.checkpoint(start, seed), lr)
        else:
            state = fresh(problem, lr, seed)
        ends = [state.seen + mark for mark in marks(problem, start, batch_size)]
        return train(problem, state, self.data, batch_size, ends, self.untrained)

    def cell(self, start: float, batch_size: int, lr: float, seeds: Sequence[int]) -> Cell:
        """Trained by these seeds, the others left out once one was not stable."""
        key = (start, batch_size, float(f"{lr:.4g}"))
        if key not in self.store.cells:
            self.store.cells[key] = Cell(*key, marks(self.problem, start, batch_size))
        cell = self.store.cells[key]
        for seed in seeds:
            if seed not in cell.losses and self.stable(cell):
                began = time.process_time()
                cell.add(seed, self.run(*key, seed))
                self.store.facts["seconds"] += round(time.process_time() - began, 1)
                self.store.save()
        return cell

    def stable(self, cell: Cell) -> bool:
        return cell.stable(budget_of(self.problem, cell.start), self.untrained)

    def ladder(self, start: float, batch_size: int, guess: float) -> float:
        """Factors of 2 in the rate around a guess; returns the best.

        Beyond the best rate and its neighbours one seed looks for the first that is not stable;
        the others confirm the one before.
        """
        budget, best = budget_of(self.problem, start), round(np.log2(guess / self.anchor))

        def look(step: int, seeds: Sequence[int]) -> float:
            cell = self.cell(start, batch_size, self.anchor * 2.0**step, seeds)
            return cell.loss(budget) if self.stable(cell) else np.inf

        while True:
            near = {step: look(step, self.seeds) for step in (best, best - 1, best + 1)}
            around = min(near, key=lambda step: near[step])
            if around == best and np.isfinite(near[best]):
                break
            best = around if around != best else best - 2
        top, one = best + 1, self.seeds[:1]
        reach = REACH if self.problem.slope == 1 else ADAPTIVE_REACH
        while np.isfinite(look(top, one)) and top < best + reach:
            top += 1
        while not np.isfinite(look(top, one)) and not np.isfinite(look(top - 1, self.seeds)):
            top -= 1
        return self.anchor * 2.0**best

    @property
    def anchor(self) -> float:
        return self.problem.reference[1]

    def grid(self, start: float, smallest: int) -> None:
        """Batch sizes from the reference to larger and to smaller ones.

        The search begins at the best rate from scratch, or at that of the next batch size.
        """
        size, lr = self.problem.reference
        best: dict[int, float] = {}
        sizes = [b for b in self.problem.batch_sizes if b >= smallest]
        for batch_size in sorted(sizes, key=lambda b: (b < size, abs(np.log(b / size)))):
            near = min(best, key=lambda b: abs(np.log(b / batch_size)), default=size)
            scaled = best.get(near, lr) * (batch_size / near) ** (0.7 * self.problem.slope)
            guess = self.best.get(batch_size, scaled)
            best[batch_size] = self.ladder(start, batch_size, guess)
        if not start:
            self.best = best

    def everything(self, smallest: int, further: Sequence[int]) -> None:
        """The reference run, all batch sizes from scratch, and from its checkpoints the larger.

        Args:
            smallest: batch size of the runs from checkpoints.
            further: seeds of runs from checkpoints alone.
        """
        self.cell(0.0, *self.problem.reference, self.seeds)
        self.grid(0.0, 0)
        self.seeds = [*self.seeds, *further]
        for share in SHARES:
            for seed in self.seeds:
                self.checkpoint(share, seed)
            self.grid(share, smallest)
