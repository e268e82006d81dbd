"""Exact dynamics: held to enumeration of batches, to long runs, and to closed forms."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

import gradnoise as gn
from gradnoise.learning_rate.update_rule import Momentum
from gradnoise.toy import Dynamics, diverging_lr, stationary_covariance
from tests.formulas import update

RULES = [("sgd", 0.0), ("sgd", 0.9), ("nesterov", 0.7), ("adam", 0.9), ("nadam", 0.6)]
INPUTS = torch.tensor([[1.0, 0.5], [0.2, -1.0], [1.5, 0.3], [-0.4, 0.8]]).double()
TARGETS = torch.tensor([1.0, -0.5, 0.3, 2.0]).double()
FINITE = gn.toy.FiniteLeastSquares(INPUTS, TARGETS, torch.tensor([0.5, -1.0]))
BEST = torch.linalg.lstsq(INPUTS, TARGETS[:, None]).solution[:, 0]
ILL = gn.toy.LinearRegression(torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2]), torch.ones(5), noise=0.5)


def enumerated(steps: int, lr: float, batch: int, rule: Momentum) -> Tensor:
    """E[δδᵀ] over every sequence of batches, by second moments of (w - w*, v, 1) batch by batch."""
    offset = FINITE.w - BEST
    state = torch.cat([offset, torch.zeros(2), torch.ones(1)]).double()
    moment = torch.outer(state, state)
    w, v, one = torch.eye(5).double().split([2, 2, 1])  # as they act on the state
    for _ in range(steps):
        total, count = torch.zeros(5, 5).double(), 0
        for chosen in itertools.combinations(range(4), batch):
            x, r = INPUTS[list(chosen)], (INPUTS @ BEST - TARGETS)[list(chosen)]
            gradient = x.T @ x / batch @ w + (x.T @ r / batch)[:, None] * one
            step = torch.cat([*update(rule, lr, gradient, w, v), one])
            total, count = total + step @ moment @ step.T, count + 1
        moment = total / count
    return moment[:2, :2]


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize(("name", "momentum"), RULES)
def test_second_moments_are_those_over_all_batches(name: str, momentum: float, batch: int) -> None:
    found = FINITE.dynamics().trajectory(FINITE.w - BEST, 6, 0.2, batch, name, momentum)
    expected = enumerated(6, 0.2, batch, Momentum.of(name, momentum))
    torch.testing.assert_close(found[-1], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "toy", [FINITE, ILL, gn.toy.RandomCurvature(2.0, 3.0)], ids=["finite", "regression", "random"]
)
@pytest.mark.parametrize(("name", "momentum"), RULES)
def test_second_moments_grow_right_beyond_the_limit(toy, name: str, momentum: float) -> None:
    """Within 1 % of long runs: below the limit they shrink over 200 steps, above it they grow."""
    moves, limit = toy.dynamics(), toy.mean_square_lr(2, name, momentum)
    quiet = Dynamics(
        moves.hessian, lambda second: moves.gradient_cov(without_constant(second)), moves.population
    )
    offset = torch.ones(len(moves.hessian))
    for factor, grows in ((0.99, False), (1.01, True)):
        path = quiet.trajectory(offset, 400, factor * limit, 2, name, momentum)
        traces = path.diagonal(dim1=1, dim2=2).sum(1)
        assert bool(traces[400] > traces[200]) == grows, factor


def without_constant(second: Tensor) -> Tensor:
    kept = second.clone()
    kept[-1] = kept[:, -1] = 0
    return kept


@pytest.mark.parametrize(("name", "momentum"), RULES)
def test_the_radius_is_one_at_the_limit(name: str, momentum: float) -> None:
    limit = ILL.mean_square_lr(2, name, momentum)
    assert ILL.dynamics().radius(limit, 2, name, momentum) == pytest.approx(1, abs=1e-11)
    assert ILL.dynamics().radius(0.9 * limit, 2, name, momentum) < 1


@pytest.mark.parametrize(("name", "momentum"), RULES)
def test_what_is_stationary_stays_as_it_is(name: str, momentum: float) -> None:
    """Thousands of steps end there, whatever the start."""
    moves = FINITE.dynamics()
    lr = 0.5 * moves.mean_square_lr(2, name, momentum)
    settled = moves.stationary(lr, 2, name, momentum)
    path = moves.trajectory(torch.ones(2), 800, lr, 2, name, momentum)
    torch.testing.assert_close(path[-1], settled, rtol=1e-9, atol=1e-12)
    floor = moves.noise_floor(lr, 2, name, momentum)
    assert floor == pytest.approx(float((moves.hessian * settled).sum()) / 2)
    assert float(moves.excess_loss(path)[-1]) == pytest.approx(floor, rel=1e-9)


@pytest.mark.parametrize(("name", "momentum"), RULES)
def test_full_batches_diverge_where_the_formula_says(name: str, momentum: float) -> None:
    expected = gn.stable_lr(4.0, name, momentum)
    assert diverging_lr(4.0, name, momentum) == pytest.approx(expected, rel=1e-6)


def test_what_cannot_be_is_refused() -> None:
    moves = ILL.dynamics()
    with pytest.raises(gn.ArgumentError, match=r"`lr` = 5\.0 is not stable"):
        moves.stationary(5.0, 1)
    with pytest.raises(gn.ArgumentError, match="`batch_size` must be positive and at most N = 4"):
        FINITE.dynamics().radius(0.1, 5)
    with pytest.raises(gn.ArgumentError, match="`hessian` must be positive definite and `lr`"):
        stationary_covariance(torch.eye(2), torch.eye(2), 1.0, lr=2.0)
    with pytest.raises(gn.ArgumentError, match="`sharpness` must be a positive number; got 0"):
        diverging_lr(0.0)
