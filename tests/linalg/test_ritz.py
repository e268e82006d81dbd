"""Ritz pairs of one Krylov space, and of two that were searched one after the other."""

from __future__ import annotations

import numpy as np
import torch

from gradnoise.linalg.convert import as_operator
from gradnoise.linalg.krylov import Krylov
from gradnoise.linalg.ritz import RitzPairs

MATRIX = torch.diag(torch.tensor([5.0, 5.0, 3.0, 1.0, 0.0, -2.0], dtype=torch.float64))


def space(start: torch.Tensor, steps: int, known: tuple[torch.Tensor, ...] = ()) -> Krylov:
    krylov = Krylov(as_operator(MATRIX), 6, start / start.norm(), known)
    for _ in range(steps):
        krylov.extend()
    return krylov


def test_the_residuals_are_those_of_the_products() -> None:
    krylov = space(torch.arange(1.0, 7.0).double(), 3)
    pairs = RitzPairs.of(krylov, np.arange(3), done=False)
    gaps = MATRIX @ pairs.vectors - pairs.vectors * torch.as_tensor(pairs.values)
    np.testing.assert_allclose(pairs.residuals, gaps.norm(dim=0).numpy(), rtol=1e-9)


def test_pairs_of_two_spaces_are_those_of_their_sum_and_keep_exact_residuals() -> None:
    first = RitzPairs.of(space(torch.arange(1.0, 7.0).double(), 3), np.arange(3), done=True)
    start = torch.randn(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start -= first.vectors @ (first.vectors.T @ start)
    second = RitzPairs.of(space(start, 2, (first.vectors.T,)), np.arange(2), done=True)
    both = first.joined(second)
    basis = torch.cat([first.vectors, second.vectors], dim=1)
    expected = torch.linalg.eigvalsh(basis.T @ MATRIX @ basis).numpy()
    np.testing.assert_allclose(both.values, expected, atol=1e-12)
    gaps = MATRIX @ both.vectors - both.vectors * torch.as_tensor(both.values)
    # one that vanishes is known to the root of the rounding error
    np.testing.assert_allclose(both.residuals, gaps.norm(dim=0).numpy(), atol=1e-7)
    assert both.taken(np.array([4, 0])).values.tolist() == both.values[[4, 0]].tolist()
