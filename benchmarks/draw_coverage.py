"""How often the interval of B_noise holds it, where the samples are the whole population.

    python benchmarks/draw_coverage.py --repeats 400

Digits, after some epochs of SGD; every repeat is a `gn.profile` or `gn.noise_scale` with another
seed. The truth comes from the dense Hessian and all per-sample gradients (`noise_scale.exact`).
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from typing import Any

import torch
from measure import versions
from noise_scale import exact
from rich.console import Console
from rich.table import Table
from torch import nn

import gradnoise as gn
from gradnoise.operators.hessian import Hessian
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from gradnoise.toy.digits import trained_digits

CALLS: dict[str, Callable[..., Any]] = {
    "gn.profile": lambda *args, **options: gn.profile(*args, **options).noise_scale,
    "gn.noise_scale": lambda *args, **options: gn.noise_scale(*args, **options).hessian,
}


def cnn() -> nn.Module:
    """Two convolutions on 8×8 pixels."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip


def trained(name: str, epochs: int) -> tuple[nn.Module, nn.Module, Any]:
    """The network of this name, its criterion and the digits, in float64."""
    model, criterion, data, _ = trained_digits(epochs=epochs)
    images, labels = data.tensors
    if name == "CNN":
        torch.manual_seed(0)
        model = cnn()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(epochs):
            for index in torch.randperm(len(images)).split(32):
                optimizer.zero_grad()
                criterion(model(images[index]), labels[index]).backward()
                optimizer.step()
    return model.double(), criterion, (images.double(), labels)


def truth_of(model: nn.Module, criterion: nn.Module, data: Any) -> float:
    """tr(HΣ)/GᵀHG."""
    problem = Problem.open(model, criterion, data, Options(micro_batch=4096))
    hessian = Hessian.of(problem)
    mean = torch.cat(
        [g.reshape(-1) for g in gn.gradient_moments(model, criterion, data).mean.values()]
    )
    return exact(problem, hessian) / float(mean @ (hessian @ mean))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--epochs", type=int, nargs="+", default=[3])
    parser.add_argument("--models", nargs="+", choices=("MLP", "CNN"), default=["MLP", "CNN"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title=f"digits, {options.repeats} seeds")
    for heading in ("", "epochs", "call", "B_noise", "held", "error", "s.d.", "half width"):
        table.add_column(heading, justify="right")
    for name in options.models:
        for epochs in options.epochs:
            model, criterion, data = trained(name, epochs)
            truth = truth_of(model, criterion, data)
            for label, call in CALLS.items():
                found = [call(model, criterion, data, seed=s) for s in range(options.repeats)]
                errors = [float(own) / truth - 1 for own in found]
                held = sum(own.low <= truth <= own.high for own in found) / len(found)
                half = statistics.median((own.high - own.low) / 2 / truth for own in found)
                error = f"{statistics.mean(errors):+.3f}"
                error += f" ± {statistics.stdev(errors) / math.sqrt(len(errors)):.3f}"
                table.add_row(
                    name, str(epochs), label, f"{truth:.4g}", f"{held:.3f}",
                    error, f"{statistics.stdev(errors):.3f}", f"{half:.3f}",
                )  # fmt: skip
    Console(width=100).print(table)
    print(versions())


if __name__ == "__main__":
    main()
