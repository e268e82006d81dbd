"""Models are called with what their `forward` takes, and errors say what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradnoise import LossError
from gradnoise.problem.losses.call import call, takes, takes_one_thing


class Sum(nn.Module):
    def forward(self, first: Tensor, second: Tensor, scale: float = 1.0) -> Tensor:
        return scale * (first + second)


class Anything(nn.Module):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise TypeError("inside")


ONE, TWO = torch.ones(2), torch.full((2,), 2.0)
PARALLEL = nn.DataParallel(Sum())  # as DistributedDataParallel, it holds the model as `module`
COMPILED = torch.compile(Sum(), backend="eager")


def test_a_model_is_called_by_order_and_by_name() -> None:
    assert torch.equal(call(Sum(), (ONE,), {"second": TWO}, "got"), ONE + TWO)


@pytest.mark.parametrize(
    ("args", "kwargs", "reason"),
    [
        ((ONE,), {}, "missing a required argument: 'second'"),
        ((ONE, TWO, 1.0, 1.0), {}, "too many positional arguments"),
        ((ONE, TWO), {"mask": ONE}, "got an unexpected keyword argument 'mask'"),
    ],
)
@pytest.mark.parametrize("model", [Sum(), PARALLEL, COMPILED], ids=["bare", "parallel", "compiled"])
def test_what_forward_does_not_take_is_an_error(
    model: Any, args: Any, kwargs: Any, reason: str
) -> None:
    message = rf"^got a batch cannot be given to Sum.forward\(first, second, scale\): {reason}. Let"
    with pytest.raises(LossError, match=message):
        call(model, args, kwargs, "got a batch")


def test_an_error_inside_forward_stays_what_it_is() -> None:
    with pytest.raises(TypeError, match="inside"):
        call(Fails(), (ONE,), {}, "got a batch")


def test_whether_a_model_takes_arguments_is_read_from_its_forward() -> None:
    assert takes(Sum(), ONE, TWO)
    assert takes(COMPILED, first=ONE, second=TWO)
    assert not takes(PARALLEL, ONE)
    assert not takes(Sum(), ONE, second=TWO, third=TWO)
    assert takes(Anything(), *range(9), any=1)


def test_one_thing_is_a_single_argument_and_no_list_of_them() -> None:
    assert takes_one_thing(nn.Linear(1, 1))
    assert not takes_one_thing(Sum())
    assert not takes_one_thing(Anything())


def test_a_forward_without_a_signature_takes_what_it_takes() -> None:
    scripted = torch.jit.script(nn.Linear(1, 1))
    assert takes(scripted, ONE)
    with pytest.raises(Exception, match=r"(?s)."):
        call(scripted, (), {}, "got nothing")
