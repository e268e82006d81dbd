"""Coverage, bias and width of every interval on analytic problems.

    python benchmarks/coverage.py --replicates 1000 --samples 32 64 256 1024 4096

For each problem and sample size the whole measurement is repeated on fresh samples of an infinite
population. The tables say how often the 95 % interval held the truth (a bound that is true counts),
the bias of the value in standard errors of its mean over the replicates, and the median width
relative to the truth. A value is missing where it was not resolved; then there is no bias to tell.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import torch

import gradnoise as gn

OFFSET = torch.full((5,), 0.5)
ILL = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2])
MEANS = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
PROBLEMS = {
    "noisy quadratic": gn.toy.NoisyQuadratic(
        torch.diag(torch.tensor([3.0, 1.0, 0.2])), torch.ones(3)
    ),
    "regression, isotropic": gn.toy.LinearRegression(torch.ones(5), OFFSET, noise=0.5),
    "regression, ill-conditioned": gn.toy.LinearRegression(ILL, OFFSET, noise=0.5),
    "softmax regression": gn.toy.SoftmaxRegression(MEANS, torch.tensor([1.0, 1.0, 0.5])),
    "flipped logistic": gn.toy.FlippedLogistic(0.3),
    "regression, Student 9": gn.toy.LinearRegression(ILL, OFFSET, noise=0.5, freedom=9.0),
    "regression, Student 5": gn.toy.LinearRegression(ILL, OFFSET, noise=0.5, freedom=5.0),
}
QUANTITIES = {
    "loss": "L",
    "grad_sq_norm": "\\|G\\|²",
    "trace_cov": "trΣ",
    "simple_noise_scale": "B_simple",
    "grad_curvature": "GᵀHG",
    "trace_hessian_cov": "tr(HΣ)",
    "noise_scale": "B_noise",
    "sharpness": "λ",
    "curvature_noise_scale": "B_curv",
}


def measure(name: str, samples: int, probes: int, seed: int) -> dict[str, gn.Estimate]:
    """One replicate."""
    torch.set_num_threads(1)
    toy = PROBLEMS[name]
    data = toy.sample(samples, seed=10_000 + seed)
    profile = gn.profile(
        toy.model(),
        toy.loss_fn,
        data,
        population="distribution",
        probes=probes,
        seed=seed,
        micro_batch=4096,
    )
    return profile.estimates


def coverage(exact: float, found: list[gn.Estimate]) -> str:
    """Share of intervals that hold the truth."""
    rounding = 1e-9 * abs(exact) + 1e-12  # where an estimate is exact, its interval is a point
    inside = sum(e.low - rounding <= exact <= e.high + rounding for e in found)
    return f"{inside / len(found):.3f}"


def bias(exact: float, found: list[gn.Estimate]) -> str:
    """Mean error over its standard error; of a ratio only where every one has a value."""
    values = [float(e) for e in found]
    if any(math.isnan(value) for value in values):
        return "–"
    error = statistics.stdev(values) / math.sqrt(len(values))
    return (
        f"{(statistics.fmean(values) - exact) / error:+.1f}"
        if error > 1e-6 * abs(exact)
        else "exact"
    )


def width(exact: float, found: list[gn.Estimate]) -> str:
    """Median width relative to the truth, or how many intervals are open when most are."""
    widths = statistics.median(e.high - e.low for e in found) / (abs(exact) or 1.0)
    if math.isfinite(widths):
        return f"{widths:.2f}"
    return f"{sum(math.isinf(e.high) for e in found) / len(found):.0%} open"


Cell = Callable[[float, list[gn.Estimate]], str]
TABLES: dict[str, Cell] = {"Coverage": coverage, "Bias, in standard errors": bias, "Width": width}
Results = dict[tuple[str, int], list[dict[str, gn.Estimate]]]


def table(results: Results, cell: Cell) -> Iterator[str]:
    """Lines of Markdown: a row per problem and sample size, a column per quantity."""
    yield "| problem | n | " + " | ".join(QUANTITIES.values()) + " |"
    yield "|" + "---|" * (len(QUANTITIES) + 2)
    for (name, samples), found in results.items():
        truth = PROBLEMS[name].truth()
        cells = [cell(getattr(truth, q), [one[q] for one in found]) for q in QUANTITIES]
        yield f"| {name} | {samples} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--samples", type=int, nargs="+", default=[32, 64, 256, 1024, 4096])
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--probes", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    results: Results = {}
    start = time.perf_counter()
    with ProcessPoolExecutor(max_workers=options.workers) as pool:
        for name in options.problems:
            for samples in options.samples:
                run = partial(measure, name, samples, options.probes)
                found = pool.map(run, range(options.replicates), chunksize=10)
                results[name, samples] = list(found)
    spent = (time.perf_counter() - start) / 60
    print(f"{options.replicates} replicates, {options.probes} probes, {spent:.0f} minutes")
    for title, cell in TABLES.items():
        print(f"\n## {title}", *table(results, cell), sep="\n")


if __name__ == "__main__":
    main()
