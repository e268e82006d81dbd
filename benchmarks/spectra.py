"""How often the intervals of a spectral density hold the truth.

    python benchmarks/spectra.py --seeds 400 --size 100

Every spectrum is known; the probes are drawn anew for each seed. Beside the intervals of the
library stands the usual one, Student's over the probes. `density` is the mean over 25 points at the
default width, where the truth is above 1e-4 of its maximum; `blind` is the same without the
quadrature error, at half the width that the steps resolve.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import gradnoise as gn
from gradnoise.statistics.quantile import quantile

Array = NDArray[np.float64]
COLUMNS = ("trace", "trace Student", "norm", "norm Student", "negative", "width", "density")
CURVES = ("narrow", "blind")


def spectra(size: int) -> dict[str, Array]:
    """Known eigenvalues, `size` of each."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((size, 2 * size))
    wishart = np.linalg.eigvalsh(x @ x.T / (2 * size))
    x = rng.standard_normal((size, size // 2))
    low_rank = np.linalg.eigvalsh(x @ x.T / size)
    x = rng.standard_normal((size, size))
    wigner = np.linalg.eigvalsh((x + x.T) / math.sqrt(4 * size))
    bulk = np.where(np.arange(size) < 0.7 * size, 0.0, 0.05 * rng.standard_normal(size))
    x = rng.standard_normal((50, size // 5)) / np.arange(1, size // 5 + 1)
    classes = np.linalg.eigvalsh((np.eye(5) - 1 / 5) / 5)
    return {
        "Wishart": wishart,
        "Wishart - 1": wishart - 1,
        "Wishart of half rank": low_rank,
        "Wigner": wigner,
        "Wishart, 5 outliers": np.concatenate([wishart[:-5], [8.0, 10.0, 15.0, 30.0, 100.0]]),
        "70 % zeros, 10 outliers": np.concatenate([bulk[:-10], np.linspace(2, 20, 10)]),
        "softmax at zero": np.kron(classes, np.linalg.eigvalsh(x.T @ x / 50)),
        "1/i²": 1 / np.arange(1.0, size + 1) ** 2,
        "one of rank 1": np.concatenate([np.zeros(size - 1), [1.0]]),
        "identity": np.ones(size),
        "zero": np.zeros(size),
    }


def holds(low: float, high: float, truth: float, scale: float) -> bool:
    return low - 1e-9 * scale <= truth <= high + 1e-9 * scale


def student(seen: gn.SpectralDensity, power: int) -> tuple[float, float]:
    """The usual interval for the mean of λ^power."""
    pairs = zip(seen.nodes, seen.weights, strict=True)
    means = np.array([(weights * nodes**power).sum() for nodes, weights in pairs])
    if len(means) == 1:
        return -math.inf, math.inf  # nothing to tell the spread from
    reach = quantile(seen.level, len(means) - 1) * means.std(ddof=1) / math.sqrt(len(means))
    return float(means.mean() - reach), float(means.mean() + reach)


def curve_covers(curve: gn.Curve, values: Array, quadrature: bool) -> float:
    gaps = (curve.grid[:, None] - values) / curve.width
    truth = np.exp(-(gaps**2) / 2).mean(1) / (curve.width * math.sqrt(2 * math.pi))
    less = 0.0 if quadrature else curve.quadrature_error
    rounding = 1e-9 * truth.max()
    inside = (curve.low + less - rounding <= truth) & (truth <= curve.high - less + rounding)
    return float(inside[truth > 1e-4 * truth.max()].mean())


def run(values: Array, probes: int, steps: int, seed: int) -> dict[str, float]:
    """Which intervals hold the truth in one run."""
    size, top = len(values), float(np.abs(values).max()) or 1.0
    matrix = torch.diag(torch.as_tensor(values))
    seen = gn.SpectralDensity.of(matrix, probes=probes, steps=steps, seed=seed)
    trace, norm, negative = seen.trace, seen.frobenius_norm, seen.share_negative
    narrow = 0.4 * float(np.ptp(values)) / steps or 0.01 * top
    truth = float((values < -1e-10 * top).mean())
    grid = np.linspace(values.min() - 2 * narrow, values.max() + 2 * narrow, 25)
    curve = seen.broaden(width=narrow, grid=grid)
    return {
        "trace": holds(trace.low, trace.high, float(values.sum()), size * top),
        "trace Student": holds(*student(seen, 1), float(values.mean()), top),
        "norm": holds(norm.low, norm.high, float(np.linalg.norm(values)), size * top),
        "norm Student": holds(*student(seen, 2), float((values**2).mean()), top**2),
        "negative": holds(negative.low, negative.high, truth, 1.0),
        "width": negative.high - negative.low,
        "density": curve_covers(seen.broaden(grid=grid), values, True),
        "narrow": curve_covers(curve, values, True),
        "blind": curve_covers(curve, values, False),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--probes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title=f"P = {options.size}, {options.steps} steps, {options.seeds} seeds")
    for heading in ("spectrum", "probes", *COLUMNS, *CURVES):
        table.add_column(heading, justify="left" if heading == "spectrum" else "right")
    for name, values in spectra(options.size).items():
        for probes in options.probes:
            found = [run(values, probes, options.steps, seed) for seed in range(options.seeds)]
            means = [np.mean([one[column] for one in found]) for column in (*COLUMNS, *CURVES)]
            table.add_row(name, str(probes), *(f"{mean:.3f}" for mean in means))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
