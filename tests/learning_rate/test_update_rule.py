"""Steps of optimizers: their own loops on a quadratic, and the second moments of one direction."""

import math

import numpy as np
import pytest
import torch

import gradnoise as gn
from gradnoise.learning_rate.formulas import max_lr, mean_square_lr
from gradnoise.learning_rate.update_rule import Momentum
from tests.formulas import update

RULES = [("sgd", 0.0), ("sgd", 0.9), ("nesterov", 0.7), ("adam", 0.9), ("nadam", 0.6)]


def second_moment_radius(rule: Momentum, x: float, noise: float) -> float:
    """The spectral radius for the curvatures 1 ± √q, each with probability one half."""
    w, v = np.eye(2)  # as they act on the state (w, v)
    total = np.zeros((4, 4))
    for sign in (-1, 1):
        step = np.stack(update(rule, x, (1 + sign * math.sqrt(noise)) * w, w, v))
        total += np.kron(step, step) / 2
    return float(np.abs(np.linalg.eigvals(total)).max())


@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0, 30.0])
@pytest.mark.parametrize(("name", "momentum"), RULES)
def test_second_moments_of_one_direction_grow_right_beyond_the_stable_step(name, momentum, noise):
    rule = Momentum.of(name, momentum)
    step = rule.stable_step(noise)
    assert second_moment_radius(rule, step * (1 - 1e-4), noise) < 1
    assert second_moment_radius(rule, step * (1 + 1e-4), noise) > 1


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_without_noise_it_is_the_limit_of_full_batches(momentum):
    for name, factor in {
        "sgd": 2 * (1 + momentum),
        "nesterov": 2 * (1 + momentum) / (1 + 2 * momentum),
        "adam": 2 * (1 + momentum) / (1 - momentum),
        "nadam": 2 * (1 + momentum) / ((1 - momentum) * (1 + 2 * momentum)),
    }.items():
        assert Momentum.of(name, momentum).stable_step() == pytest.approx(factor, rel=1e-14)


def test_heavy_ball_and_nesterov_step_as_torch_does():
    for nesterov, name in ((False, "sgd"), (True, "nesterov")):
        weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = torch.optim.SGD([weight], lr=0.3, momentum=0.8, nesterov=nesterov)
        rule, w, v = Momentum.of(name, 0.8), 1.0, 0.0
        for _ in range(5):
            weight.grad = 2 * weight.detach()
            optimizer.step()
            w, v = update(rule, 0.3, 2 * w, w, v)
        assert float(weight.detach()) == pytest.approx(w, rel=1e-14)


@pytest.mark.parametrize(("name", "momentum"), RULES)
def test_an_update_is_a_linear_map_of_weights_velocity_and_gradient(name, momentum):
    rule, (w, v, gradient) = Momentum.of(name, momentum), np.eye(3)
    memory, gain = rule.linear_map(0.3)
    expected = np.stack(update(rule, 0.3, gradient, w, v))
    np.testing.assert_allclose(np.column_stack([memory, gain]), expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("name", "momentum", "drift"),
    [("sgd", 0.9, 10), ("nesterov", 0.9, 10), ("adam", 0.9, 1), ("nadam", 0.9, 1)],
)
def test_one_gradient_moves_the_weights_by_the_drift_in_the_end(name, momentum, drift):
    assert Momentum.of(name, momentum).drift == pytest.approx(drift)


def test_heavy_ball_reaches_half_the_full_batch_limit_at_a_larger_batch():
    """(1 + m)/(1 - m) times larger."""
    plain = mean_square_lr(4.0, 3.0, 3.0)
    ball = mean_square_lr(4.0, 3.0, 57.0, momentum=0.9)
    assert plain == pytest.approx(gn.stable_lr(4.0) / 2)
    assert ball == pytest.approx(gn.stable_lr(4.0, momentum=0.9) / 2)


def test_the_noise_scale_rule_is_that_of_the_effective_rate_where_noise_dominates():
    plain, ball = max_lr(4.0, 1e6, 1), max_lr(4.0, 1e6, 1, momentum=0.9)
    assert ball == pytest.approx(0.1 * plain, rel=1e-4)
    assert max_lr(4.0, 1e-9, 1, momentum=0.9) == pytest.approx(gn.stable_lr(4.0, momentum=0.9))


def test_infinite_noise_allows_no_step():
    assert Momentum.of("nesterov", 0.5).stable_step(math.inf) == 0
    assert mean_square_lr(4.0, math.inf, 8) == 0
    assert mean_square_lr(4.0, math.inf, 8, population=8) == 0.5


@pytest.mark.parametrize("call", [gn.max_lr, mean_square_lr])
def test_unknown_optimizers_are_refused(call):
    with pytest.raises(gn.ArgumentError, match=r"`optimizer` must be one of sgd, .*; got 'lion'"):
        call(4.0, 3.0, 8, optimizer="lion")
