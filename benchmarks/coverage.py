"""Coverage, bias and width of every interval on analytic problems.

    python benchmarks/coverage.py --replicates 500 --samples 64 256 1024

For each problem and sample size the whole measurement is repeated on fresh samples of an infinite
population; the table says how often the 95 % interval held the truth, the bias of the value in
standard errors of its mean over the replicates, and the median width relative to the truth.
"""

from __future__ import annotations

import argparse
import math
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import torch
from rich.console import Console
from rich.table import Table

import gradnoise as gn

PROBLEMS = {
    "T1": gn.toy.NoisyQuadratic(torch.diag(torch.tensor([3.0, 1.0, 0.2])), torch.ones(3)),
    "T4 isotropic": gn.toy.LinearRegression(torch.ones(5), torch.full((5,), 0.5), noise=0.5),
    "T4 ill-conditioned": gn.toy.LinearRegression(
        torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2]), torch.full((5,), 0.5), noise=0.5
    ),
}
QUANTITIES = (
    "loss",
    "grad_sq_norm",
    "trace_cov",
    "simple_noise_scale",
    "grad_curvature",
    "trace_hessian_cov",
    "noise_scale",
    "sharpness",
    "curvature_noise_scale",
)


def measure(name: str, samples: int, probes: int, seed: int) -> dict[str, gn.Estimate]:
    """One replicate."""
    torch.set_num_threads(1)
    toy = PROBLEMS[name]
    data = toy.sample(samples, seed=10_000 + seed)
    profile = gn.profile(
        toy.model(), toy.loss_fn, data, population="distribution", probes=probes, seed=seed
    )
    return profile.estimates


def rows(name: str, samples: int, found: list[dict[str, gn.Estimate]]) -> list[list[str]]:
    """A line of the table for every quantity."""
    truth, lines = PROBLEMS[name].truth(), []
    for quantity in QUANTITIES:
        exact = getattr(truth, quantity)
        estimates = [estimates[quantity] for estimates in found]
        rounding = 1e-9 * abs(exact) + 1e-12  # where an estimate is exact, its interval is a point
        inside = sum(e.low - rounding <= exact <= e.high + rounding for e in estimates)
        values = torch.tensor([float(e) for e in estimates if math.isfinite(float(e))])
        unresolved = 1 - len(values) / len(estimates)
        spread = float(values.std()) / math.sqrt(max(len(values), 1))
        bias = (float(values.mean()) - exact) / spread if spread > 1e-9 else 0.0
        widths = torch.tensor([e.high - e.low for e in estimates]) / (abs(exact) or 1.0)
        lines.append(
            [
                name,
                str(samples),
                quantity,
                f"{inside / len(estimates):.3f}",
                f"{bias:+.1f}",
                f"{float(widths.median()):.2f}",
                f"{unresolved:.1%}",
            ]
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=500)
    parser.add_argument("--samples", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--probes", type=int, default=32)
    options = parser.parse_args()
    table = Table(title=f"{options.replicates} replicates, {options.probes} probes")
    for heading in ("problem", "n", "quantity", "coverage", "bias/s.e.", "width", "unresolved"):
        table.add_column(heading, justify="left" if heading in ("problem", "quantity") else "right")
    with ProcessPoolExecutor(max_workers=2) as pool:
        for name in PROBLEMS:
            for samples in options.samples:
                run = partial(measure, name, samples, options.probes)
                found = list(pool.map(run, range(options.replicates), chunksize=10))
                for row in rows(name, samples, found):
                    table.add_row(*row)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
