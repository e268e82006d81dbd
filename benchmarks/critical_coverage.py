"""How often the interval of `gn.critical_lr` holds the critical rate of its own step.

    python benchmarks/critical_coverage.py

The truth is found by `scipy.optimize.brentq` on the losses of the whole population along the step
that was measured: 60 000 samples of a distribution, or all N of a finite one.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch
from measure import versions
from scipy import optimize
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.estimators.curvature import critical_lr as module

SHAPE = torch.tensor([3.0, 1.0, 0.2])
TOYS: dict[str, gn.toy.LinearRegression | gn.toy.SoftmaxRegression | gn.toy.NoisyQuadratic] = {
    "noisy quadratic": gn.toy.NoisyQuadratic(torch.diag(SHAPE), torch.tensor([1.0, -2.0, 0.5])),
    "the same, weak": gn.toy.NoisyQuadratic(torch.diag(SHAPE), torch.tensor([0.3, -0.6, 0.15])),
    "linear regression, heavy tails": gn.toy.LinearRegression(
        SHAPE, torch.tensor([0.5, -1.0, 1.0]), freedom=9.0
    ),
    "softmax regression": gn.toy.SoftmaxRegression(
        torch.diag(torch.tensor([1.0, 0.5, 0.3])), torch.tensor([1.0, 0.5, 0.2])
    ),
}
MAKERS: dict[str, Any] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
}
plain, taken = module.next_update, list[list[Tensor]]()


def noted(*args: Any) -> list[Tensor]:
    """The step, kept so that its true critical rate can be found."""
    taken.append(plain(*args))
    return taken[-1]


@torch.no_grad()
def truth(model: nn.Module, loss_fn: Any, population: Any) -> float:
    """Where the mean loss along the last step is again what it was; 0 where it rises at once."""
    points = [(p, p.clone()) for p in model.parameters()]

    def rate(at: float) -> float:
        for (p, here), u in zip(points, taken[-1], strict=True):
            p.copy_(here - at * u)
        return (float(loss_fn(model, population).mean()) - start) / at if at else 0.0

    start = float(loss_fn(model, population).mean())
    high = 1e-4
    while rate(high) < 0 and high < 1e5:
        high *= 2
    return optimize.brentq(rate, high / 2, high) if high > 1e-4 else 0.0  # type: ignore[no-any-return]


def coverage(toy: Any, make: Any, samples: int, finite: bool, replicates: int, big: Any) -> str:
    hits = resolved = 0
    for seed in range(replicates):
        model, data = toy.model(), toy.sample((1 + finite) * samples, seed)
        options = {"max_samples": samples} if finite else {"population": "distribution"}
        optimizer = make(list(model.parameters()))
        found = gn.critical_lr(model, toy.loss_fn, data, optimizer, seed=seed, **options)
        hits += found.low <= truth(model, toy.loss_fn, data if finite else big) <= found.high
        resolved += not math.isnan(float(found))
    return f"{100 * hits / replicates:.1f} ({100 * resolved / replicates:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--samples", type=int, nargs="+", default=[32, 128, 512])
    options = parser.parse_args()
    torch.set_num_threads(1)
    module.next_update = noted
    print(f"{versions()}; {options.replicates} replicates; coverage in % (resolved in %)\n")
    print("| problem | optimizer | N | " + " | ".join(f"n = {n}" for n in options.samples) + " |")
    print("|---|---|---|" + "---|" * len(options.samples))
    for name, toy in TOYS.items():
        big = toy.sample(60_000, 999)
        for own, make in MAKERS.items():
            for finite in (False, True):
                cells = [
                    coverage(toy, make, n, finite, options.replicates, big) for n in options.samples
                ]
                print(
                    f"| {name} | {own} | {'2n' if finite else '∞'} | " + " | ".join(cells) + " |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
