"""What a part of the samples tells about the Hessian of all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.estimators.curvature.few_samples import (
    COARSE,
    EVENLY,
    FEW,
    FINE,
    LEAST,
    PART,
    accepted_residual,
    chances,
    evenly,
    is_worthwhile,
    near_spectrum,
    sides_of,
)
from gradnoise.operators.hessian import Hessian
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from gradnoise.problem.samples import Samples
from tests.many import COUNT, opened, regression, written


def test_samples_with_large_gradients_are_drawn_more_often() -> None:
    moments = opened().moments()
    odds, norms = chances(moments), moments.sq_norms.sqrt()
    assert float(odds.sum()) == pytest.approx(1)
    assert float(odds.min()) >= EVENLY / COUNT
    expected = EVENLY / COUNT + (1 - EVENLY) * norms / norms.sum()
    torch.testing.assert_close(odds, expected.double())


def test_samples_with_large_curvature_are_drawn_more_often() -> None:
    moments, curvatures = opened().moments(), torch.zeros(COUNT)
    curvatures[3] = -5.0
    odds = chances(moments, curvatures)
    assert float(odds.sum()) == pytest.approx(1)
    assert float(odds[3]) > (1 - EVENLY) / 2


@pytest.mark.parametrize("count", [513, 600])
def test_each_side_is_a_random_part_of_its_half(count: int) -> None:
    samples = Samples.draw(torch.arange(count).double()[:, None], max_samples=None, micro_batch=50)
    often, repeats = torch.zeros(count), 400
    for seed in range(repeats):
        sides = [torch.cat([*side.batches])[:, 0].long() for side in sides_of(samples, seed)]
        for side, half in zip(sides, samples.half_positions(seed), strict=True):
            assert len(side) == PART // 2
            assert set(side.tolist()) <= set(half.tolist())
            often[side] += 1
        first, second = sides
        assert not set(first.tolist()) & set(second.tolist())
    share = PART / count  # 5 standard errors, of the largest of 600: one false alarm in 3000
    gaps = (often / repeats - share) / (share * (1 - share) / repeats) ** 0.5
    assert float(gaps.abs().max()) < 5


def test_without_any_gradient_all_have_the_same_chance() -> None:
    model, inputs = nn.Linear(2, 1), torch.zeros(4, 2)
    nn.init.zeros_(model.bias)
    moments = gn.gradient_moments(model, nn.MSELoss(), (inputs, torch.zeros(4, 1)))
    torch.testing.assert_close(chances(moments), evenly(4))


def test_its_spectrum_is_that_of_the_weighted_mean() -> None:
    model, _, batch = regression()
    own, at_hand = opened(), written(batch, model)
    odds = chances(own.moments())
    with own.problem.guard():
        near = near_spectrum(own.hessian(), odds, seed=3)
    source = torch.Generator().manual_seed(3)
    drawn = torch.multinomial(odds, FEW, replacement=True, generator=source)
    weights = (1 / odds[drawn]) / (1 / odds[drawn]).sum()
    matrix = (at_hand.hessians[drawn] * weights[:, None, None]).sum(0)
    values = torch.linalg.eigvalsh(matrix)
    torch.testing.assert_close(near.kernel.diagonal()[near.ranked][0], values[-1])
    torch.testing.assert_close(matrix @ near.top, values[-1] * near.top, rtol=1e-6, atol=1e-8)


def test_it_is_worthwhile_for_many_samples_that_can_be_taken_apart() -> None:
    assert is_worthwhile(opened().hessian())
    assert not is_worthwhile(opened().hessian(hvp="finite"))
    model, criterion, (inputs, targets) = regression()
    few = Problem.open(model, criterion, (inputs[: LEAST - 1], targets[: LEAST - 1]))
    assert not is_worthwhile(Hessian.of(few))
    noisy = nn.Sequential(nn.Dropout(0.5), model)
    assert not is_worthwhile(Hessian.of(Problem.open(noisy, criterion, (inputs, targets))))
    weights = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]).double())
    labels = (targets[:, 0] > 0).long()
    classes = nn.Linear(5, 2).double()
    assert not is_worthwhile(
        Hessian.of(Problem.open(classes, weights, (inputs, labels), Options()))
    )


def test_the_residual_is_what_was_asked_for_or_a_default() -> None:
    assert (accepted_residual(True, None), accepted_residual(False, None)) == (COARSE, FINE)
    assert (accepted_residual(True, 0.5), accepted_residual(False, 0.0)) == (0.5, 0.0)
