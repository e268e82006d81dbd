"""Samples that data put in order before an operation: every batch is looked at."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradnoise.per_sample.hooks.call import Call
from gradnoise.per_sample.hooks.discovery import Discovery
from gradnoise.per_sample.hooks.steps import DERIVE, USE, Sources, Step
from gradnoise.problem.objective import Objective
from tests.engines import agree
from tests.layer_cases import Function, squares

PICKED = {
    "tensors": lambda x, order: x[order],
    "a list": lambda x, order: x[order.tolist()],
    "gather": lambda x, order: x.gather(0, order[:, None].expand_as(x)),
    "take_along_dim": lambda x, order: torch.take_along_dim(x, order[:, None], 0),
}


@pytest.mark.parametrize("how", PICKED)
def test_an_order_of_one_batch_is_not_taken_for_the_next(how: str) -> None:
    def forward(self: Any, x: Tensor, lengths: Tensor) -> Tensor:
        order = torch.argsort(lengths, stable=True)
        hidden = self.inner(PICKED[how](x, order)).tanh()
        return self.head(PICKED[how](hidden, torch.argsort(order)))

    model = Function(forward, inner=nn.Linear(4, 4), head=nn.Linear(4, 2)).double()
    bucketed = torch.randn(40, 4).double(), torch.full((40,), 3)
    swapped = torch.arange(40)
    swapped[[20, 21]] = swapped[[21, 20]]
    agree(model, squares, [bucketed, (torch.randn(40, 4).double(), swapped)])


def test_samples_put_back_in_place_are_not_mistaken() -> None:
    def forward(self: Any, x: Tensor, lengths: Tensor) -> Tensor:
        order = lengths.argsort(stable=True)
        hidden = self.a(x[order])
        hidden[order] = hidden.clone()
        return self.c(hidden.tanh())

    model = Function(forward, a=nn.Linear(4, 4), c=nn.Linear(4, 3)).double()
    x = torch.randn(2, 24, 4).double()
    batches = [(x[0], torch.ones(24).long()), (x[1], torch.randperm(24))]
    agree(model, squares, batches)


@pytest.mark.parametrize("how", ["index_copy", "setitem", "index_put", "scatter"])
def test_samples_laid_out_by_data_are_looked_at_in_every_batch(how: str) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        hidden, place = self.a(x).tanh(), x[:, 0].argsort().argsort()
        laid = torch.zeros_like(hidden)
        if how == "index_copy":
            laid = laid.index_copy(0, place, hidden)
        elif how == "index_put":
            laid = laid.index_put((place,), hidden)
        elif how == "scatter":
            laid = laid.scatter(0, place[:, None].expand_as(hidden), hidden)
        else:
            laid[place] = hidden
        return self.b(laid)[place]

    model = Function(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 3)).double()
    x = torch.randn(40, 4).double()
    x = x[x[:, 0].argsort()]
    x[[2, 3]] = x[[3, 2]]
    agree(model, squares, x)


def discovered(model: nn.Module, batch: Any, own: frozenset[int] = frozenset()) -> Discovery:
    def run(call: Call, _sources: Sources, _step: Step) -> Any:
        return call.run(call.tensors)

    objective = Objective(model, squares)
    trace = Discovery(objective.parameters, run, [batch], own)
    trace.losses(objective, batch)
    return trace


ORDERS = {
    "slices": (lambda x: torch.cat([x[2:], x[:2]]), False),
    "masks": (lambda x: torch.cat([x[x[:, 0] > 0], x[x[:, 0] <= 0]]), True),
    "places": (lambda x: x[x[:, 0].argsort()], True),
    "a sort": (lambda x: x.sort(0)[0], True),
    "constant places": (lambda x: x[torch.arange(len(x))], False),
    "a list": (lambda x: x[x[:, 0].argsort().tolist()], True),
}


@pytest.mark.parametrize("name", ORDERS)
def test_samples_picked_by_their_own_values_are_noticed(name: str) -> None:
    pick, by_data = ORDERS[name]
    model = Function(lambda s, x: s.a(pick(x)), a=nn.Linear(4, 3)).double()
    x = torch.randn(6, 4).double()
    x[:3, 0], x[3:, 0] = 1, -1
    trace = discovered(model, x)
    assert trace.reorders == by_data


def test_an_order_after_the_last_operation_is_of_no_account() -> None:
    model = Function(lambda s, x: s.a(x)[x[:, 0].argsort()], a=nn.Linear(4, 3)).double()
    assert not discovered(model, torch.randn(6, 4).double()).reorders


def test_what_comes_from_parameters_alone_is_derived_unless_it_is_of_the_samples() -> None:
    model = Function(lambda s, x: x + s.w.expand(len(x), -1), w=(1, 4)).double()
    trace = discovered(model, torch.randn(6, 4).double())
    assert [step.kind for step in trace.steps] == [DERIVE, USE]
    assert list(trace.derived) == [0]
    assert trace.derived[0].shape == (6, 4)
    trace = discovered(model, torch.randn(6, 4).double(), frozenset([0]))
    assert trace.steps[0].kind == USE
    assert not trace.derived
