"""False alarms, coverage and power of `Profile.compare` on analytic problems.

    python benchmarks/changes.py --replicates 200 --samples 64 256

Profiles of samples of an infinite population, compared in pairs:

- the same point, other samples: how often a quantity seems to have changed ("alarms"), with errors
  added in squares (independent=True) and added up (the default);
- two points, the same samples: how often the interval holds the true ratio or difference, by the
  default and as if errors were independent;
- two points, other samples: how often a true change is found, by the default.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import torch
from coverage import ILL, MEANS, OFFSET, QUANTITIES

import gradnoise as gn
from gradnoise.statistics.change import Change

# at two points each; the second one is the same problem further on
POINTS: dict[str, tuple[gn.toy.Toy, gn.toy.Toy]] = {
    "regression": (
        gn.toy.LinearRegression(ILL, OFFSET, noise=0.5),
        gn.toy.LinearRegression(ILL, 2 * OFFSET, noise=0.5),
    ),
    "softmax regression": (
        gn.toy.SoftmaxRegression(MEANS, torch.tensor([1.0, 1.0, 0.5])),
        gn.toy.SoftmaxRegression(2 * MEANS, torch.tensor([1.0, 1.0, 0.5])),
    ),
    "noisy quadratic": (
        gn.toy.NoisyQuadratic(torch.diag(torch.tensor([3.0, 1.0, 0.2])), torch.ones(3)),
        gn.toy.NoisyQuadratic(torch.diag(torch.tensor([6.0, 2.0, 0.4])), torch.ones(3)),
    ),
}


def measure(name: str, point: int, samples: int, seed: int) -> gn.Profile:
    """One profile."""
    torch.set_num_threads(1)
    toy = POINTS[name][point]
    return gn.profile(
        toy.model(),
        toy.loss_fn,
        toy.sample(samples, seed=10_000 + seed),
        population="distribution",
        seed=seed,
        micro_batch=4096,
    )


Pairs = list[tuple[gn.Profile, gn.Profile]]
Told = Callable[[str, Change], bool]


def share(pairs: Pairs, told: Told, independent: bool | None) -> dict[str, float]:
    """How often something is told of each quantity."""
    found = [a.compare(b, independent=independent).changes for a, b in pairs]
    return {
        name: sum(told(name, changes[name]) for changes in found) / len(found)
        for name in QUANTITIES
    }


def alarms(_: str, change: Change) -> bool:
    """Whether it seems to have changed."""
    return bool(change.changed)


def holds(problem: str) -> Told:
    """Whether the interval holds the true ratio or difference."""
    truths = [toy.truth() for toy in POINTS[problem]]

    def told(name: str, change: Change) -> bool:
        first, second = (getattr(truth, name) for truth in truths)
        if change.is_ratio:
            true = second / first if first else (math.inf if second else 1.0)
        else:
            true = second - first
        room = 1e-9 * abs(true) + 1e-12
        return change.change.low - room <= true <= change.change.high + room

    return told


def rows(name: str, samples: int, replicates: int, pool: ProcessPoolExecutor) -> Iterator[str]:
    """Lines of the table for one problem and number of samples."""

    def profiles(point: int, seeds: Iterable[int]) -> list[gn.Profile]:
        return list(pool.map(partial(measure, name, point, samples), seeds, chunksize=5))

    first, others = profiles(0, range(replicates)), profiles(0, range(replicates, 2 * replicates))
    later = profiles(1, range(replicates))
    last = profiles(1, range(replicates, 2 * replicates))
    fresh = list(zip(first, others, strict=True))
    moved = list(zip(first, later, strict=True))
    apart = list(zip(first, last, strict=True))
    for label, found in (
        ("alarms, independent", share(fresh, alarms, True)),
        ("alarms, default", share(fresh, alarms, None)),
        ("holds, same samples, default", share(moved, holds(name), None)),
        ("holds, same samples, in squares", share(moved, holds(name), True)),
        ("holds, other samples, independent", share(apart, holds(name), True)),
        ("found, default", share(apart, alarms, None)),
    ):
        cells = " | ".join(f"{found[q]:.3f}" for q in QUANTITIES)
        yield f"| {name} | {samples} | {label} | {cells} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--samples", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--problems", nargs="+", default=list(POINTS), choices=list(POINTS))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    start = time.perf_counter()
    print("| problem | n | what | " + " | ".join(QUANTITIES.values()) + " |")
    print("|" + "---|" * (len(QUANTITIES) + 3))
    with ProcessPoolExecutor(max_workers=options.workers) as pool:
        for name in options.problems:
            for samples in options.samples:
                for line in rows(name, samples, options.replicates, pool):
                    print(line, flush=True)
    print(f"{options.replicates} replicates, {(time.perf_counter() - start) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
