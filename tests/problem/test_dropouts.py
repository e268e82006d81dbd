"""Draws that are dropout alone are told from others, and then cost few evaluations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.problem.dropouts import WithoutDropout, is_dropout_alone
from gradnoise.problem.objective import Objective
from gradnoise.problem.problem import Problem
from gradnoise.problem.unit import Seeded, Unit
from tests.unit_cases import CE, X, Y, mlp

COUNT = 7


class Acts(nn.Module):
    """Acts on its input by a function, with a weight of as many rows as there are samples."""

    def __init__(self, act: Any) -> None:
        super().__init__()
        self.act, self.weight = act, nn.Parameter(torch.randn(COUNT, 5).double())

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self, x)  # type: ignore[no-any-return]


def attended(module: Any, x: Tensor) -> Tensor:
    rows = x[:, None, None].expand(-1, 1, 3, -1)
    return F.scaled_dot_product_attention(rows, rows, rows, dropout_p=0.2)[:, 0, 0]


ALONE: dict[str, Any] = {
    "a layer": lambda module, x: F.dropout(x, 0.2),
    "two": lambda module, x: F.dropout(F.dropout(x, 0.2).tanh(), 0.5),
    "attention": attended,
    "alpha": lambda module, x: F.alpha_dropout(x, 0.3, training=True),
    "by name": lambda module, x: F.dropout(input=x, p=0.2),
    "nothing is dropped": lambda module, x: F.dropout(x, 0.2, training=False),
}
NOT_ALONE: dict[str, Any] = {
    "noise": lambda module, x: F.dropout(x, 0.2) + torch.randn_like(x),
    "noise before": lambda module, x: F.dropout(x + torch.randn_like(x), 0.2),
    "a weight with as many rows": lambda module, x: x + F.dropout(module.weight, 0.2).sum(0),
    "the mask of a row for all": lambda module, x: x * F.dropout(torch.ones_like(x), 0.5)[:1],
    "a mean mask for all": lambda module, x: x * F.dropout(torch.ones_like(x), 0.5).mean(0),
    "in place": lambda module, x: F.dropout(x * 1, 0.2, inplace=True),
    "a mask for all": lambda module, x: x * F.dropout(torch.ones(5).double(), 0.2),
}


def opened(act: Any) -> tuple[Objective, Seeded]:
    torch.manual_seed(0)
    model = mlp(Acts(act)).double()
    objective = Objective(model, gn.supervised(CE), Unit(is_replayed=True))
    batch = (X[:COUNT].double(), Y[:COUNT])
    return objective, Seeded(batch, torch.zeros(COUNT, dtype=torch.long))


@pytest.mark.parametrize("case", [*ALONE, *NOT_ALONE])
def test_dropout_of_rows_is_told_from_other_draws(case: str) -> None:
    objective, batch = opened({**ALONE, **NOT_ALONE}[case])
    with objective.guard():
        assert is_dropout_alone(objective, batch) is (case in ALONE)


@pytest.mark.parametrize("case", ALONE)
def test_without_it_nothing_is_random(case: str) -> None:
    objective, batch = opened(ALONE[case])
    with objective.guard(), WithoutDropout():
        first = objective.losses(batch)
        again = objective.losses(Seeded(batch.batch, batch.seeds + 1))
    assert torch.equal(first, again)


def test_generators_of_the_users_own_are_not_seen_and_not_trusted() -> None:
    source = torch.Generator().manual_seed(0)
    model = mlp(Acts(lambda module, x: x * torch.rand((), generator=source))).double()
    model.source = source
    objective = Objective(model, gn.supervised(CE), Unit(is_replayed=True))
    with objective.guard():
        assert not is_dropout_alone(objective, opened(ALONE["two"])[1])


def test_a_model_with_dropout_is_evaluated_few_times() -> None:
    model, calls = mlp(nn.Dropout(0.3)), []
    model.register_forward_hook(lambda *_: calls.append(1))
    found = Problem.open(model, gn.supervised(CE), (X, Y))
    assert found.unit.is_replayed
    assert not found.unit.is_group
    assert len(calls) < 25  # a hundred where something else draws


def test_samples_that_are_coupled_beside_dropout_are_still_seen() -> None:
    for act in (
        lambda module, x: F.dropout(x, 0.3) / len(x),
        lambda module, x: F.dropout(x, 0.3) - x.mean(0),
    ):
        with pytest.raises(gn.CoupledSamplesError):
            gn.measure(mlp(Acts(act)).double(), CE, (X.double(), Y), unit="sample")


def test_a_loss_that_compares_two_draws_is_measured_as_before() -> None:
    """Without dropout it is the logarithm of zero."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        first, second = model(batch[0]), model(batch[0])
        return F.cross_entropy(first, batch[1], reduction="none") + 0.1 * (
            (first - second).square().sum(1).log()
        )

    width, classes = X.shape[1], 1 + int(Y.max())
    model = nn.Sequential(nn.Linear(width, 64), nn.Dropout(0.5), nn.Linear(64, classes)).double()
    found = gn.measure(model, loss, (X.double(), Y), unit="sample")
    assert found.problem.unit.is_replayed


def test_a_model_that_refuses_other_numbers_of_samples_is_looked_at_as_before() -> None:
    def pairs(module: Any, x: Tensor) -> Tensor:
        return F.dropout(x, 0.2).view(2, -1, 5).reshape(-1, 5)

    assert gn.measure(mlp(Acts(pairs)).double(), CE, (X.double(), Y), unit="sample")
