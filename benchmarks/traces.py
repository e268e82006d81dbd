"""Error and coverage of the estimates of trace, Frobenius norm and diagonal.

    python benchmarks/traces.py --seeds 1000 --products 8 20 64
    python benchmarks/traces.py --seeds 500 --hostile --products 4 8 12 20 40 64

For each matrix every estimator runs with many seeds; the table shows its relative error (root mean
square over seeds, for the diagonal over entries too), how often the 95 % interval held the truth,
its median width relative to 2 · 1.96 true errors, and the stated standard error (root mean square)
relative to the true one. Below it, the lowest coverage of each estimator.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import gradnoise as gn

Outcome = tuple[Tensor, Tensor, Tensor, Tensor]  # value, low, high, stderr


def spectra(size: int) -> dict[str, Tensor]:
    """Eigenvalues by name."""
    source = torch.Generator().manual_seed(0)
    index = torch.arange(1, size + 1, dtype=torch.float64)
    noise = torch.randn(size, generator=source, dtype=torch.float64)
    outliers = torch.where(index <= 5, 100 / index, torch.zeros_like(index))
    return {
        "flat 1..3": torch.linspace(1, 3, size, dtype=torch.float64),
        "1/√i": index**-0.5,
        "1/i": 1 / index,
        "1/i²": index**-2,
        "0.9^i": 0.9**index,
        "0.7^i": 0.7**index,
        "0.5^i": 0.5**index,
        "20 ones, rest 1e-3": torch.where(index <= 20, 1.0, 1e-3).double(),
        "5 large, noise": outliers + 1 + 0.1 * noise,
        "indefinite, trace < 0": noise - 0.5,
        "±1/i": torch.sign(noise) / index,
    }


def with_spectrum(values: Tensor) -> Tensor:
    """A symmetric matrix with these eigenvalues in random directions."""
    source = torch.Generator().manual_seed(1)
    size = len(values)
    basis = torch.linalg.qr(torch.randn(size, size, generator=source, dtype=torch.float64)).Q
    return basis * values @ basis.T


def typical(size: int, products: int) -> dict[str, Tensor]:
    """Matrices by name: the spectra, in random directions."""
    del products
    return {name: with_spectrum(values) for name, values in spectra(size).items()}


def hostile(size: int, products: int) -> dict[str, Tensor]:
    """Matrices made to break an interval: few large directions, as many as there are probes, along
    the coordinates, or hardly more dimensions than products."""
    index = torch.arange(1, size + 1, dtype=torch.float64)
    noise = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    probes = products // 2
    values = {
        "one huge": torch.where(index <= 1, 1e6, 1.0).double(),
        "one large, noise": torch.where(index <= 1, 1e3, 0.0) + noise,
        "two, ±1": torch.where(index <= 1, 1.0, 0.0) - torch.where(index == 2, 1.0, 0.0),
        "six, ±1, noise": torch.where(index <= 6, 1.0 - 2.0 * (index % 3 == 0), 1e-3 * noise),
        "1/i to probes, rest 1e-4": torch.where(index <= probes, 1 / index, 1e-4),
    }
    for rank in (1, 2, 3, 5):
        values[f"{rank} ones, rest 1e-3"] = torch.where(index <= rank, 1.0, 1e-3).double()
    for more in (-1, 0, 1):
        rank = probes + more
        values[f"ones: probes{more:+d}, rest 1e-3"] = torch.where(index <= rank, 1.0, 1e-3).double()
    values["rank of probes"] = torch.where(index <= probes, 1.0, 0.0).double()
    values["rank of a third"] = torch.where(index <= products // 3, 1.0, 0.0).double()
    found = {name: with_spectrum(v) for name, v in values.items()}
    found["diag(100, 100, 100, 0, …)"] = torch.diag(100.0 * (index <= 3).double())
    block, pairs = torch.zeros(2, size, size, dtype=torch.float64)
    block[:4, :4] = 1
    even = torch.arange(0, size - 1, 2)
    pairs[even, even + 1] = pairs[even + 1, even] = 1.0
    found["four equal coordinates"] = block
    found["pairs of coordinates"] = pairs
    few = products + 1
    found["P = m + 1, indefinite"] = with_spectrum(noise[:few])
    half = torch.where(torch.arange(few) < few // 2, 1.0, 1e-3).double()
    found["P = m + 1, half ones"] = with_spectrum(half)
    return found


def estimators(
    matrix: Tensor, products: int
) -> Iterator[tuple[str, Tensor, Callable[[int], Outcome]]]:
    """Name, truth, and what one seed gives."""

    def scalar(estimate: gn.Estimate) -> Outcome:
        numbers = (estimate.value, estimate.low, estimate.high, estimate.stderr)
        value, low, high, stderr = torch.tensor(numbers, dtype=torch.float64)
        return value, low, high, stderr

    def entries(estimate: gn.Diagonal) -> Outcome:
        return estimate.values, estimate.low, estimate.high, estimate.stderr

    for method in ("xtrace", "hutch++", "hutchinson"):
        yield (
            method,
            matrix.trace(),
            lambda seed, method=method: scalar(
                gn.trace(matrix, method=method, products=products, seed=seed)
            ),
        )
    yield (
        "frobenius_norm",
        matrix.norm(),
        lambda seed: scalar(gn.frobenius_norm(matrix, products=products, seed=seed)),
    )
    yield (
        "diagonal",
        matrix.diagonal(),
        lambda seed: entries(gn.diagonal(matrix, products=products, seed=seed)),
    )


def row(truth: Tensor, run: Callable[[int], Outcome], seeds: int) -> list[str]:
    """Relative error, coverage, width, and standard error over the true one."""
    values, low, high, stderr = (
        torch.stack(parts) for parts in zip(*map(run, range(seeds)), strict=True)
    )
    error = (values - truth).square().mean().sqrt()
    inside = ((low <= truth) & (truth <= high)).double().mean()
    scale = truth.square().mean().sqrt()
    width, stated = (high - low).median() / (2 * 1.96), stderr.square().mean().sqrt()
    relative = error / scale if scale > 0 else error
    return [f"{relative:.1e}", f"{inside:.3f}", f"{width / error:.2f}", f"{stated / error:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--size", type=int, default=150)
    parser.add_argument("--products", type=int, nargs="+", default=[8, 20, 64])
    parser.add_argument("--hostile", action="store_true", help="matrices made to break intervals")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title=f"P = {options.size}, {options.seeds} seeds")
    for heading in ("spectrum", "estimator", "products", "error", "coverage", "width", "s.e./true"):
        table.add_column(heading)
    lowest: dict[str, float] = {}
    for products in options.products:
        matrices = (hostile if options.hostile else typical)(options.size, products)
        for name, matrix in matrices.items():
            for estimator, truth, run in estimators(matrix, products):
                seeds = options.seeds if estimator != "diagonal" else max(options.seeds // 10, 10)
                try:
                    numbers = row(truth, run, seeds)
                except gn.ArgumentError:  # fewer products than it needs
                    continue
                table.add_row(name, estimator, str(products), *numbers)
                lowest[estimator] = min(lowest.get(estimator, 1.0), float(numbers[1]))
    Console(width=110).print(table)
    print("lowest coverage:", ", ".join(f"{name} {least}" for name, least in lowest.items()))


if __name__ == "__main__":
    main()
