"""Batches divided into the model's arguments and the target."""

from __future__ import annotations

from collections import UserDict, namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradnoise import LossError
from gradnoise.problem.losses.parts import TARGETS, Parts

A, B, Y = torch.ones(2), torch.full((2,), 2.0), torch.full((2,), 9.0)


class Two(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + 10 * b


class Optional(nn.Module):
    def forward(self, a: Any = None, b: Tensor | None = None) -> Any:
        return a, b


Named = namedtuple("Named", ["a", "b", "y"])
ACCEPTED: dict[str, Any] = {
    "pair": (nn.Identity(), (A, Y), A),
    "list of two": (nn.Identity(), [A, Y], A),
    "several inputs": (Two(), (A, B, Y), A + 10 * B),
    "named tuple": (Two(), Named(A, B, Y), A + 10 * B),
    "a tuple of inputs": (Two(), ((A, B), Y), A + 10 * B),
    "mapping by name": (Two(), {"b": B, "labels": Y, "a": A}, A + 10 * B),
    "mapping of another class": (Two(), UserDict(a=A, b=B, target=Y), A + 10 * B),
    "one entry of a foreign name": (nn.Identity(), {"pixels": A, "label": Y}, A),
    "one entry of a known name": (Optional(), {"b": B, "targets": Y}, (None, B)),
    "compiled": (torch.compile(Two(), backend="eager"), ((A, B), Y), A + 10 * B),
}


@pytest.mark.parametrize("form", ACCEPTED)
def test_a_batch_gives_the_models_arguments_and_the_target(form: str) -> None:
    model, batch, expected = ACCEPTED[form]
    parts = Parts.of(model, batch)
    assert parts.target is Y
    torch.testing.assert_close(parts.outputs(model), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", TARGETS)
def test_the_names_of_targets(name: str) -> None:
    assert Parts.of(nn.Identity(), {"input": A, name: Y}).target is Y


def test_a_tuple_stays_one_argument_where_forward_can_take_it_as_one() -> None:
    model = Optional()
    first, second = Parts.of(model, ((A, B), Y)).outputs(model)
    assert first == (A, B)
    assert second is None


REFUSED: dict[str, Any] = {
    "a tensor": (nn.Identity(), A, r"needs batches \(inputs, targets\); got Tensor.*pairs"),
    "one entry": (nn.Identity(), (A,), r"needs batches.*got tuple of 1\. Let the data"),
    "no target": (nn.Identity(), {"input": A, "z": Y}, r"keys input, z, none of which can be"),
    "two targets": (nn.Identity(), {"input": A, "y": Y, "label": Y}, r"label, 2 of which.*to noth"),
    "too many": (nn.Identity(), (A, B, Y), r"got tuple of 3, whose first 2 entries cannot be"),
    "too few": (Two(), (A, Y), r"got tuple of 2, whose first entry cannot.*argument: 'b'.*order"),
    "foreign names": (Two(), {"a": A, "c": B, "y": Y}, r"entries a, c cannot be given to Two.forw"),
    "no inputs": (Two(), {"y": Y}, r"mapping whose entries  ?cannot.*missing a required"),
}
CURES: dict[str, Any] = {
    "a tensor": (A, Y),
    "one entry": (A, Y),
    "no target": {"input": A, "labels": Y},
    "two targets": {"input": A, "y": Y},
    "too many": (A, Y),
    "too few": (A, B, Y),
    "foreign names": {"a": A, "b": B, "y": Y},
    "no inputs": {"a": A, "b": B, "y": Y},
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_cannot_be_divided_is_an_error_whose_cure_works(form: str) -> None:
    model, batch, message = REFUSED[form]
    with pytest.raises(LossError, match=message):
        Parts.of(model, batch).outputs(model)
    parts = Parts.of(model, CURES[form])
    assert isinstance(parts.outputs(model), Tensor)
    assert parts.target is Y
