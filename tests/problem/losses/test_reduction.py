"""Losses are reduced within each sample and never across samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradnoise import LossError
from gradnoise.problem.losses.entry_weights import entry_weights
from gradnoise.problem.losses.reduction import by_sample, over_own_dimensions, within

LOSSES = torch.arange(24.0).reshape(2, 3, 4)


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square()


@pytest.mark.parametrize(
    ("reduction", "expected"), [("mean", [5.5, 17.5]), ("sum", [66, 210]), ("batchmean", [66, 210])]
)
def test_the_mean_or_the_sum_of_a_samples_own_entries(reduction: str, expected: Any) -> None:
    assert over_own_dimensions(LOSSES, reduction, None).tolist() == expected


def test_entries_that_do_not_count_are_not_in_the_mean() -> None:
    losses, counted = (
        torch.tensor([[1.0, 3.0, 0.0], [0.0, 0.0, 0.0]]),
        torch.tensor([[1, 1, 0]] * 2),
    )
    counted[1] = 0
    assert over_own_dimensions(losses, "mean", counted).tolist() == [2, 0]


def test_no_reduction_needs_one_loss_per_sample() -> None:
    assert over_own_dimensions(LOSSES[:, 0, 0], "none", None).tolist() == [0, 12]
    with pytest.raises(LossError, match=r"shape \(2, 3, 4\), several per sample; pass reduction="):
        over_own_dimensions(LOSSES, "none", None)


def test_flat_losses_follow_their_targets() -> None:
    flat = by_sample(torch.arange(6), torch.zeros(2, 3))
    assert flat.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert by_sample(torch.arange(6), torch.zeros(2, 2)).shape == (6,)
    assert by_sample(torch.arange(6), None).shape == (6,)


def weigh(targets: Tensor) -> Tensor | None:
    return entry_weights(nn.CrossEntropyLoss(), targets)


def NONE(_targets: Any) -> None:
    return None


def test_ignored_targets_are_left_out_only_where_they_are_class_indices() -> None:
    targets = torch.tensor([[1, -100]])
    scaled = within(lambda outputs, _: outputs, "mean", weigh, torch.tensor([[4.0, 0.0]]), targets)
    assert scaled.tolist() == [4]
    real = within(squares, "mean", weigh, torch.zeros(1, 2), torch.tensor([[1.0, -100.0]]))
    assert real.tolist() == [(1 + 1e4) / 2]


def test_a_broadcast_is_an_error_whose_cures_work() -> None:
    column, row = torch.rand(4, 1), torch.rand(4)
    with pytest.raises(LossError, match=r"broadcast to \(4, 4\).*targets\[:, None\] or outp"):
        within(squares, "mean", NONE, column, row)
    first = within(squares, "mean", NONE, column, row[:, None])
    assert torch.equal(first, within(squares, "mean", NONE, column.squeeze(1), row))


def test_a_criterion_that_has_reduced_is_an_error() -> None:
    with pytest.raises(LossError, match=r"single number for the whole batch.*without the average"):
        within(lambda outputs, targets: outputs.mean(), "mean", NONE, LOSSES, LOSSES)
