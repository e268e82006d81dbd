"""Products that Lanczos takes for the largest eigenvalues, beside ARPACK from the same start.

    python benchmarks/eigenvalues.py

Means over the starts. ARPACK is `scipy.sparse.linalg.eigsh`; the search for what one Krylov space
cannot hold is counted last.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh

from gradnoise import lanczos

SIZE, TOL = 400, 1e-3
Array = NDArray[np.float64]


def spectra() -> dict[str, Array]:
    """Known eigenvalues, 400 of each."""
    rng, index = np.random.default_rng(0), np.arange(SIZE)
    x = rng.standard_normal((SIZE, 2 * SIZE))
    ends = [4, 3.5, -4.2, -3.3]
    return {
        "1/i": 1 / (1 + index),
        "five outliers": np.array([10, 6, 4, 3, 2.5, *np.linspace(0, 0.7, SIZE - 5)]),
        "Wishart": np.linalg.eigvalsh(x @ x.T / (2 * SIZE)),
        "e^(-i/10)": np.exp(-index / 10),
        "both signs": np.array([*np.linspace(-3, 3, SIZE - 4), *ends]),
        "a cluster": np.array([*(1 + 1e-3 * rng.random(20)), *np.linspace(0, 0.5, SIZE - 20)]),
    }


def by_arpack(values: Array, k: int, start: Array) -> int:
    count = 0

    def product(vector: Array) -> Array:
        nonlocal count
        count += 1
        return values * vector.reshape(-1)

    operator = LinearOperator((SIZE, SIZE), matvec=product, dtype=np.float64)
    eigsh(operator, k, which="LA", tol=TOL, v0=start, return_eigenvectors=False)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=40)
    starts = np.random.default_rng(1).standard_normal((parser.parse_args().starts, SIZE))
    more = 0
    for name, values in spectra().items():
        matrix, cells = torch.diag(torch.from_numpy(values)), []
        for k in (1, 3, 5):
            ours = [
                lanczos(matrix, k=k, tol=TOL, v0=torch.from_numpy(v0), repeats=False).matvecs
                for v0 in starts
            ]
            theirs = [by_arpack(values, k, v0) for v0 in starts]
            more += sum(a > b for a, b in zip(ours, theirs, strict=True))
            cells.append(f"{np.mean(ours):.1f}, {np.mean(theirs):.1f}")
        searched = [
            np.mean([lanczos(matrix, k=k, tol=TOL, seed=s).matvecs for s in range(len(starts))])
            for k in (3, 5)
        ]
        print("|", " | ".join([name, *cells, ", ".join(f"{x:.1f}" for x in searched)]), "|")
    print(f"more products than ARPACK: {more} of {18 * len(starts)} runs")


if __name__ == "__main__":
    main()
