"""Operations seen as torch runs them, and the steps of a plan taken again."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.per_sample.choice import choose
from gradnoise.per_sample.contract.summary import Wanted
from gradnoise.per_sample.hooks.backward import BackwardPass
from gradnoise.problem.objective import Objective
from tests.cases import labelled, mlp
from tests.engines import agree, choose_engine
from tests.layer_cases import Function, squares


def test_compiled_models_run_the_code_that_was_compiled() -> None:
    model, loss_fn, batch = mlp().double(), nn.CrossEntropyLoss(), labelled()
    plain = gn.per_sample_sq_norms(model, loss_fn, batch)
    compiled = torch.compile(model, backend="eager")
    compiled(batch[0])
    assert choose_engine(compiled, loss_fn, batch) == "hooks"
    torch.testing.assert_close(gn.per_sample_sq_norms(compiled, loss_fn, batch), plain)
    inside = nn.Sequential(
        torch.compile(nn.Linear(4, 4), backend="eager"), nn.Linear(4, 3)
    ).double()
    assert choose_engine(inside, loss_fn, batch) == "hooks"


CHANGING: dict[str, Any] = {
    "bias at times": lambda s, x, turn: torch.nn.functional.linear(x, s.w, *([s.b] * turn)),
    "weight and then bias": lambda s, x, turn: torch.nn.functional.layer_norm(
        x, (4,), *((s.p, None) if turn else (None, s.p))
    ),
    "another order": lambda s, x, turn: torch.mul(x, s.p) if turn else torch.mul(s.p, x),
    "one head at a time": lambda s, x, turn: [x @ s.w.T, x @ (s.v.T + 1)][turn],
}


@pytest.mark.parametrize("name", CHANGING)
def test_arguments_that_change_from_batch_to_batch_are_followed(name: str) -> None:
    def forward(self: Any, x: Tensor, which: Tensor) -> Tensor:
        return CHANGING[name](self, x, int(which[0]))

    model = Function(forward, w=(3, 4), v=(3, 4), b=(3,), p=(4,)).double()
    batches = [(torch.randn(9, 4).double(), torch.full((9,), i % 2)) for i in range(3)]
    assert agree(model, squares, batches) == "hooks"


@pytest.mark.parametrize("samples", [1, 2, 9])
def test_what_was_of_parameters_alone_until_samples_are_written_into_it(samples: int) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        hidden = self.p.repeat(len(x), 1)
        hidden += self.a(x)
        return self.b(hidden)

    model = Function(forward, p=(1, 3), a=nn.Linear(4, 3), b=nn.Linear(3, 2)).double()
    objective = Objective(model, squares)
    with objective.guard():
        engine = choose(objective, torch.randn(samples, 4).double())
        assert engine.name == "hooks"
        list(engine.summaries(torch.randn(samples, 4).double(), Wanted()))
    gc.collect()
    assert not [item for item in gc.get_objects() if type(item) is BackwardPass]
    agree(model, squares, [(torch.randn(max(samples, 2), 4).double(),)] * 2)
