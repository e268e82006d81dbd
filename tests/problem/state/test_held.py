"""What a function holds is found under the name that it has there."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from gradnoise.problem.state.held import held_by


def plain(_model: Any, _batch: Any, default: int = 1, *, keyword: int = 2) -> None: ...


class Loss:
    def __init__(self) -> None:
        self.own = 3

    def method(self, _model: Any, _batch: Any) -> None: ...


def closing_over(closed: int) -> Any:
    def loss(_model: Any, _batch: Any) -> Any:
        return closed, later

    if closed < 0:
        later = 0  # never bound here
    return loss


def marked() -> Any:
    loss = closing_over(4)
    loss.mark = 5
    return loss


@pytest.mark.parametrize(
    ("function", "held"),
    [
        (plain, {"default": 1, "keyword": 2}),
        (functools.partial(plain, 6, default=7), {"default": 1, "argument 0": 6, "keyword": 2}),
        (Loss().method, {"own": 3}),
        (marked(), {"closed": 4, "mark": 5}),
    ],
    ids=["defaults", "arguments", "object", "closure"],
)
def test_everything_has_a_name(function: Any, held: dict[str, int]) -> None:
    found = list(held_by(function))
    assert set(held.items()) <= {(name, item) for name, item in found if isinstance(item, int)}


def test_bound_arguments_come_before_defaults() -> None:
    held = held_by(functools.partial(plain, default=7))
    assert [item for name, item in held if name == "default"] == [7, 1]
