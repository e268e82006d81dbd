"""Flipped logistic: exact averages over ten labels."""

from __future__ import annotations

import math

import pytest
import torch

import gradnoise as gn
from tests.toys import assert_truth


@pytest.mark.parametrize(("flips", "w"), [(3, 0.0), (2, -0.7)])
def test_the_truth_is_the_average_over_labels_with_as_many_flips(flips: int, w: float) -> None:
    labels = torch.tensor([-1.0] * flips + [1.0] * (10 - flips), dtype=torch.float64)
    assert_truth(gn.toy.FlippedLogistic(flips / 10, w), labels)


def test_the_minimum_has_no_gradient() -> None:
    truth = gn.toy.FlippedLogistic(0.3, math.log(7 / 3)).truth()  # σ(-w) = 0.3
    assert truth.grad_sq_norm == pytest.approx(0, abs=1e-30)
    assert truth.trace_cov == pytest.approx(0.21)


def test_labels_are_flipped_as_often_as_asked_for() -> None:
    """Within 4 standard errors, for a fixed seed."""
    labels = gn.toy.FlippedLogistic(0.3).sample(20_000, seed=1)
    assert set(labels.tolist()) == {-1.0, 1.0}
    assert abs(float((labels < 0).sum()) - 6000) < 4 * math.sqrt(4200)


@pytest.mark.parametrize("flip", [0.0, 1.0, math.nan])
def test_what_is_no_share_is_refused(flip: float) -> None:
    with pytest.raises(
        gn.ArgumentError, match=f"`flip` must be a share between 0 and 1; got {flip}"
    ):
        gn.toy.FlippedLogistic(flip)
