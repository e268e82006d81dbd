"""A few samples alone tell whether what an earlier call found about all of them still holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradnoise.errors import LossError
from gradnoise.problem.confirmation import OutdatedError, are_independent, confirm
from gradnoise.problem.objective import Objective
from gradnoise.problem.unit import Seeded, Unit
from tests.counting import SAMPLES, Counted, small_data, small_model


def swapped(x: Tensor) -> Tensor:
    """The samples at 0, 1, 2, 3, ... in the order 1, 0, 3, 2, ..., without an odd one out."""
    even = x[: len(x) // 2 * 2]
    return even.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


COUPLINGS = {
    "through the mean": lambda x: x.mean(0, keepdim=True),
    "those before": lambda x: x.cumsum(0) - x,
    "those behind": lambda x: x.flip(0).cumsum(0).flip(0) - x,
    "the neighbour": lambda x: x.roll(1, 0),
    "in reverse": lambda x: x.flip(0),
    "pairs": lambda x: x.clone().index_add_(0, torch.arange(len(x) // 2 * 2), swapped(x)),
    "the first": lambda x: x[:1].expand_as(x),
    "the count": lambda x: torch.full_like(x, 1 / len(x)),
}


def coupled(kind: str, strength: float = 0.3) -> Any:
    def losses(model: nn.Module, batch: Any) -> Tensor:
        inputs = batch[0] + strength * COUPLINGS[kind](batch[0])
        return F.cross_entropy(model(inputs), batch[1], reduction="none")

    return losses


def unconfirmed(loss_fn: Any, count: int = SAMPLES) -> tuple[Objective, Tensor]:
    """An objective with something to confirm, and its losses."""
    objective = Objective(small_model(), loss_fn)
    losses = objective.losses(small_data(count)).detach()
    objective.is_unconfirmed = True
    return objective, losses


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, SAMPLES])
def test_independent_samples_are(count: int) -> None:
    assert are_independent(Objective(small_model(), Counted()), small_data(count))


@pytest.mark.parametrize("count", [5, SAMPLES])
@pytest.mark.parametrize("kind", COUPLINGS)
def test_coupled_samples_are_not(kind: str, count: int) -> None:
    assert not are_independent(Objective(small_model(), coupled(kind)), small_data(count))


def test_losses_that_fail_confirm_nothing() -> None:
    def failing(_model: nn.Module, _batch: Any) -> Tensor:
        raise LossError("no loss")

    assert not are_independent(Objective(small_model(), failing), small_data())


@pytest.mark.parametrize("kind", ["", "through the mean"])
def test_random_losses_are_held_to_others_of_the_same_draws(kind: str) -> None:
    def drawing(model: nn.Module, batch: Any) -> Tensor:
        return (coupled(kind) if kind else Counted())(model, batch) * torch.rand(len(batch[1]))

    objective = Objective(small_model(), drawing, Unit(is_replayed=True))
    batch = Seeded.of(small_data(), torch.Generator())
    assert are_independent(objective, batch) == (not kind)


def test_a_pass_is_confirmed_by_two_samples_alone() -> None:
    loss_fn = Counted()
    objective, losses = unconfirmed(loss_fn)
    assert loss_fn.of(lambda: confirm(objective, small_data(), losses)) == 2
    assert not objective.is_unconfirmed
    assert loss_fn.of(lambda: confirm(objective, small_data(), losses)) == 0


@pytest.mark.parametrize("kind", COUPLINGS)
@pytest.mark.parametrize("count", [*range(5, 18), 31, 32, 33, SAMPLES])
def test_a_pass_over_coupled_samples_is_not(kind: str, count: int) -> None:
    objective, losses = unconfirmed(coupled(kind), count)
    with pytest.raises(OutdatedError):
        confirm(objective, small_data(count), losses)
    assert objective.is_unconfirmed


def test_a_pass_is_not_where_a_loss_of_few_samples_fails() -> None:
    def of_many(model: nn.Module, batch: Any) -> Tensor:
        losses = Counted()(model, batch)
        return losses if len(losses) > 2 else losses * torch.inf

    objective, losses = unconfirmed(of_many)
    with pytest.raises(OutdatedError):
        confirm(objective, small_data(), losses)


def test_a_pass_over_few_samples_leaves_it_to_others() -> None:
    objective, losses = unconfirmed(Counted())
    confirm(objective, small_data(4), losses[:4])
    assert objective.is_unconfirmed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_is_that_of_the_coarsest_dtype_in_the_model(dtype: torch.dtype) -> None:
    """Kernels for few samples round differently: here by a part in a thousand."""

    def rounded(model: nn.Module, batch: Any) -> Tensor:
        losses = Counted()(model.float(), (batch[0].float(), batch[1]))
        model.to(dtype)
        return losses * (1 + 1e-3 * (len(losses) < 5))

    objective, losses = unconfirmed(rounded)
    assert losses.dtype == torch.float32
    if dtype == torch.float32:
        with pytest.raises(OutdatedError):
            confirm(objective, small_data(), losses)
    else:
        confirm(objective, small_data(), losses)
        assert not objective.is_unconfirmed
