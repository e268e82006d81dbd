"""The mean-square limit in a few directions: all batches enumerated, then a network's Hessians."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.estimators.curvature.extreme_eigenvalue import sample_curvatures
from gradnoise.estimators.curvature.spread import measure_curvature_spread, sharp_directions
from gradnoise.learning_rate.mean_square import CurvatureSpread
from gradnoise.learning_rate.update_rule import Momentum
from gradnoise.linalg.deflation import explore
from gradnoise.operators.hessian import Hessian
from gradnoise.problem.problem import Problem
from tests import oracles

SAMPLES, DIRECTIONS = 5, 2


def curvatures(seed: int = 0, samples: int = SAMPLES, size: int = DIRECTIONS) -> np.ndarray:
    """Symmetric, of positive mean, some of them indefinite, shape (samples, size, size)."""
    roots = np.random.default_rng(seed).normal(size=(samples, size, 3))
    return roots @ roots.swapaxes(1, 2) - 0.3 * np.eye(size)


def radius(matrices: np.ndarray, batch: int, rule: Momentum, lr: float) -> float:
    """The spectral radius of the second moments over all batches without replacement."""
    w, v = np.split(np.eye(2 * matrices.shape[1]), 2)  # as they act on the state (w, v)
    total, count = 0, 0
    for chosen in itertools.combinations(matrices, batch):
        step = np.vstack(oracles.update(rule, lr, np.mean(chosen, axis=0) @ w, w, v))
        total, count = total + np.kron(step, step), count + 1
    return float(np.abs(np.linalg.eigvals(total / count)).max())


@pytest.mark.parametrize("batch", [1, 2, 4, 5])
@pytest.mark.parametrize(
    ("name", "momentum"),
    [("sgd", 0.0), ("nadam", 0.0), ("sgd", 0.9), ("nesterov", 0.8), ("adam", 0.9), ("nadam", 0.7)],
)
def test_second_moments_over_all_batches_grow_right_beyond_it(name, momentum, batch):
    matrices = curvatures()
    limit = CurvatureSpread.of(matrices).stable_lr(1 / batch - 1 / SAMPLES, name, momentum)
    rule = Momentum.of(name, momentum)
    assert radius(matrices, batch, rule, 0.999 * limit) < 1
    assert radius(matrices, batch, rule, 1.001 * limit) > 1


def test_every_direction_more_lowers_the_limit():
    matrices = curvatures(1, samples=9, size=4)
    spreads = [CurvatureSpread.of(matrices[:, :k, :k]) for k in range(1, 5)]
    limits = [spread.stable_lr(1.0) for spread in spreads]
    assert all(more < less for less, more in itertools.pairwise(limits))
    assert spreads[-1].reduction(1.0) == pytest.approx(limits[-1] / limits[0])
    assert spreads[0].reduction(1.0) == 1


def test_samples_that_agree_leave_the_limit_of_full_batches():
    matrix = np.diag([4.0, 1.0])
    spread = CurvatureSpread.of(np.stack([matrix] * 3))
    assert spread.stable_lr(1.0) == pytest.approx(0.5)
    assert spread.stable_lr(1.0, "sgd", 0.5) == pytest.approx(0.75)


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


def test_the_measured_spread_is_that_of_the_dense_hessians():
    spread, directions, _ = measured(change=0.0)
    dense = oracles.dense(*network())
    entries = torch.einsum("ap,ipq,bq->iab", directions, dense.hessians, directions).numpy()
    expected = CurvatureSpread.of(entries)
    assert spread.directions == len(directions) > 1
    np.testing.assert_allclose(spread.mean, expected.mean, atol=1e-10)
    np.testing.assert_allclose(spread.covariance, expected.covariance, atol=1e-10)
    assert not spread.converged


def test_directions_are_orthonormal_with_the_sharpest_first():
    spread, directions, _ = measured(change=0.0)
    identity = torch.eye(len(directions)).double()
    torch.testing.assert_close(directions @ directions.T, identity, rtol=0, atol=1e-10)
    assert np.all(np.diff(np.diag(spread.mean)) <= 1e-6)


def test_no_direction_is_added_once_the_limit_settles():
    assert measured(change=0.999)[0].directions == 2
    assert measured(change=0.999)[0].converged


def test_a_profile_keeps_it_through_a_file(tmp_path):
    profile = gn.profile(*network())
    profile.save(tmp_path / "p.json")
    again = gn.Profile.load(tmp_path / "p.json")
    assert again.curvature_spread == profile.curvature_spread is not None
    assert str(again) == str(profile)


def test_the_limit_of_all_directions_is_no_larger():
    """2/λ_max(C†D) with all P² entries written out, over the positive part of the Hessian."""
    dense = oracles.dense(*network()).hessians.numpy()
    values, vectors = np.linalg.eigh(dense.mean(0))
    kept = vectors[:, values > 1e-3]
    whole = CurvatureSpread.of(kept.T @ dense @ kept)
    part = measured(change=0.0)[0]
    for batch in (1, 8):
        share = 1 / batch - 1 / 30
        assert whole.stable_lr(share) <= part.stable_lr(share) * (1 + 1e-6)


def test_without_a_bowl_there_is_no_spread():
    problem = Problem.open(*network())
    directions = torch.eye(problem.objective.size, dtype=torch.float64)[:2]
    assert measure_curvature_spread(problem, directions, -torch.ones(30)) is None
