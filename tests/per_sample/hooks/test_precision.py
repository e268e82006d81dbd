"""How finely a model computes: autocast around it and within it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.per_sample.choice import choose
from gradnoise.per_sample.hooks.precision import allowed, largest_of, resolution
from gradnoise.problem.objective import Objective
from tests import oracles
from tests.cases import labelled
from tests.engines import choose_engine
from tests.layer_cases import first


def test_autocast_inside_the_loss_is_followed() -> None:
    model, (inputs, labels) = (
        nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3)),
        labelled(),
    )

    def loss(model: nn.Module, batch: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(batch[0])
        return F.cross_entropy(outputs.float(), batch[1], reduction="none")

    batch = inputs.float(), labels
    singles = oracles.dense(model, loss, batch, second=False).gradients.double()
    assert choose_engine(model, loss, batch) == "hooks"
    norms = gn.per_sample_sq_norms(model, loss, batch)
    torch.testing.assert_close(norms, singles.square().sum(1), rtol=0.03, atol=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(4, 4),
        lambda: torch.compile(nn.Linear(4, 4), backend="eager"),
        lambda: first(nn.MultiheadAttention(4, 2, batch_first=True)),
        lambda: first(nn.LSTM(4, 4, batch_first=True)),
    ],
    ids=["linear", "compiled", "attention", "lstm"],
)
@pytest.mark.parametrize("engine", ["auto", "functional", "loop"])
def test_autocast_within_parts_is_noticed(make: Any, engine: str) -> None:
    model, batch = make(), torch.randn(9, 5, 4)
    given = 3 if isinstance(getattr(model, "inner", None), nn.MultiheadAttention) else 1

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(*[x] * given)
        return outputs.float().square().sum((1, 2))

    objective = Objective(model, loss)
    with objective.guard():
        chosen = choose(objective, batch, engine)
    assert chosen.eps == torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize("engine", ["auto", "hooks", "functional", "loop"])
@pytest.mark.parametrize("outside", [True, False])
def test_autocast_is_no_coupling(engine: str, outside: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.PReLU(64), nn.Linear(64, 3))
    x, y = torch.randn(9, 6), torch.randint(3, (9,))

    def loss(model: nn.Module, batch: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=not outside):
            outputs = model(batch[0])
        return F.cross_entropy(outputs.float(), batch[1], reduction="none")

    truth = oracles.dense(model, loss, (x, y), second=False).gradients
    with torch.autocast("cpu", torch.bfloat16, enabled=outside):
        norms = gn.per_sample_sq_norms(model, plain if outside else loss, (x, y), engine=engine)
    torch.testing.assert_close(norms, truth.double().square().sum(1), rtol=0.1, atol=0)


def plain(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]).float(), batch[1], reduction="none")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_resolution_is_that_of_the_coarsest_operation(dtype: torch.dtype) -> None:
    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).to(dtype).double().sum(1)

    objective = Objective(nn.Linear(4, 3).double(), loss)
    with objective.guard():
        assert resolution(objective, torch.randn(2, 4).double()) == torch.finfo(dtype).eps


def test_the_largest_entry_is_finite_and_of_any_tensor() -> None:
    assert largest_of([torch.tensor([1.0, math.inf]), torch.tensor([3.0, math.nan])]) == 3
    assert largest_of([torch.zeros(0)]) == 0
    assert largest_of([]) == 0


def test_what_may_differ_grows_with_the_size_and_the_rounding() -> None:
    size, eps = torch.tensor([0.0, 2.0, math.inf]), 1e-6
    expected = 1e-3 * (torch.tensor([0.0, 2.0, 0.0]) + 2 / 3) + 64 * eps * 5
    torch.testing.assert_close(allowed(size, 5.0, eps), expected)
