"""A loss of another model than the one that is measured is refused, and that model is named."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from tests.cases import labelled, mlp

GLOBAL = mlp().double()


def losses(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def of_global(_model: nn.Module, batch: Any) -> Tensor:
    return losses(GLOBAL, batch)


class Trainer:
    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def of_object(self, _model: nn.Module, batch: Any) -> Tensor:
        return losses(self.net, batch)

    def __call__(self, _model: nn.Module, batch: Any) -> Tensor:
        return losses(self.net, batch)


def of_argument(_model: nn.Module, batch: Any, ema: nn.Module = GLOBAL) -> Tensor:
    return losses(ema, batch)


def of_keyword(_model: nn.Module, batch: Any, *, teacher: nn.Module) -> Tensor:
    return losses(teacher, batch)


def of_closure(model: nn.Module) -> Any:
    other = copy.deepcopy(model)
    return lambda _model, batch: losses(other, batch)


USED: dict[str, Any] = {
    "`other` (Sequential)": of_closure,
    "`GLOBAL` (Sequential)": lambda _: of_global,
    "`net` (Sequential)": lambda m: Trainer(copy.deepcopy(m)).of_object,
    "`ema` (Sequential)": lambda _: of_argument,
    "`teacher` (Sequential)": lambda m: functools.partial(of_keyword, teacher=copy.deepcopy(m)),
}


@pytest.mark.parametrize("name", USED)
def test_another_copy_of_the_model_is_named(name: str) -> None:
    model = mlp().double()
    loss_fn = USED[name](model)
    for call in (gn.profile, gn.gradient_moments, gn.sharpness, gn.covariance, gn.Hessian):
        with pytest.raises(gn.LossError, match="from another copy of the model") as error:
            call(model, loss_fn, labelled())
        assert name in str(error.value)


def test_an_object_with_the_model_is_seen() -> None:
    with pytest.raises(gn.LossError, match=r"`net` \(Sequential\)"):
        gn.profile(mlp().double(), Trainer(mlp().double()), labelled())


def test_the_cures_work() -> None:
    """Use the given model, or measure the other one."""
    model, batch = mlp().double(), labelled()
    other = copy.deepcopy(model)
    own = gn.profile(model, losses, batch).estimates
    assert gn.profile(other, lambda _, batch: losses(other, batch), batch).estimates == own


def test_other_tensors_are_told_without_a_name() -> None:
    weight = torch.ones(4, dtype=torch.float64, requires_grad=True)
    kept = [weight]
    with pytest.raises(gn.LossError, match="other tensors that require a gradient"):
        gn.profile(mlp().double(), lambda _, x: x @ kept[0], torch.randn(8, 4).double())


def test_inputs_that_require_a_gradient_are_no_weights() -> None:
    x, y = labelled()
    with pytest.raises(gn.LossError, match="other tensors that require a gradient"):
        gn.profile(mlp().double(), lambda _, batch: batch[0].sum(1), (x.requires_grad_(), y))


class Sometimes(nn.Module):
    """The first samples do not use the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([v * (self.weight[0] if v > 0 else v.exp()) for v in x])


def test_some_samples_may_be_without_weights() -> None:
    x = torch.tensor([-1.0, -2.0, 1.0, 3.0], requires_grad=True)
    found = gn.gradient_moments(Sometimes(), lambda m, b: m(b), x)
    assert float(found.trace_cov) == pytest.approx(2.0)  # of 0, 0, 1, 3
