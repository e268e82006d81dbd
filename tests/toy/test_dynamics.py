"""Exact dynamics: held to enumeration of batches, to simulation, and to training by torch."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

import gradnoise as gn
from gradnoise.learning_rate.formulas import mean_square_lr
from gradnoise.learning_rate.update_rule import Momentum
from gradnoise.toy import Dynamics, diverging_lr, stationary_covariance

RULES = [("sgd", 0.0), ("sgd", 0.9), ("nesterov", 0.7), ("adam", 0.9), ("nadam", 0.6)]
INPUTS = torch.tensor([[1.0, 0.5], [0.2, -1.0], [1.5, 0.3], [-0.4, 0.8]]).double()
TARGETS = torch.tensor([1.0, -0.5, 0.3, 2.0]).double()
FINITE = gn.toy.FiniteLeastSquares(INPUTS, TARGETS, torch.tensor([0.5, -1.0]))
ILL = gn.toy.LinearRegression(torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2]), torch.ones(5), noise=0.5)


def best() -> Tensor:
    return torch.linalg.lstsq(INPUTS, TARGETS[:, None]).solution[:, 0]


def enumerated(steps: int, lr: float, batch: int, rule: Momentum) -> Tensor:
    """E[δδᵀ] over every sequence of batches, by second moments of (w - w*, v, 1) batch by batch."""
    offset = FINITE.w - best()
    state = torch.cat([offset, torch.zeros(2), torch.ones(1)]).double()
    moment = torch.outer(state, state)
    for _ in range(steps):
        total, count = torch.zeros(5, 5).double(), 0
        for chosen in itertools.combinations(range(4), batch):
            x, r = INPUTS[list(chosen)], (INPUTS @ best() - TARGETS)[list(chosen)]
            hessian, slope = x.T @ x / batch, x.T @ r / batch
            step = torch.zeros(5, 5).double()
            step[:2, :2] = (
                torch.eye(2).double()
                - lr * (rule.gradient_weight + rule.velocity_weight * rule.velocity_gain) * hessian
            )
            step[:2, 2:4] = -lr * rule.velocity_weight * rule.velocity_decay * torch.eye(2).double()
            step[:2, 4] = (
                -lr * (rule.gradient_weight + rule.velocity_weight * rule.velocity_gain) * slope
            )
            step[2:4, :2], step[2:4, 2:4] = (
                rule.velocity_gain * hessian,
                rule.velocity_decay * torch.eye(2).double().double(),
            )
            step[2:4, 4], step[4, 4] = rule.velocity_gain * slope, 1
            total, count = total + step @ moment @ step.T, count + 1
        moment = total / count
    return moment[:2, :2]


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize(("name", "momentum"), RULES)
def test_second_moments_are_those_over_all_batches(name, momentum, batch):
    found = FINITE.dynamics().trajectory(FINITE.w - best(), 6, 0.2, batch, name, momentum)
    expected = enumerated(6, 0.2, batch, Momentum.of(name, momentum))
    torch.testing.assert_close(found[-1], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("toy", [FINITE, ILL, gn.toy.RandomCurvature(2.0, 3.0)], ids=str)
@pytest.mark.parametrize(("name", "momentum"), RULES)
def test_second_moments_grow_right_beyond_the_limit(toy, name, momentum):
    """Within 1 % of brute force: below it they shrink over many steps, above it they grow."""
    batch = 2
    moves, limit = toy.dynamics(), toy.mean_square_lr(2, name, momentum)
    quiet = Dynamics(
        moves.hessian, lambda second: moves.gradient_cov(without_constant(second)), moves.population
    )
    offset = torch.ones(len(moves.hessian))
    for factor, grows in ((0.99, False), (1.01, True)):
        path = quiet.trajectory(offset, 4000, factor * limit, batch, name, momentum)
        traces = path.diagonal(dim1=1, dim2=2).sum(1)
        late = traces[traces.isfinite()][-1] if grows else traces[-1]
        assert bool(late > traces[2000] or not late < 1e250) == grows, factor


def without_constant(second: Tensor) -> Tensor:
    kept = second.clone()
    kept[-1] = kept[:, -1] = 0
    return kept


def test_the_limits_of_the_sheet():
    """formulas.md, T4: c = (3, 2, 1, 0.5, 0.2)."""
    for batch, expected in ((1, 0.1756), (4, 0.4119), (32, 0.6259), (1000, 0.6653)):
        assert ILL.mean_square_lr(batch) == pytest.approx(expected, abs=6e-5)
    isotropic = gn.toy.LinearRegression(2 * torch.ones(4), torch.ones(4))
    assert isotropic.mean_square_lr(3) == pytest.approx(2 / (2 * (1 + 5 / 3)), rel=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("batch", [1, 8])
def test_one_direction_follows_the_law_of_momentum(momentum, batch):
    toy = gn.toy.RandomCurvature(2.0, 3.0)
    law = 1 / (2 / (2 * (1 + momentum)) + 9 / batch / (2 * 2 * (1 - momentum)))
    assert toy.mean_square_lr(batch, "sgd", momentum) == pytest.approx(law, rel=1e-6)
    for name in ("sgd", "nesterov", "adam", "nadam"):
        ours = mean_square_lr(2.0, 9 / 4, batch, optimizer=name, momentum=momentum)
        assert toy.mean_square_lr(batch, name, momentum) == pytest.approx(ours, rel=1e-6)


@pytest.mark.parametrize(("name", "momentum"), RULES)
def test_full_batches_diverge_where_the_formula_says(name, momentum):
    expected = gn.stable_lr(4.0, name, momentum)
    assert diverging_lr(4.0, name, momentum) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("name", "momentum"), [("sgd", 0.0), ("sgd", 0.8), ("nesterov", 0.5)])
def test_torch_trains_as_the_dynamics_say(name, momentum):
    """2000 runs of 30 steps by torch's update, within three standard errors in every direction."""
    toy = gn.toy.NoisyQuadraticModel(torch.tensor([1.0, -1.0, 2.0]))
    runs, steps, lr, batch = 2000, 30, 0.2, 4
    rule, h = Momentum.of(name, momentum), toy.spectrum
    source = torch.Generator().manual_seed(0)
    w, v = toy.w.expand(runs, 3).clone(), torch.zeros(runs, 3).double()
    for _ in range(steps):
        noise = torch.randn(runs, batch, 3, generator=source, dtype=torch.float64).mean(1)
        g = h * w + h.sqrt() * noise
        v = rule.velocity_decay * v + rule.velocity_gain * g
        w = w - lr * (rule.gradient_weight * g + rule.velocity_weight * v)
    expected = toy.dynamics().trajectory(toy.w, steps, lr, batch, name, momentum)[-1].diagonal()
    squares = w.square()
    error = squares.std(0) / math.sqrt(runs)
    assert bool(((squares.mean(0) - expected).abs() < 3 * error).all())


def test_heavy_ball_settles_at_the_formula_of_the_sheet():
    """T2: E w² = εc(1 + m)/(h(1 - m)(2(1 + m) - εh)) with the noise variance c of a batch."""
    toy, lr, m, batch = gn.toy.NoisyQuadraticModel(torch.ones(3)), 0.3, 0.6, 5
    h, c = toy.spectrum, toy.spectrum / batch
    expected = lr * c * (1 + m) / (h * (1 - m) * (2 * (1 + m) - lr * h))
    found = toy.dynamics().stationary(lr, batch, "sgd", m).diagonal()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_sgd_settles_at_the_lyapunov_equation():
    toy = gn.toy.NoisyQuadratic(
        torch.tensor([[2.0, 0.5], [0.5, 1.0]]),
        torch.zeros(2),
        torch.tensor([[1.0, 0.3], [0.3, 0.5]]),
    )
    cov = toy.hessian @ toy.centre_cov @ toy.hessian
    found = toy.dynamics().stationary(0.4, 8)
    torch.testing.assert_close(found, stationary_covariance(toy.hessian, cov, 0.05, lr=0.4))
    flow = stationary_covariance(toy.hessian, cov, 0.05)
    residual = toy.hessian @ flow + flow @ toy.hessian - 0.05 * cov
    assert float(residual.abs().max()) < 1e-14


def test_the_noise_floor_is_proportional_to_the_temperature():
    """Within 2 % of T·trΣ/4 at ελ ≤ 0.05 on T2; one direction of ελ = 0.05 is 2.6 % above."""
    toy = gn.toy.NoisyQuadraticModel(torch.ones(8))
    for lr, batch in ((0.05, 1), (0.05, 16), (0.01, 4)):
        law = lr / batch * float(toy.spectrum.sum()) / 4
        assert toy.dynamics().noise_floor(lr, batch) == pytest.approx(law, rel=0.02)
    same = [toy.dynamics().noise_floor(lr, batch) for lr, batch in ((0.01, 2), (0.05, 10))]
    assert same[0] == pytest.approx(same[1], rel=0.02)
    one = gn.toy.NoisyQuadraticModel(torch.ones(1))
    assert one.dynamics().noise_floor(0.05, 1) == pytest.approx(0.05 / 4 / (1 - 0.025))


def test_momentum_is_the_same_temperature_at_the_effective_rate():
    toy = gn.toy.NoisyQuadraticModel(torch.ones(8))
    plain = toy.dynamics().noise_floor(0.02, 4)
    ball = toy.dynamics().noise_floor(0.002, 4, "sgd", 0.9)
    assert ball == pytest.approx(plain, rel=0.02)


@pytest.mark.parametrize("steps", [2, 8])
def test_small_steps_are_one_large_step_of_a_larger_batch(steps):
    """n steps at (ε, B) and one at (nε, nB): means and covariances agree to the order of nελ."""
    toy = gn.toy.NoisyQuadraticModel(torch.tensor([1.0, -1.0, 2.0]))
    gaps = []
    for lr in (1e-3, 1e-4):
        many = toy.dynamics().trajectory(toy.w, steps, lr, 4)[-1]
        once = toy.dynamics().trajectory(toy.w, 1, steps * lr, 4 * steps)[-1]
        moved = once - torch.outer(toy.w, toy.w)
        gaps.append(float((many - once).norm() / moved.norm()))
    assert gaps[0] < steps * 1e-3
    assert gaps[1] == pytest.approx(gaps[0] / 10, rel=0.05)


def test_what_cannot_be_is_refused():
    moves = ILL.dynamics()
    with pytest.raises(gn.ArgumentError, match=r"`lr` = 5\.0 is not stable"):
        moves.stationary(5.0, 1)
    with pytest.raises(gn.ArgumentError, match="`batch_size` must be positive and at most N = 4"):
        FINITE.dynamics().radius(0.1, 5)
    with pytest.raises(gn.ArgumentError, match="`hessian` must be positive definite and `lr`"):
        stationary_covariance(torch.eye(2), torch.eye(2), 1.0, lr=2.0)
    with pytest.raises(gn.ArgumentError, match="`sharpness` must be a positive number; got 0"):
        diverging_lr(0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gn.toy.RandomCurvature(0.0, 1.0), "`mean` must be positive and `spread` not neg"),
        (lambda: gn.toy.NoisyQuadraticModel(torch.ones(2), torch.ones(3)), "`spectrum` must be"),
        (
            lambda: gn.toy.FiniteLeastSquares(INPUTS, TARGETS[:3], FINITE.w),
            r"`inputs` \(N, d\), `targets` \(N,\) and `w` \(d,\) must fit",
        ),
        (lambda: FINITE.sample(5, seed=0), "there are 4 samples; got n = 5"),
    ],
)
def test_toys_that_do_not_fit_are_refused(make, message):
    with pytest.raises(gn.ArgumentError, match=message):
        make()
