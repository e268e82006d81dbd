"""What all analytic problems share: the three limits."""

from __future__ import annotations

import math

import pytest
import torch

import gradnoise as gn

REGRESSION = gn.toy.LinearRegression(torch.tensor([2.0, 0.5]), torch.tensor([1.0, -1.0]), 0.5)


def test_the_limits_are_the_formulas_at_the_truth() -> None:
    truth, limits = REGRESSION.truth(), REGRESSION.limits(8)
    rule = gn.max_lr(truth.sharpness, truth.noise_scale, 8)
    step = gn.greedy_lr(truth.grad_sq_norm, truth.grad_curvature, truth.noise_scale, 8)
    assert limits.noise_scale_rule == pytest.approx(rule)
    assert limits.one_step == pytest.approx(2 * step)
    assert limits.mean_square == REGRESSION.mean_square_lr(8)


def test_a_quadratic_loss_has_the_limit_of_its_dynamics() -> None:
    exact = REGRESSION.dynamics().mean_square_lr(8, "nesterov", 0.5)
    assert REGRESSION.mean_square_lr(8, "nesterov", 0.5) == exact


def test_another_loss_has_the_limit_of_its_sharpest_direction() -> None:
    toy = gn.toy.SoftmaxRegression(torch.tensor([[1.0], [-1.0]]))
    truth = toy.truth()
    expected = gn.mean_square_lr(truth.sharpness, truth.curvature_noise_scale, 4)
    assert toy.dynamics() is None
    assert toy.mean_square_lr(4) == pytest.approx(expected)


def test_without_a_gradient_no_single_step_lowers_the_loss() -> None:
    limits = gn.toy.NoisyQuadratic(torch.eye(2), torch.zeros(2)).limits(4)
    assert (limits.noise_scale_rule, limits.one_step) == (0, 0)
    assert math.isnan(gn.toy.RandomCurvature(1.0, 1.0, w=0.0).limits(4).one_step)
