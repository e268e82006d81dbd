"""How far the samples' curvatures spread in the sharpest directions, held to dense Hessians."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gradnoise.estimators.curvature.extreme_eigenvalue import sample_curvatures
from gradnoise.estimators.curvature.spread import measure_curvature_spread, sharp_directions
from gradnoise.learning_rate.mean_square import CurvatureSpread
from gradnoise.linalg.deflation import explore
from gradnoise.operators.hessian import Hessian
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from tests import oracles
from tests.cases import CORE
from tests.optimizers import by_hand, in_coordinates, trained


def network() -> tuple[nn.Module, nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    return model, nn.CrossEntropyLoss(), (torch.randn(30, 3).double(), torch.randint(2, (30,)))


def measured(change: float, count: int = 4) -> tuple[CurvatureSpread, torch.Tensor, Problem]:
    problem = Problem.open(*network())
    with problem.guard():
        pairs, deflation = explore(Hessian.of(problem), tol=1e-3, steps=20)
        top = pairs.vectors[:, 0]
        directions = sharp_directions(top, deflation, count)
        own = sample_curvatures(problem, top)
        spread = measure_curvature_spread(problem, directions, own, change)
    assert spread is not None
    return spread, directions, problem


def test_the_measured_spread_is_that_of_the_dense_hessians() -> None:
    spread, directions, _ = measured(change=0.0)
    dense = oracles.dense(*network())
    entries = torch.einsum("ap,ipq,bq->iab", directions, dense.hessians, directions).numpy()
    expected = CurvatureSpread.of(entries)
    assert spread.directions == len(directions) > 1
    np.testing.assert_allclose(spread.mean, expected.mean, atol=1e-10)
    np.testing.assert_allclose(spread.covariance, expected.covariance, atol=1e-10)
    assert not spread.converged


def test_directions_are_orthonormal_with_the_sharpest_first() -> None:
    spread, directions, _ = measured(change=0.0)
    identity = torch.eye(len(directions)).double()
    torch.testing.assert_close(directions @ directions.T, identity, rtol=0, atol=1e-10)
    assert np.all(np.diff(np.diag(spread.mean)) <= 1e-6)


def test_no_direction_is_added_once_the_limit_settles() -> None:
    assert measured(change=0.999)[0].directions == 2
    assert measured(change=0.999)[0].converged


def test_the_limit_of_all_directions_is_no_larger() -> None:
    """2/λ_max(C†D) with all P² entries written out, over the positive part of the Hessian."""
    dense = oracles.dense(*network()).hessians.numpy()
    values, vectors = np.linalg.eigh(dense.mean(0))
    kept = vectors[:, values > 1e-3]
    whole = CurvatureSpread.of(kept.T @ dense @ kept)
    part = measured(change=0.0)[0]
    for batch in (1, 8):
        share = 1 / batch - 1 / 30
        assert whole.stable_lr(share) <= part.stable_lr(share) * (1 + 1e-6)


def test_without_a_bowl_there_is_no_spread() -> None:
    problem = Problem.open(*network())
    directions = torch.eye(problem.objective.size, dtype=torch.float64)[:2]
    assert measure_curvature_spread(problem, directions, -torch.ones(30)) is None


@pytest.mark.parametrize("name", ["SGD", "AdamW in groups"])
def test_in_the_metric_of_an_optimizer_it_is_that_of_its_steps(name: str) -> None:
    """VᵀP^-½(H_i + D)P^-½V + VᵀEV; E is not the same in every direction."""
    model, loss_fn, batch, optimizer = trained(CORE[0], name)
    dense = in_coordinates(model, oracles.dense(model, loss_fn, batch), optimizer)
    outside = torch.diag(by_hand(optimizer)[2])
    options = Options(optimizer=optimizer, metric="optimizer")
    problem = Problem.open(model, loss_fn, batch, options)
    vectors = torch.linalg.eigh(dense.hessian)[1].flip(1)[:, :3].T.contiguous()
    first = sample_curvatures(problem, vectors[0])
    truth = torch.einsum("ap,ipq,bq->iab", vectors, dense.hessians + outside, vectors).numpy()
    torch.testing.assert_close(first, torch.from_numpy(truth[:, 0, 0]), rtol=1e-9, atol=1e-12)
    found, expected = measure_curvature_spread(problem, vectors, first, 0.0), truth
    assert found is not None
    assert found.directions == 3
    np.testing.assert_allclose(found.mean, expected.mean(0), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.covariance, CurvatureSpread.of(truth).covariance, rtol=1e-7)
