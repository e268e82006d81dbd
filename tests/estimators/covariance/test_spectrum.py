"""Both ways to the top of Σ: dense matrices, halves by enumeration, and which way is taken."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import gradnoise as gn
from gradnoise.estimators.covariance import spectrum
from gradnoise.estimators.covariance.spectrum import _dense, _written_out
from gradnoise.linalg.eigen_options import EigenOptions
from tests.cases import CORE

METHODS = ("gram", "lanczos")


@pytest.mark.parametrize("metric", ["euclidean", "optimizer"])
def test_both_ways_agree_on_a_part(metric: str) -> None:
    spectrum = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2])
    toy = gn.toy.LinearRegression(spectrum, torch.tensor([0.3, -0.2, 0.1, 0.0, 0.4]))
    model, data = toy.model(), toy.sample(64, seed=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.3)
    toy.loss_fn(model, data).mean().backward()
    optimizer.step()
    options: Any = {"population": 100, "k": 5, "optimizer": optimizer, "metric": metric}
    gram, iterated = (
        gn.covariance(model, toy.loss_fn, data, tol=1e-9, hessian=False, method=method, **options)
        for method in METHODS
    )
    torch.testing.assert_close(gram.eigenvalues, iterated.eigenvalues)
    torch.testing.assert_close(gram.stderr, iterated.stderr)
    torch.testing.assert_close(gram.held_out, iterated.held_out)
    for name in ("trace_sq", "top_eigenvalue", "effective_rank", "participation_ratio"):
        mine, other = getattr(gram, name), getattr(iterated, name)
        for end in ("value", "low", "high"):
            assert getattr(mine, end) == pytest.approx(getattr(other, end), rel=1e-6), (name, end)


@pytest.mark.parametrize("size", [4, 20])
def test_the_smaller_matrix_has_the_eigenpairs_of_the_covariance(size: int) -> None:
    """Of nine samples: CᵀC where there are fewer parameters than samples, CCᵀ where more."""
    rows = torch.randn(9, size, dtype=torch.float64)
    centred, sigma = rows - rows.mean(0), torch.cov(rows.T)
    values, vectors, squares = _dense(centred, 30)
    assert len(values) == min(size, 8)  # none that is zero
    expected = torch.linalg.eigvalsh(sigma).flip(0)[: len(values)]
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(sigma @ vectors, vectors * values, rtol=0, atol=1e-12)
    identity = torch.eye(len(values), dtype=torch.float64)
    torch.testing.assert_close(vectors.T @ vectors, identity, rtol=0, atol=1e-12)
    torch.testing.assert_close(squares, ((centred @ sigma) * centred).sum(1))
    assert len(_dense(centred, 2)[0]) == 2


def drawn(count: int) -> list[Tensor]:
    """All sequences of so many draws, with replacement, from three gradients."""
    rows = torch.tensor([[2.0, 0.0], [-1.0, 1.5], [0.0, -1.0]], dtype=torch.float64)
    return [rows[list(pick)] for pick in itertools.product(range(3), repeat=count)]


def test_sums_of_eigenvalues_are_bracketed_on_the_average() -> None:
    """Over all draws of six: held out from below, those of the samples from above (Ky Fan)."""
    truth = torch.linalg.eigvalsh(torch.cov(torch.cat(drawn(1)).T, correction=0)).flip(0).cumsum(0)
    above, below = torch.zeros(2).double(), torch.zeros(2).double()
    every = drawn(6)
    for rows in every:
        found = _written_out(rows, EigenOptions(k=2, seed=0, memory_budget=2**30), split=True)
        for j in range(len(found.pairs.values)):  # fewer where draws are equal: those are zero
            above[j:] += found.pairs.values[j] / len(every)
        held = found.held_out.nan_to_num(0.0)
        below += torch.nn.functional.pad(held, (0, 2 - len(held))).cumsum(0) / len(every)
    assert float(above[0]) > 1.05 * float(truth[0])
    assert float(below[0]) < 0.95 * float(truth[0])
    assert float(above[1]) == pytest.approx(float(truth[1]), rel=1e-12)  # the trace is unbiased
    assert float(below[1]) <= float(truth[1])


def test_held_out_values_are_those_of_one_half_along_the_other() -> None:
    rows = torch.randn(8, 3, dtype=torch.float64)
    found = _written_out(rows, EigenOptions(k=3, seed=5), split=True)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(5))
    sigmas = [torch.cov(rows[half].T) for half in (order[:4], order[4:])]
    parts = [torch.linalg.eigh(sigma) for sigma in sigmas]
    both = [
        (vectors.flip(1).T @ other @ vectors.flip(1)).diagonal()
        for (_, vectors), other in zip(parts, reversed(sigmas), strict=True)
    ]
    torch.testing.assert_close(found.held_out, (both[0] + both[1]) / 2)
    assert found.halves is not None
    assert found.halves.mean == pytest.approx(float(parts[0][0][-1] + parts[1][0][-1]) / 2)
    assert found.halves.held_out == pytest.approx(float(found.held_out[0]))
    assert (
        _written_out(rows, EigenOptions(k=3, seed=5, memory_budget=2**30), split=False).halves
        is None
    )
    assert math.isnan(
        float(
            _written_out(rows, EigenOptions(k=1, seed=5, memory_budget=2**30), split=False).held_out
        )
    )


def test_auto_writes_out_what_is_small_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    model, loss_fn, batch = CORE[0].build()
    options: Any = {"hessian": False, "k": 2}
    assert gn.covariance(model, loss_fn, batch, **options).method == "gram"
    needed = 2 * 8 * 6 * 43  # bytes of two copies of six gradients of 43 parameters
    for budget, method in ((needed, "gram"), (needed - 1, "lanczos")):
        found = gn.covariance(model, loss_fn, batch, memory_budget=budget, **options)
        assert found.method == method
    monkeypatch.setattr(spectrum, "WRITTEN_OUT", 5)
    assert gn.covariance(model, loss_fn, batch, **options).method == "lanczos"
