"""`gn.critical_lr` and 2/λ against the largest learning rate with which plain torch loops train.

    python benchmarks/critical_lr.py

From several points of a run: the critical rate of the optimizer's next step, from the gradient of
all samples and from batches of 32 (median of seven); the full-batch stable rate by λ in the metric
of the optimizer; and the largest rate, on a grid of factors of √2, with which 100 steps from there
(copies of the model and of the optimizer with its state) have a mean loss no higher than where they
started, for most of three seeds. Losses are those of all 1024 samples.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from measure import versions
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.toy.digits import digits, digits_net

SAMPLES, BATCH, STEPS, SEEDS = 1024, 32, 100, 3
POINTS = (3, 30, 100, 300, 1000)


@dataclass
class Run:
    """A run in progress."""

    model: nn.Module
    criterion: nn.Module
    data: tuple[Tensor, Tensor]
    optimizer: Any
    batch: int

    @torch.no_grad()
    def loss(self) -> float:
        inputs, targets = self.data
        return float(self.criterion(self.model(inputs), targets))

    def steps(self, count: int, source: torch.Generator) -> Iterator[None]:
        inputs, targets = self.data
        order = torch.empty(0, dtype=torch.long)
        for _ in range(count):
            if len(order) < self.batch:
                order = torch.randperm(len(inputs), generator=source)
            chosen, order = order[: self.batch], order[self.batch :]
            self.optimizer.zero_grad()
            self.criterion(self.model(inputs[chosen]), targets[chosen]).backward()
            self.optimizer.step()
            yield

    def trains(self, lr: float, batch: int, seed: int) -> bool:
        """Whether the mean loss of a run from here is no higher than the loss here."""
        memo: dict[int, Any] = {}
        model, optimizer = copy.deepcopy(self.model, memo), copy.deepcopy(self.optimizer, memo)
        optimizer.param_groups[0]["lr"] = lr
        twin = Run(model, self.criterion, self.data, optimizer, batch)
        allowed, total = self.loss() * STEPS, 0.0
        for _ in twin.steps(STEPS, torch.Generator().manual_seed(seed)):
            total += twin.loss()
            if not total <= allowed:
                return False
        return True

    def largest(self, batch: int) -> float:
        """The largest rate with which it trains for most seeds."""

        def holds(lr: float) -> bool:
            return 2 * sum(self.trains(lr, batch, seed) for seed in range(SEEDS)) > SEEDS

        lr = float(self.optimizer.param_groups[0]["lr"])
        step = math.sqrt(2) if holds(lr) else 1 / math.sqrt(2)
        while 1e-6 < lr < 1e6:
            following = lr * step
            if step > 1 and not holds(following):
                return lr
            lr = following
            if step < 1 and holds(lr):
                return lr
        return lr


def on_digits(batch: int, lr: float, momentum: float) -> Run:
    _, criterion, data, _ = digits(epochs=0)
    inputs, targets = (tensor[:SAMPLES] for tensor in data.tensors)
    torch.manual_seed(0)
    model = digits_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    return Run(model, criterion, (inputs, targets), optimizer, batch)


def regression() -> Run:
    torch.manual_seed(0)
    inputs, weights = torch.randn(SAMPLES, 10), torch.randn(10, 3)
    targets = (inputs @ weights + 0.5 * torch.randn(SAMPLES, 3)).tanh()
    model = nn.Sequential(nn.Linear(10, 32), nn.GELU(), nn.Linear(32, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    return Run(model, nn.MSELoss(), (inputs, targets), optimizer, BATCH)


RUNS = {
    "digits, SGD, B = 32, ε = 0.1": lambda: on_digits(BATCH, 0.1, 0.0),
    "digits, SGD, full batch, ε = 0.5": lambda: on_digits(SAMPLES, 0.5, 0.0),
    "digits, momentum 0.9, B = 32, ε = 0.1": lambda: on_digits(BATCH, 0.1, 0.9),
    "regression, AdamW, B = 32, ε = 0.003": regression,
}


def row(run: Run, step: int) -> str:
    def critical(**options: Any) -> gn.Estimate:
        return gn.critical_lr(run.model, run.criterion, run.data, run.optimizer, **options)

    p = gn.profile(
        run.model, run.criterion, run.data, optimizer=run.optimizer, metric="optimizer", probes=2
    )
    batches = [critical(batch_size=BATCH, seed=seed) for seed in range(7)]
    median = statistics.median(0.0 if math.isnan(float(e)) else float(e) for e in batches)
    whole = critical()
    shown = "no descent" if math.isnan(float(whole)) else f"{float(whole):.3g}"
    cells = (f"{run.loss():.3f}", shown, f"{median:.2g}", f"{float(p.stable_lr()):.3g}")
    found = (f"{run.largest(batch):.2g}" for batch in (SAMPLES, BATCH))
    return "| " + " | ".join((str(step), *cells, *found)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", nargs="*", type=int, help="numbers of the runs; default all")
    chosen = parser.parse_args().runs
    print(versions())
    for index, (name, start) in enumerate(RUNS.items()):
        if chosen and index not in chosen:
            continue
        print(f"\n{name}\n")
        print("| step | loss | η_c, all | η_c, B = 32 | by λ | trains, all | trains, B = 32 |")
        print("|---|---|---|---|---|---|---|")
        run, done, source = start(), 0, torch.Generator().manual_seed(7)
        for point in POINTS:
            for _ in run.steps(point - done, source):
                pass
            run.optimizer.zero_grad()
            done = point
            print(row(run, point), flush=True)


if __name__ == "__main__":
    main()
