"""Random curvature: exact averages over two curvatures, and closed forms of its limit."""

from __future__ import annotations

import math

import pytest
import torch

import gradnoise as gn
from gradnoise.learning_rate.formulas import mean_square_lr
from tests.toys import assert_dynamics, assert_truth

TOY = gn.toy.RandomCurvature(2.0, 3.0, w=-1.5)
CURVATURES = torch.tensor([5.0, -1.0], dtype=torch.float64)  # 2 ± 3


def test_the_truth_is_the_average_over_two_curvatures() -> None:
    assert_truth(TOY, CURVATURES)


def test_the_noise_of_the_dynamics_is_that_of_the_two() -> None:
    assert_dynamics(TOY, CURVATURES, torch.tensor([-1.5]))


def test_samples_have_the_mean_and_the_spread() -> None:
    """Within 4 standard errors, for a fixed seed."""
    drawn = TOY.sample(20_000, seed=0)
    assert float(drawn.mean()) == pytest.approx(2, abs=4 * 3 / math.sqrt(20_000))
    assert float(drawn.var()) == pytest.approx(9, abs=4 * 9 * math.sqrt(2 / 20_000))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("batch", [1, 8])
def test_the_mean_square_limit_follows_the_law_of_momentum(momentum: float, batch: int) -> None:
    law = 1 / (2 / (2 * (1 + momentum)) + 9 / batch / (2 * 2 * (1 - momentum)))
    assert TOY.mean_square_lr(batch, "sgd", momentum) == pytest.approx(law, rel=1e-6)
    for name in ("sgd", "nesterov", "adam", "nadam"):
        formula = mean_square_lr(2.0, 9 / 4, batch, optimizer=name, momentum=momentum)
        assert TOY.mean_square_lr(batch, name, momentum) == pytest.approx(formula, rel=1e-6)


@pytest.mark.parametrize(("mean", "spread"), [(0.0, 1.0), (1.0, -1.0)])
def test_curvatures_that_do_not_exist_are_refused(mean: float, spread: float) -> None:
    message = rf"`mean` must be positive and `spread` not neg.*RandomCurvature\({mean}, {spread}"
    with pytest.raises(gn.ArgumentError, match=message):
        gn.toy.RandomCurvature(mean, spread)
