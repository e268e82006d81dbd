"""How often the intervals of a profile hold the truth of a network as it is trained.

    python benchmarks/unit_coverage.py --replicates 200
    python benchmarks/unit_coverage.py --cases "batch normalisation" --replicates 400

Samples, groups (batch normalisation), draws (dropout) and weights (ignored labels, classes) of
a small classifier in float64, after some steps of SGD. The truth is the same profile of many more
samples of the same distribution, its own interval is printed beside it. Where a share p of labels
counts, it is that of samples that all count, with all that is about the noise divided by p.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from measure import versions
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn

QUANTITIES = (
    *("loss", "grad_sq_norm", "trace_cov", "simple_noise_scale", "grad_curvature"),
    *("trace_hessian_cov", "noise_scale", "sharpness", "curvature_noise_scale"),
)
NOISES = (
    *("trace_cov", "simple_noise_scale", "trace_hessian_cov", "noise_scale"),
    "curvature_noise_scale",
)
GROUP = 16
COUNTED = 0.1  # of labels, where most are ignored
Data = tuple[Tensor, Tensor]


def samples(count: int, seed: int) -> Data:
    """Two classes that noise keeps apart."""
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=source).double()
    score = x[:, 0] + 0.5 * x[:, 1] ** 2 + 0.7 * torch.randn(count, generator=source).double()
    return x, (score > 0.3).long()


def mostly_ignored(count: int, seed: int) -> Data:
    """Most labels do not count."""
    x, y = samples(count, seed)
    counts = torch.rand(count, generator=torch.Generator().manual_seed(seed + 10**6)) < COUNTED
    return x, y.masked_fill(~counts, -100)


def network(between: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 6), between, nn.Tanh(), nn.Linear(6, 2)).double()
    optimizer, (x, y) = torch.optim.SGD(model.parameters(), 0.1), samples(4000, 1)
    for _ in range(60):
        chosen = torch.randperm(4000)[:32]
        optimizer.zero_grad()
        F.cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
    return model


@dataclass(frozen=True)
class Case:
    """What is measured, and how many samples of it."""

    between: nn.Module
    count: int
    truth: int = 20_000
    criterion: nn.Module = field(default_factory=nn.CrossEntropyLoss)
    data: Callable[[int, int], Data] = samples
    options: dict[str, Any] = field(default_factory=dict)

    def estimates(self, model: nn.Module, data: Data, seed: int) -> dict[str, gn.Estimate]:
        """All quantities from these samples."""
        found = gn.profile(
            model,
            self.criterion,
            data,
            population="distribution",
            max_samples=None,
            probes=16,
            seed=seed,
            **self.options,
        )
        return found.estimates

    def known(self, model: nn.Module) -> dict[str, tuple[float, float, float]]:
        """The truth of every quantity, and the ends of its interval."""
        share = COUNTED if self.data is mostly_ignored else 1.0
        found = self.estimates(model, samples(self.truth, 7), 0)
        return {
            name: tuple(v / (share if name in NOISES else 1.0) for v in (float(e), e.low, e.high))
            for name, e in found.items()
        }


GROUPS = {"unit": "group", "group_size": GROUP}
CASES = {
    "samples": Case(nn.Identity(), 1024),
    "few samples": Case(nn.Identity(), 256),
    "groups of independent samples": Case(
        nn.Identity(), 64 * GROUP, truth=1500 * GROUP, options=GROUPS
    ),
    "batch normalisation": Case(nn.BatchNorm1d(6), 64 * GROUP, truth=1500 * GROUP, options=GROUPS),
    "dropout": Case(nn.Dropout(0.2), 256),
    "90 % of labels ignored": Case(nn.Identity(), 4096, data=mostly_ignored),
    "class weights 1 and 20": Case(
        nn.Identity(), 512, criterion=nn.CrossEntropyLoss(torch.tensor([1.0, 20.0]).double())
    ),
}


def study(name: str, replicates: int) -> None:
    """Print the coverage of every quantity in one case."""
    case = CASES[name]
    model = network(case.between)
    truth = case.known(model)
    started = time.perf_counter()
    runs = [case.estimates(model, case.data(case.count, 100 + r), r) for r in range(replicates)]
    seconds = (time.perf_counter() - started) / replicates
    print(f"\n{name}, {case.count} samples: {seconds:.2f} s per profile")
    print("| quantity | truth | its interval | median | covered | below | above |")
    print("|---|---|---|---|---|---|---|")
    for quantity in QUANTITIES:
        (known, low, high), own = truth[quantity], [run[quantity] for run in runs]
        held = sum(e.low <= known <= e.high for e in own) / replicates
        below = sum(known < e.low for e in own) / replicates
        median = torch.tensor([float(e) for e in own]).nanmedian()
        print(
            f"| {quantity} | {known:.4g} | {low:.4g} to {high:.4g} | {float(median):.4g} | "
            f"{held:.3f} | {below:.3f} | {abs(1 - held - below):.3f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(versions())
    for name in options.cases:
        study(name, options.replicates)


if __name__ == "__main__":
    main()
