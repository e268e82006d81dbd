"""How per-sample engines are held to single samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.per_sample.choice import choose
from gradnoise.per_sample.contract.summary import Summary, Wanted
from gradnoise.per_sample.hooks.engine import Hooks
from gradnoise.problem.objective import Objective
from tests import oracles


def rows(parts: dict[str, Tensor]) -> Tensor:
    return torch.cat([part.reshape(len(part), -1) for part in parts.values()], 1)


def flat(parts: dict[str, Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts.values()])


def summary(model: nn.Module, loss_fn: Any, batch: Any, wanted: Wanted | None = None) -> Summary:
    objective = Objective(model, loss_fn)
    with objective.guard():
        (found,) = Hooks(objective).summaries(batch, wanted or Wanted())
    return found


def choose_engine(model: nn.Module, loss_fn: Any, batch: Any) -> str:
    objective = Objective(model, loss_fn)
    with objective.guard():
        return choose(objective, batch).name


CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def agree(model: nn.Module, loss_fn: Any, batches: Any, engine: str = "auto") -> str:
    """Norms and moments are those of single samples; the engine that did it."""
    listed = batches if isinstance(batches, list) else [batches]
    dense = [oracles.dense(model, loss_fn, batch, second=False).gradients for batch in listed]
    truth = torch.cat(dense)
    moments = gn.gradient_moments(model, loss_fn, batches, engine=engine, variance=True)
    torch.testing.assert_close(moments.sq_norms, truth.square().sum(1), **CLOSE)
    assert float(moments.trace_cov) == pytest.approx(float(truth.var(0).sum()), rel=1e-9)
    norms = gn.per_sample_sq_norms(model, loss_fn, listed[-1], engine=engine)
    torch.testing.assert_close(norms, dense[-1].square().sum(1), **CLOSE)
    objective = Objective(model, loss_fn)
    with objective.guard():
        chosen = choose(objective, listed[0], engine)
        for batch in listed:
            list(chosen.chunks(batch))
    return chosen.name
