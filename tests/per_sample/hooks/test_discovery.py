"""Samples that data put in order before an operation: every batch is looked at."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

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
