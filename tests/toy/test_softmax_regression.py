"""Softmax regression at zero: exact averages over grids around the means."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import gradnoise as gn
from tests.toys import assert_truth, grid, standard_scores


def softmax(size: int) -> tuple[Any, Any]:
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]])[:, :size]
    toy = gn.toy.SoftmaxRegression(means, torch.tensor([1.0, 0.25])[:size])
    x = (toy.means[:, None] + grid(3, size) * toy.spectrum.sqrt()).reshape(-1, size)
    return toy, (x, torch.arange(3).repeat_interleave(len(x) // 3))


@pytest.mark.parametrize("size", [1, 2])
def test_the_truth_is_the_average_over_a_population_with_the_same_moments(size: int) -> None:
    assert_truth(*softmax(size))


def test_samples_have_the_moments_that_the_truth_uses() -> None:
    """Within 4 standard errors, for a fixed seed."""
    mixture, _ = softmax(2)
    x, labels = mixture.sample(20_000, seed=1)
    for k, mean in enumerate(mixture.means):
        of_class = x[labels == k]
        assert (standard_scores(of_class, mean) < 4).all()
        assert (standard_scores((of_class - mean) ** 2, mixture.spectrum) < 4).all()
        assert abs(len(of_class) - 20_000 / 3) < 4 * math.sqrt(20_000 * 2 / 9)


def test_the_model_is_zero_and_every_loss_is_the_logarithm_of_the_classes() -> None:
    toy, population = softmax(2)
    losses = toy.loss_fn(toy.model(), population)
    assert losses.tolist() == pytest.approx([math.log(3)] * len(losses))
    assert toy.dynamics() is None


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: gn.toy.SoftmaxRegression(torch.ones(1, 2)), r"K > 1 classes; got \(1, 2\)"),
        (lambda: gn.toy.SoftmaxRegression(torch.ones(3)), r"must have shape \(K, d\)"),
        (lambda: gn.toy.SoftmaxRegression(torch.ones(2, 2), -torch.ones(2)), r"none of them neg"),
        (lambda: gn.toy.SoftmaxRegression(torch.ones(2, 2), torch.ones(3)), r"must be 2 numbers"),
    ],
)
def test_classes_that_do_not_exist_are_refused(build: Any, message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        build()
