"""Objects of training frameworks."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
from torch import nn

import gradnoise as gn
from gradnoise.integrations.objects import group_of, is_of, replace


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self, number: int) -> int:
        self.count += number
        return self.count


def twice(method: Any) -> Any:
    return lambda number: method(2 * number)


def test_a_method_is_replaced_for_one_object_and_put_back() -> None:
    one, other = Counter(), Counter()
    put_back = replace(one, "add", twice)
    assert (one.add(1), other.add(1)) == (2, 1)
    put_back()
    assert one.add(1) == 3
    assert "add" not in vars(one)


def test_what_the_user_has_put_there_comes_back() -> None:
    one = Counter()
    mine = twice(one.add)
    one.add = mine  # type: ignore[method-assign]
    replace(one, "add", twice)()
    assert vars(one)["add"] is mine


def test_a_wrapper_of_somebody_else_stays() -> None:
    one = Counter()
    put_back = replace(one, "add", twice)
    replace(one, "add", twice)
    put_back()
    assert one.add(1) == 4


def test_a_class_is_known_by_its_name_and_package() -> None:
    class Mine(OrderedDict[str, int]):
        """Of a class that was made from the known one."""

    assert is_of(Mine(), "collections", "OrderedDict")
    assert not is_of({}, "collections", "OrderedDict")
    assert not is_of(Mine(), "collect", "OrderedDict")


def test_one_process_has_no_group() -> None:
    assert group_of(nn.Linear(2, 1), 1) is None


class DeepSpeedEngine(nn.Linear):
    """A wrapper that keeps the gradients to itself."""


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("kind", [nn.DataParallel, DeepSpeedEngine])
def test_models_that_are_shared_in_other_ways_are_refused(kind: Any, processes: int) -> None:
    model = kind(nn.Linear(2, 1)) if kind is nn.DataParallel else kind(2, 1)
    with pytest.raises(gn.ArgumentError, match="sharded or replicated in another way"):
        group_of(model, processes)


def test_a_model_of_one_of_several_processes_is_refused() -> None:
    with pytest.raises(gn.ArgumentError, match="sharded or replicated in another way"):
        group_of(nn.Linear(2, 1), 2)
