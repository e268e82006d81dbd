"""Error and coverage of the estimates of trace, Frobenius norm and diagonal.

    python benchmarks/traces.py --seeds 1000 --products 8 20 64

For each spectrum, in random directions, every estimator runs with many seeds; the table shows its
relative error (root mean square over seeds, for the diagonal over entries too), how often the 95 %
interval held the truth, and its standard error (root mean square) relative to the true one.
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
    """Relative error, coverage, and standard error over the true one."""
    values, low, high, stderr = (
        torch.stack(parts) for parts in zip(*map(run, range(seeds)), strict=True)
    )
    error = (values - truth).square().mean().sqrt()
    inside = ((low <= truth) & (truth <= high)).double().mean()
    scale = truth.square().mean().sqrt()
    return [f"{error / scale:.1e}", f"{inside:.3f}", f"{stderr.square().mean().sqrt() / error:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--size", type=int, default=150)
    parser.add_argument("--products", type=int, nargs="+", default=[8, 20, 64])
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title=f"P = {options.size}, {options.seeds} seeds")
    for heading in ("spectrum", "estimator", "products", "error", "coverage", "s.e./true"):
        table.add_column(heading)
    for name, values in spectra(options.size).items():
        matrix = with_spectrum(values)
        for products in options.products:
            for estimator, truth, run in estimators(matrix, products):
                seeds = options.seeds if estimator != "diagonal" else max(options.seeds // 10, 10)
                table.add_row(name, estimator, str(products), *row(truth, run, seeds))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
