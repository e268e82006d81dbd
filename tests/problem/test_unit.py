"""Samples and groups as units, and the losses of seeded batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.problem.objective import as_loss_fn
from gradnoise.problem.options import Options
from gradnoise.problem.unit import SAMPLE, Seeded, Unit, UnitLosses, given, stacked
from gradnoise.tensors.ragged import Items, Ragged
from tests.unit_cases import CE, X, Y, mlp


def test_options_refuse_units_that_do_not_exist() -> None:
    with pytest.raises(gn.ArgumentError, match="`unit` must be one of auto, sample, group"):
        Options(unit="batch")
    with pytest.raises(gn.ArgumentError, match="`group_size` must be a whole number from 1"):
        Options(group_size=0)
    with pytest.raises(gn.ArgumentError, match="`group_size` = 4 needs unit='group'"):
        Options(unit="sample", group_size=4)


def test_a_batch_is_so_many_groups() -> None:
    group = Unit("group", 16, reason="as asked for")
    assert (group.count_of(64), SAMPLE.count_of(7)) == (4, 7)
    with pytest.raises(gn.ArgumentError, match=r"multiple of 16.*`group_size` = 24"):
        group.count_of(24)
    model = mlp(nn.BatchNorm1d(5))
    with pytest.raises(gn.ArgumentError, match="`batch_size` = 18 must be a multiple of 12"):
        gn.batch_sharpness(model, CE, (X, Y), batch_size=18, group_size=12)
    assert gn.batch_sharpness(model, CE, (X, Y), batch_size=24, group_size=12).samples == 96


def draws(_model: nn.Module, batch: Tensor) -> Tensor:
    return torch.rand(len(batch)) + np.random.rand() + batch[:, 0]


def test_a_group_is_its_own_draw() -> None:
    """A group has the same loss alone and beside others; its seed alone decides the draw."""
    losses = UnitLosses(draws, Unit("group", 3, is_replayed=True))
    batch = Seeded(torch.zeros(4, 3, 1), torch.tensor([1, 2, 1, 3]))
    found = losses(nn.Identity(), batch)
    assert found[0] == found[2] != found[1]
    part = losses(nn.Identity(), Seeded(batch.batch[1:], batch.seeds[1:]))
    torch.testing.assert_close(part, found[1:], rtol=0, atol=0)


def test_samples_draw_by_their_place_in_the_micro_batch() -> None:
    losses = UnitLosses(draws, Unit(is_replayed=True))
    batch = Seeded(torch.zeros(4, 1), torch.tensor([7, 8, 9, 10]))
    first, second = losses(nn.Identity(), batch), losses(nn.Identity(), batch)
    assert len(set(first.tolist())) == 4
    torch.testing.assert_close(first, second, rtol=0, atol=0)


REFUSED = {
    "of another shape": (
        lambda _, batch: batch,
        r"one number for its batch of 3 samples.*\(3, 2\)",
    ),
    "no tensor": (lambda *_: 1.0, "must return a tensor: one number for its batch.*float"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_losses_of_a_group(name: str) -> None:
    loss_fn: Any
    loss_fn, message = REFUSED[name]
    losses = UnitLosses(loss_fn, Unit("group", 3))
    with pytest.raises(gn.LossError, match=message):
        losses(nn.Identity(), Seeded(torch.zeros(1, 3, 2), torch.zeros(1, dtype=torch.long)))


def test_groups_are_stacked_where_they_are_alike() -> None:
    groups = [{"x": torch.ones(2, k), "name": "a"} for k in (1, 1, 1, 3, 3)]
    made = stacked(groups, 2, seed=0)
    assert [tuple(batch.batch["x"].shape) for batch in made] == [
        *((2, 2, 1), (1, 2, 1)),
        (2, 2, 3),
    ]
    assert len({int(s) for batch in made for s in batch.seeds}) == 5
    others = [{"x": torch.ones(2, 1), "name": name} for name in "ab"]
    assert len(stacked(others, 2, seed=0)) == 2


def test_draws_of_a_collate_function_are_not_those_of_the_loss() -> None:
    items = Items([torch.zeros(1)] * 4, lambda own: torch.stack(own) + torch.rand(len(own), 1))
    batch = Seeded(Ragged(torch.arange(4), items), torch.tensor([7, 8, 9, 10]))
    losses = UnitLosses(as_loss_fn(lambda _, x: x[:, 0] - torch.rand(4)), Unit(is_replayed=True))
    first, second = losses(nn.Identity(), batch), losses(nn.Identity(), batch)
    assert (first != 0).all()
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    outside = losses(nn.Identity(), given(batch))  # where it is put together does not matter
    torch.testing.assert_close(first, outside, rtol=0, atol=0)
    groups = Seeded(Ragged(torch.arange(4).view(2, 2), items), torch.tensor([7, 8]))
    assert given(groups) is groups
