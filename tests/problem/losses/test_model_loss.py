"""The loss that a model returns itself."""

from __future__ import annotations

from collections import UserDict, namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradnoise import LossError, model_loss
from gradnoise.problem.losses.model_loss import loss_of
from tests.language import LABELS, MASKED_LABELS, PADDED, TARGET, bart, experts, llama, masked_model

Terms = namedtuple("Terms", ["loss", "penalty"])
LOSS, X, Y = torch.tensor(2.0), torch.randn(4, 3), torch.randn(4, 3)

RETURNED: dict[str, Any] = {
    "a number": LOSS,
    "an output with a loss": SimpleNamespace(loss=LOSS, logits=X),
    "a mapping": {"logits": X, "loss": LOSS},
    "logits and loss": (X, LOSS),
    "loss and logits": [LOSS, X],
    "loss and nothing": (LOSS, None),
    "a named tuple": Terms(LOSS, torch.tensor(1.0)),
    "a loss of one device": SimpleNamespace(loss=LOSS.reshape(1)),
}
WITHOUT: dict[str, Any] = {
    "predictions": (
        X,
        r"^Model returned Tensor of shape \(4, 3\): .* as its loss, where one",
    ),
    "one prediction": (X[0, :1], r"Tensor of shape \(1,\)"),
    "logits alone": (SimpleNamespace(loss=None, logits=X), r"SimpleNamespace: no loss.*the labels"),
    "no targets": (
        (X, None),
        r"tuple \(Tensor of shape \(4, 3\), NoneType\): no loss.*Give it",
    ),
    "two numbers": ((LOSS, LOSS), r"no loss, where one number.*picks the loss out"),
    "detection": (
        {"loss_box": LOSS, "loss_class": LOSS},
        r"dict with loss_box, loss_class: no loss",
    ),
    "a loss per sample": (SimpleNamespace(loss=X[:, 0]), r"Tensor of shape \(4,\) as its loss"),
    "a number of Python": (2.0, "returned float: no loss"),
}


@pytest.mark.parametrize("form", RETURNED)
def test_the_loss_is_found_in_what_a_model_returns(form: str) -> None:
    loss = loss_of(RETURNED[form], "Model")
    assert loss.shape == ()
    assert loss == 2


@pytest.mark.parametrize("form", WITHOUT)
def test_where_there_is_no_loss_it_is_an_error(form: str) -> None:
    output, message = WITHOUT[form]
    with pytest.raises(LossError, match=message):
        loss_of(output, "Model")


class NanoGPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        if targets is None:
            return self.scale * idx[:, -1:], None
        return self.scale * idx, (self.scale * idx - targets).square().mean()


class Whole(nn.Module):
    """Takes its batch apart itself."""

    def forward(self, batch: Any) -> Tensor:
        x, y = batch.values() if hasattr(batch, "values") else batch
        return (x - y).square().mean()


class Diffusion(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.square().mean()


SQUARE = (X - Y).square().mean()
CALLED: dict[str, Any] = {
    "a tuple in order": (NanoGPT(), (X, Y), SQUARE),
    "a list in order": (NanoGPT(), [X, Y], SQUARE),
    "a mapping by name": (NanoGPT(), {"targets": Y, "idx": X}, SQUARE),
    "a mapping of another class": (NanoGPT(), UserDict(idx=X, targets=Y), SQUARE),
    "a tensor": (Diffusion(), X, X.square().mean()),
    "a tuple of one": (Diffusion(), (X,), X.square().mean()),
    "a whole tuple": (Whole(), (X, Y), SQUARE),
    "a whole mapping": (Whole(), {"x": X, "y": Y}, SQUARE),
    "a whole mapping, its name": (Whole(), {"batch": (X, Y)}, SQUARE),
}


@pytest.mark.parametrize("form", CALLED)
def test_a_batch_is_given_to_the_model_as_it_takes_it(form: str) -> None:
    model, batch, expected = CALLED[form]
    torch.testing.assert_close(model_loss()(model, batch), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("model", "batch", "message", "cure"),
    [
        (NanoGPT(), {"input_ids": X, "labels": Y}, r"entries input_ids, labels cannot", (X, Y)),
        (NanoGPT(), (X, Y, Y), r"got tuple of 3, whose entries cannot.*many positional", (X, Y)),
        (nn.Bilinear(3, 3, 1), X, r"got Tensor of shape \(4, 3\), which cannot.*'input2'", None),
        (NanoGPT(), X, r"NanoGPT returned tuple.*Give it the labels or targets", (X, Y)),
    ],
)
def test_what_the_model_does_not_take_is_an_error_whose_cure_works(
    model: Any, batch: Any, message: str, cure: Any
) -> None:
    with pytest.raises(LossError, match=message):
        model_loss()(model, batch)
    if cure is not None:
        assert model_loss()(model, cure).shape == ()


def test_a_loss_fn_that_picks_the_loss_is_the_other_cure() -> None:
    loss_fn = lambda model, batch: sum(model(batch).values())  # noqa: E731
    detector = lambda batch: {"loss_box": batch.mean(), "loss_class": batch.sum()}  # noqa: E731
    assert loss_fn(detector, X).shape == ()


@pytest.mark.parametrize(
    ("build", "labels"),
    [(masked_model, MASKED_LABELS), (llama, LABELS), (experts, LABELS), (bart, TARGET)],
)
def test_the_loss_is_that_of_hugging_face_itself(build: Any, labels: Tensor) -> None:
    model, batch = build().eval(), {**PADDED, "labels": labels}
    loss = model_loss()(model, batch)
    assert loss.requires_grad
    assert torch.equal(loss, model(**batch).loss)


def test_hugging_face_may_return_tuples() -> None:
    model, batch = masked_model(return_dict=False).eval(), {**PADDED, "labels": MASKED_LABELS}
    loss, _logits = model(**batch)
    assert torch.equal(model_loss()(model, batch), loss)
