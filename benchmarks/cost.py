"""What each measurement costs, in plain gradients over the same samples.

    python benchmarks/cost.py

A plain gradient is one forward and backward pass over all samples in micro-batches of 256. Runs are
interleaved; the table gives medians of ratios within a round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.operators.gradients import PerSampleGradients
from gradnoise.operators.hessian import Hessian
from gradnoise.problem.problem import Problem
from gradnoise.toy.digits import digits


class Sequence(nn.Module):
    """One transformer layer over 16 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 64)
        self.layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
        self.head = nn.Linear(64, 10)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layer(self.embedding(ids)).mean(1))


def problems() -> dict[str, tuple[nn.Module, Any]]:
    """Models and one batch of data each."""
    torch.manual_seed(0)
    model, _, data, _ = digits()
    labels = torch.randint(10, (512,))
    cnn = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(512, 10),
    )
    return {
        "MLP 64-64-10, n 1797": (model, data.tensors),
        "CNN 16-32, 16x16, n 512": (cnn, (torch.randn(512, 3, 16, 16), labels)),
        "transformer, T 16, n 512": (Sequence(), (torch.randint(100, (512, 16)), labels)),
    }


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def stages(model: nn.Module, data: Any) -> dict[str, Callable[[], Any]]:
    """What is timed; the first is the unit."""
    criterion = nn.CrossEntropyLoss()
    problem = Problem.open(model, criterion, data)
    vector = torch.ones(problem.objective.size, dtype=torch.float64)
    hessian, rows = Hessian.of(problem), PerSampleGradients.of(problem)

    def plain() -> None:
        for inputs, targets in problem.batches():
            loss = criterion(model(inputs), targets)
            torch.autograd.grad(loss, list(model.parameters()))

    return {
        "plain gradient": plain,
        "gradient_moments": lambda: gn.gradient_moments(model, criterion, data),
        "per-sample slopes g·v": lambda: rows @ vector,
        "Hessian product": lambda: hessian @ vector,
        "profile": lambda: gn.profile(model, criterion, data),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    table = Table(title=f"in plain gradients; medians of {rounds} interleaved rounds")
    for heading in ("model", "engine", "plain, ms", "moments", "slopes", "Hessian·v", "profile"):
        table.add_column(heading, justify="left" if heading in ("model", "engine") else "right")
    for name, (model, data) in problems().items():
        runs = stages(model, data)
        for run in runs.values():
            run()
        times = [{stage: seconds(run) for stage, run in runs.items()} for _ in range(rounds)]
        unit = statistics.median(t["plain gradient"] for t in times)
        ratios = [
            f"{statistics.median(t[stage] / t['plain gradient'] for t in times):.1f}"
            for stage in list(runs)[1:]
        ]
        engine = gn.profile(model, nn.CrossEntropyLoss(), data, probes=2).engine
        table.add_row(name, engine, f"{1000 * unit:.1f}", *ratios)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
