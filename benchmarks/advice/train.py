"""Training as everybody writes it: no code of gradnoise is used here."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from .data import Data
from .problems import Problem

SPIKE, PATIENCE = 3.0, 0.05  # a loss above 3 times its start for 5 % of a run has diverged


@dataclass
class State:
    """Where a run stands: after `seen` samples of the order that `seed` gives."""

    model: nn.Module
    optimizer: Optimizer
    seed: int
    seen: int = 0

    def saved(self) -> dict[str, Any]:
        return {
            "model": copy.deepcopy(self.model.state_dict()),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "seed": self.seed,
            "seen": self.seen,
        }


@dataclass
class Trained:
    """Losses at the marks that a run reached; fewer than the marks where it diverged."""

    losses: list[float] = field(default_factory=list)
    peak: float = 0.0  # of the running mean of batch losses
    diverged: bool = False


def fresh(problem: Problem, lr: float, seed: int) -> State:
    """Untrained: the seed gives the weights and the order of the samples."""
    model = problem.make_model(seed)
    return State(model, problem.make_optimizer(model.parameters(), lr), seed)


def restored(problem: Problem, saved: dict[str, Any], lr: float | None = None) -> State:
    """A checkpoint, to be continued; with another learning rate where one is given."""
    state = fresh(problem, 0.0 if lr is None else lr, saved["seed"])
    state.model.load_state_dict(saved["model"])
    state.optimizer.load_state_dict(copy.deepcopy(saved["optimizer"]))  # brings its own rate
    for group in state.optimizer.param_groups if lr is not None else ():
        group["lr"] = lr
    state.seen = saved["seen"]
    return state


def batches(data: Data, batch_size: int, seed: int, start: int, stop: int) -> Iterator[Data]:
    """Epochs in new orders. The order depends on the seed and the epoch, not on the batch size."""
    count = len(data[0])
    if count % batch_size or start % batch_size:
        raise ValueError(f"batch size {batch_size} does not divide {count} samples or {start}")
    for seen in range(start, stop, batch_size):
        epoch, place = divmod(seen, count)
        if seen == start or place == 0:
            source = torch.Generator().manual_seed(100_000 * seed + epoch)
            order = torch.randperm(count, generator=source)
            shuffled = tuple(part[order] for part in data)
        yield tuple(part[place : place + batch_size] for part in shuffled)


def train(
    problem: Problem,
    state: State,
    data: Data,
    batch_size: int,
    marks: Sequence[int],
    scale: float,
    decays: bool = False,
) -> Trained:
    """Train to the last mark, in samples.

    Args:
        marks: increasing multiples of the batch size at which the loss is recorded.
        scale: the loss before any training, by which divergence is judged.
        decays: whether the rate falls to zero, in proportion to the samples that are left; by
            default it stays constant.
    """
    found, mean, high, wanted = Trained(peak=scale), scale, 0, set(marks)
    left = marks[-1] - state.seen
    patience = max(20, PATIENCE * left / batch_size)
    groups = [(group, group["lr"]) for group in state.optimizer.param_groups]
    for batch in batches(data, batch_size, state.seed, state.seen, marks[-1]):
        for group, lr in groups if decays else ():
            group["lr"] = lr * (marks[-1] - state.seen) / left
        state.optimizer.zero_grad()
        loss = problem.loss_fn(state.model, batch).mean()
        loss.backward()
        state.optimizer.step()
        state.seen += batch_size
        mean = 0.9 * mean + 0.1 * loss.item()
        found.peak = max(found.peak, mean)
        high = high + 1 if mean > SPIKE * scale else 0
        if not math.isfinite(mean) or high > patience:
            found.diverged = True
            return found
        if state.seen in wanted:
            found.losses.append(judged(problem, state.model, data))
    return found


def judged(problem: Problem, model: nn.Module, data: Data) -> float:
    """Mean loss over the first samples of the training set."""
    with torch.no_grad():
        return float(problem.loss_fn(model, tuple(d[: problem.judged] for d in data)).mean())
