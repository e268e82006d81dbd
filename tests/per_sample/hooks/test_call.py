"""One operation with its arguments, also where it writes into its input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.per_sample.hooks.call import (
    Call,
    carry_out,
    is_in_place,
    name_of,
    out_of_place,
    results_of,
    tensors_of,
)
from tests.cases import features
from tests.engines import agree, summary
from tests.layer_cases import Function, squares


@pytest.mark.parametrize("name", ["add_", "mul_", "sub_"])
def test_parameters_added_in_place_are_followed(name: str) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        hidden = self.inner(x)
        view = hidden[:, :2]
        getattr(view, name)(self.w)
        return self.head(hidden.tanh())

    model = Function(forward, inner=nn.Linear(4, 4), head=nn.Linear(4, 2), w=(2,)).double()
    assert agree(model, squares, torch.randn(6, 4).double()) == "hooks"


def test_a_parameter_written_into_activations_is_refused() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.a(x)
        x[:, 0] = self.w
        return x

    model = Function(forward, a=nn.Linear(4, 3), w=()).double()
    with pytest.raises(gn.EngineError, match="written into a tensor in place, by setitem"):
        summary(model, squares, features())


def test_tensors_are_found_in_any_nesting_and_put_back_in_their_places() -> None:
    first, second, third = torch.zeros(2), torch.ones(2), torch.full((2,), 2.0)
    call = Call(torch.cat, ([first, (second,)], 1), {"out": third, "flag": True})
    assert [id(t) for t in call.tensors] == [id(first), id(second), id(third)]
    assert call.places == (0, "out")
    args, kwargs = call.arguments([third, first, second])
    assert args[0][0] is third
    assert args[0][1][0] is first
    assert args[1] == 1
    assert kwargs["out"] is second
    assert kwargs["flag"] is True
    assert [id(t) for t in tensors_of([{"a": first}.values(), [second]])] == [id(first), id(second)]


def test_a_call_runs_with_other_tensors() -> None:
    call = Call(torch.add, (torch.zeros(2), torch.ones(2)), {"alpha": 3})
    assert call.run(call.tensors).tolist() == [3, 3]
    assert call.run([torch.ones(2), torch.ones(2)]).tolist() == [4, 4]
    assert call.name == "add"


IN_PLACE = {
    Tensor.add_: Tensor.add,
    Tensor.__iadd__: Tensor.add,
    Tensor.mul_: Tensor.mul,
    Tensor.__setitem__: None,  # nothing of torch gives what it writes
    Tensor.add: Tensor.add,
    Tensor.__add__: Tensor.__add__,
}


@pytest.mark.parametrize("operation", IN_PLACE, ids=str)
def test_operations_in_place_have_twins_out_of_place(operation: Any) -> None:
    assert out_of_place(operation) == IN_PLACE[operation]
    assert is_in_place(operation) == (IN_PLACE[operation] is not operation)


def test_what_an_operation_changes_is_among_its_results() -> None:
    target = torch.zeros(2)
    changed = target.add_(1)
    assert [id(t) for t in results_of(Tensor.add_, (target,), changed)] == [id(target)] * 2
    assert results_of(Tensor.add, (target,), 3) == []
    assert name_of(Tensor.__iadd__) == "iadd"


def test_an_operation_in_place_is_seen_on_a_copy_and_written_back() -> None:
    target, seen = torch.ones(2), list[Tensor]()
    call = Call(Tensor.add_, (target, torch.ones(2)), {})

    def hook(output: Tensor) -> Tensor:
        assert call.func is Tensor.add
        seen.append(output)
        return output

    assert carry_out(call, hook) is target
    assert target.tolist() == [2, 2]
    assert seen[0] is not target
