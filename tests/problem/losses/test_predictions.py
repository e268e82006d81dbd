"""The tensor that a criterion compares is the one that cannot be mistaken."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradnoise import LossError, model_loss, supervised
from gradnoise.problem.losses.predictions import logits_of, predictions

X, OTHER, STATE = torch.zeros(4, 3), torch.zeros(4, 2), torch.zeros(1, 5)


@dataclass
class Sample:
    sample: Tensor


@dataclass
class Logits:
    logits: Tensor
    hidden: Tensor | None = None
    aux_loss: Tensor | None = None


Heads = namedtuple("Heads", ["logits", "aux_logits"])
ACCEPTED: dict[str, Any] = {
    "tensor": X,
    "an object with logits": SimpleNamespace(logits=X, anything=1),
    "a dataclass with logits": Logits(X, OTHER),
    "the only field of a dataclass": Sample(X),
    "segmentation": {"out": X},
    "logits of a mapping": {"features": OTHER, "logits": X},
    "the only entry of a mapping": {"depth": X},
    "a named tuple, other heads off": Heads(X, None),
    "a tuple of one": (X,),
    "a prediction and a state": (X, STATE),
    "a prediction and nothing": (X, None),
    "a prediction and the states of an LSTM": [X, (OTHER, OTHER)],
}
REFUSED: dict[str, Any] = {
    "nothing": (None, "returned NoneType, and a criterion does not say"),
    "two heads": ((X, X), r"returned tuple \(Tensor of shape \(4, 3\), Tensor of shape \(4, 3\)\)"),
    "a mean and a variance": ((X, OTHER), r"returned tuple"),
    "a loss to be added": ((X, torch.tensor(1.0)), r"returned tuple.*gn\.model_loss\(\)"),
    "a loss first": ((torch.tensor(1.0), X), r"returned tuple.*gn\.model_loss\(\)"),
    "an empty tuple": ((), r"returned tuple \(\)"),
    "several entries": (
        {"mean": X, "scale": X},
        r"returned dict with mean, scale.*Write a loss",
    ),
    "an auxiliary head": ({"out": X, "aux": X}, r"returned dict with out, aux"),
    "auxiliary logits": (Heads(X, X), r"returned Heads with logits, aux_logits"),
    "an auxiliary loss": (Logits(X, None, torch.tensor(1.0)), r"with logits, aux_loss.*model_loss"),
    "logits that are no tensor": (SimpleNamespace(logits=[X]), r"returned SimpleNamespace"),
    "two names": ({"out": X, "logits": X}, r"returned dict with out, logits"),
}


@pytest.mark.parametrize("form", ACCEPTED)
def test_outputs_that_can_be_read_in_one_way(form: str) -> None:
    assert predictions(ACCEPTED[form]) is X


@pytest.mark.parametrize("form", REFUSED)
def test_outputs_that_could_be_misread_are_an_error(form: str) -> None:
    outputs, message = REFUSED[form]
    with pytest.raises(LossError, match=message):
        predictions(outputs)


def test_logits_are_a_tensor_or_the_logits_of_an_output() -> None:
    assert logits_of(X) is X
    assert logits_of(Logits(X, None, torch.tensor(1.0))) is X
    with pytest.raises(LossError, match=r"returns a tensor; this one returned tuple\. If.*model_l"):
        logits_of((X,))


def test_the_cures_work() -> None:
    class Heads(nn.Module):
        def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
            out = {"out": x, "aux": 2 * x}
            loss = None if y is None else F.mse_loss(x, y) + 0.5 * F.mse_loss(2 * x, y)
            return {"loss": loss, **out}

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        outputs = model(batch[0])
        losses = [F.mse_loss(outputs[name], batch[1], reduction="none") for name in ("out", "aux")]
        return (losses[0] + 0.5 * losses[1]).mean(1)

    batch = torch.rand(4, 3), torch.rand(4, 3)
    with pytest.raises(LossError, match=r"returned dict with out, aux"):
        supervised(nn.MSELoss())(Heads(), batch)
    assert loss_fn(Heads(), batch).shape == (4,)
    torch.testing.assert_close(loss_fn(Heads(), batch).mean(), model_loss()(Heads(), batch))
