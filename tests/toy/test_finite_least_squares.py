"""Least squares on given samples: they are the whole population."""

from __future__ import annotations

import itertools

import pytest
import torch

import gradnoise as gn
from tests.toys import assert_dynamics, assert_truth

INPUTS = torch.tensor([[1.0, 0.5], [0.2, -1.0], [1.5, 0.3], [-0.4, 0.8]]).double()
TARGETS = torch.tensor([1.0, -0.5, 0.3, 2.0]).double()
TOY = gn.toy.FiniteLeastSquares(INPUTS, TARGETS, torch.tensor([0.5, -1.0]))
BEST = torch.linalg.lstsq(INPUTS, TARGETS[:, None]).solution[:, 0]


def test_the_truth_is_the_average_over_the_samples() -> None:
    assert_truth(TOY, (INPUTS, TARGETS), correction=1)


def test_the_noise_of_the_dynamics_is_that_of_the_samples() -> None:
    assert_dynamics(TOY, (INPUTS, TARGETS), TOY.w - BEST, correction=1)
    assert TOY.dynamics().population == 4


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_the_limit_is_where_the_second_moment_over_all_batches_begins_to_grow(batch: int) -> None:
    """E[(1 - εH_b) ⊗ (1 - εH_b)] over every batch has the spectral radius 1 there."""
    lr, radii = TOY.mean_square_lr(batch), []
    for factor in (1 - 1e-6, 1, 1 + 1e-6):
        steps = []
        for chosen in itertools.combinations(range(4), batch):
            x = INPUTS[list(chosen)]
            steps.append(torch.eye(2).double() - factor * lr * x.T @ x / batch)
        moments = torch.stack([torch.kron(step, step) for step in steps]).mean(0)
        radii.append(float(torch.linalg.eigvals(moments).abs().max()))
    assert radii[0] < 1 < radii[2]
    assert radii[1] == pytest.approx(1, abs=1e-12)


def test_samples_are_drawn_without_replacement_and_all_of_them_in_order() -> None:
    inputs, targets = TOY.sample(4, seed=0)
    assert torch.equal(inputs, INPUTS)
    assert torch.equal(targets, TARGETS)
    drawn = TOY.sample(3, seed=1)[1].tolist()
    assert len(set(drawn)) == 3
    assert set(drawn) < set(TARGETS.tolist())


def test_more_samples_than_there_are_cannot_be_drawn() -> None:
    with pytest.raises(gn.ArgumentError, match="there are 4 samples; got n = 5"):
        TOY.sample(5, seed=0)


@pytest.mark.parametrize(
    ("inputs", "targets"), [(INPUTS, TARGETS[:3]), (INPUTS[:, :1], TARGETS), (INPUTS[:1], TARGETS)]
)
def test_shapes_that_do_not_fit_are_refused(inputs: torch.Tensor, targets: torch.Tensor) -> None:
    with pytest.raises(
        gn.ArgumentError, match=r"`inputs` \(N, d\), `targets` \(N,\) and `w` \(d,\) must fit"
    ):
        gn.toy.FiniteLeastSquares(inputs, targets, TOY.w)
