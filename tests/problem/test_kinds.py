"""Data are read by what they are, and what cannot be read twice is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import gradnoise as gn
from gradnoise.problem.kinds import batches_in, kind_of
from tests.refusals import CE, X, Y, linear

DATA = TensorDataset(X, Y)


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(X)


class Batches:
    """A stream of the user's own."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter([X])


KINDS: dict[str, list[Any]] = {
    "loader": [DataLoader(DATA)],
    "dataset": [DATA, range(3)],
    "batches": [X, (X, Y), [X, Y], [(X, Y), (X, Y)], {"x": X}],
    "stream": [Stream(), Batches()],
}


@pytest.mark.parametrize(("kind", "data"), [(k, d) for k, own in KINDS.items() for d in own])
def test_every_kind_is_known(kind: str, data: Any) -> None:
    assert kind_of(data) == kind


def test_a_list_holds_batches_or_is_one() -> None:
    assert batches_in([(X, Y), (X, Y)]) == [(X, Y), (X, Y)]
    assert batches_in((X, Y)) == [(X, Y)]
    assert batches_in([X, Y]) == [[X, Y]]


REFUSED: dict[str, tuple[Any, str]] = {
    "generator": (((X, Y) for _ in range(3)), r"one-shot generator.*DataLoader"),
    "array": (np.zeros((3, 2)), r"got ndarray. Convert arrays with torch.as_tensor"),
    "text": ("data", r"got str"),
    "number": (3, r"must be a DataLoader.*got int"),
}


@pytest.mark.parametrize("unit", ["auto", "group"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_data_is_refused_whatever_the_unit(name: str, unit: str) -> None:
    data, message = REFUSED[name]
    with pytest.raises(gn.DataError, match=message):
        gn.gradient_moments(linear(), CE, data, unit=unit)


def test_a_refused_generator_has_not_been_used_up() -> None:
    source = iter([(X, Y), (X, Y)])
    with pytest.raises(gn.DataError, match="one-shot"):
        gn.gradient_moments(linear(), CE, source, unit="group")
    assert next(source)[0] is X


def test_an_empty_list_has_no_groups() -> None:
    with pytest.raises(gn.DataError, match="got 0 groups of 2 samples"):
        gn.gradient_moments(linear(), CE, [], unit="group")
