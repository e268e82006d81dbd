"""What criteria take, and what they were told."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradnoise import LossError, supervised
from gradnoise.problem.losses.signature import (
    has_reduction,
    ignored_by,
    name_of,
    reduction_of,
    refuse_other_arguments,
)


def own(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean()


def test_what_has_a_reduction() -> None:
    assert has_reduction(nn.MSELoss())
    assert has_reduction(F.mse_loss)
    assert not has_reduction(own)
    assert not has_reduction(nn.Identity())


def test_how_a_criterion_reduces() -> None:
    assert reduction_of(nn.MSELoss(reduction="sum")) == "sum"
    assert reduction_of(F.mse_loss) == "mean"
    assert reduction_of(functools.partial(F.mse_loss, reduction="sum")) == "sum"
    outputs = torch.tensor([[1.0, 3.0]])
    summed = supervised(functools.partial(F.mse_loss, reduction="sum"))
    assert summed(nn.Identity(), (outputs, torch.zeros(1, 2))).tolist() == [10]


def test_which_index_is_ignored() -> None:
    assert ignored_by(nn.CrossEntropyLoss(ignore_index=3)) == 3
    assert ignored_by(F.cross_entropy) == -100
    assert ignored_by(functools.partial(F.cross_entropy, ignore_index=2)) == 2
    assert ignored_by(nn.MSELoss()) is None
    assert ignored_by(own) is None


def test_how_criteria_are_named() -> None:
    assert name_of(nn.MSELoss()) == "MSELoss"
    assert name_of(functools.partial(own)) == "own"


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (nn.GaussianNLLLoss(), r"^GaussianNLLLoss takes \(input, target, var\), where a criterion"),
        (nn.TripletMarginLoss(), r"^TripletMarginLoss takes \(anchor, positive, negative\)"),
        (nn.CTCLoss(), r"^CTCLoss takes \(log_probs, targets, input_lengths, target_lengths\)"),
        (F.gaussian_nll_loss, r"^gaussian_nll_loss takes \(input, target, var, .*Write a loss_fn"),
        (lambda outputs: outputs, r"^<lambda> has no `reduction` and takes \(outputs\), where"),
    ],
)
def test_criteria_of_other_things_than_outputs_and_targets_are_an_error(
    criterion: Any, message: str
) -> None:
    with pytest.raises(LossError, match=message):
        supervised(criterion)


def test_a_loss_fn_that_calls_such_a_criterion_is_the_cure() -> None:
    criterion = nn.GaussianNLLLoss(reduction="none")

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        return criterion(model(batch[0]), batch[1], torch.ones(4))  # type: ignore[no-any-return]

    assert loss_fn(nn.Identity(), (torch.rand(4), torch.rand(4))).shape == (4,)


def test_criteria_that_do_not_tell_what_they_take_are_tried() -> None:
    refuse_other_arguments(torch.dist)
    assert has_reduction(torch.dist)


def test_class_weights_of_a_function_are_those_of_a_module() -> None:
    weight, outputs, labels = torch.tensor([1.0, 2.0]), torch.randn(3, 2), torch.tensor([0, 1, 1])
    mean: Any = supervised(functools.partial(F.cross_entropy, weight=weight))
    assert mean.weights(nn.Identity(), (outputs, labels)).tolist() == [1, 2, 2]
    losses = supervised(functools.partial(F.cross_entropy, weight=weight, reduction="sum"))
    expected = F.cross_entropy(outputs, labels, weight=weight, reduction="none")
    torch.testing.assert_close(losses(nn.Identity(), (outputs, labels)), expected)
