"""Graphs are kept within a budget, and while no parameter or buffer has changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.operators.hessian import HessianGraph
from gradnoise.problem.objective import Objective
from tests import oracles
from tests.cases import CASES, labelled
from tests.dense import CLOSE, dense


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    """The arguments of every call of a method from now on."""
    calls, method = [], getattr(owner, name)

    def counting(self: Any, *args: Any) -> Any:
        calls.append(args)
        return method(self, *args)

    monkeypatch.setattr(owner, name, counting)
    return calls


def test_graphs_are_kept_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    model, loss_fn, batch = CASES[0].build()
    built = counted(monkeypatch, HessianGraph, "__init__")
    vector = torch.ones(43)
    for budget, later in ((2**30, []), (0, [2, 2, 2]), (1800, [2])):
        hessian = gn.Hessian(model, loss_fn, batch, hvp="kept", memory_budget=budget, micro_batch=2)
        first = hessian @ vector
        built.clear()
        torch.testing.assert_close(hessian @ vector, first)
        assert [len(part[0]) for _, part in built] == later, budget


def test_kept_graphs_do_not_outlive_the_parameters() -> None:
    model, loss_fn, batch = CASES[0].build()
    hessian, vector = gn.Hessian(model, loss_fn, batch), torch.ones(43)
    hessian @ vector
    with torch.no_grad():
        model[0].weight.mul_(2)
    truth = oracles.dense(model, loss_fn, batch).hessian
    torch.testing.assert_close(dense(hessian), truth, **CLOSE)
    model[2].weight.data = model[2].weight.data * 3
    truth = oracles.dense(model, loss_fn, batch).hessian
    torch.testing.assert_close(dense(hessian), truth, **CLOSE)


MOVES: dict[str, Any] = {
    "a fused optimizer": lambda m: torch.optim.AdamW(m.parameters(), lr=0.1, fused=True).step(),
    "data in place": lambda m: [p.data.mul_(1.5) for p in m.parameters()],
    "NumPy": lambda m: [
        np.multiply(p.detach().numpy(), 2, p.detach().numpy()) for p in m.parameters()
    ],
}


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("kind", [gn.Hessian, gn.GaussNewton])
def test_kept_graphs_follow_parameters_that_move_unseen(kind: Any, name: str) -> None:
    model, loss_fn, batch = CASES[0].build()
    matrix = kind(model, loss_fn, batch)
    matrix @ torch.ones(43)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    MOVES[name](model)
    torch.testing.assert_close(dense(matrix), dense(kind(model, loss_fn, batch)), **CLOSE)


@pytest.mark.parametrize("hvp", ["kept", "fresh"])
def test_values_are_compared_once_per_guard_and_only_where_graphs_are_kept(
    hvp: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, loss_fn, batch = CASES[0].build()
    hessian = gn.Hessian(model, loss_fn, batch, hvp=hvp, micro_batch=2)
    compared = counted(monkeypatch, Objective, "fingerprint")
    expected = int(hvp == "kept")
    for products in range(1, 4):
        hessian @ torch.ones(43)
        assert len(compared) == expected * products
    compared.clear()
    with hessian.problem.guard():
        for _ in range(3):
            hessian @ torch.ones(43, 5)
    assert len(compared) == expected


def test_unchanged_values_keep_their_graphs_though_they_were_written_again() -> None:
    model, loss_fn, batch = CASES[0].build()
    hessian = gn.Hessian(model, loss_fn, batch)
    hessian @ torch.ones(43)
    cache = hessian._products._graphs
    first = dict(cache._kept)
    model[0].weight.data = model[0].weight.data.clone()  # other memory, same version, same bits
    hessian @ torch.ones(43)
    assert cache._kept == first
    with torch.no_grad():
        model[0].weight.add_(1)
    hessian @ torch.ones(43)
    assert cache._kept.keys() == first.keys()
    assert all(cache._kept[index] is not graph for index, graph in first.items())


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 3)).double().eval()


BUFFERS: dict[str, Any] = {
    "copy": lambda m: m[1].running_mean.copy_(torch.arange(3.0)),
    "data": lambda m: m[1].running_var.data.mul_(4),
    "replaced": lambda m: setattr(m[1], "running_var", torch.full((3,), 0.3).double()),
    "a pass in training mode": lambda m: (m.train(), m(labelled()[0]), m.eval()),
}


@pytest.mark.parametrize("name", BUFFERS)
@pytest.mark.parametrize("kind", [gn.Hessian, gn.GaussNewton])
def test_kept_graphs_follow_buffers(kind: Any, name: str) -> None:
    model, batch = normed(), labelled()
    matrix = kind(model, nn.CrossEntropyLoss(), batch)
    before = dense(matrix)
    BUFFERS[name](model)
    after = dense(matrix)
    assert float((after - before).norm()) > 1e-3 * float(before.norm())
    torch.testing.assert_close(after, dense(kind(model, nn.CrossEntropyLoss(), batch)), **CLOSE)
