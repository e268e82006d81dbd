"""Nested batches and flat vectors."""

from __future__ import annotations

import types
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor

from gradnoise import DataError
from gradnoise.tensors import trees

Pair = namedtuple("Pair", "x y")
X, Y = torch.arange(6.0).reshape(3, 2), torch.arange(3)


def default(batch: dict[str, Tensor]) -> defaultdict[str, Tensor]:
    return defaultdict(lambda: X, batch)


NESTINGS = {
    "tensor": X,
    "tuple": (X, Y),
    "list": [X, Y],
    "namedtuple": Pair(X, Y),
    "dict": {"x": X, "y": Y},
    "OrderedDict": OrderedDict(x=X, y=Y),
    "defaultdict": default({"x": X}),
    "UserDict": UserDict({"x": X, "deep": {"y": (Y, [X])}}),
}


@pytest.mark.parametrize("name", NESTINGS)
def test_selecting_keeps_the_nesting_and_cuts_every_tensor(name: str) -> None:
    batch = NESTINGS[name]
    part = trees.select(batch, slice(0, 2))
    assert type(part) is type(batch)
    assert trees.sample_count(batch) == 3
    assert trees.sample_count(part) == 2
    for cut, whole in zip(trees.sample_leaves(part), trees.sample_leaves(batch), strict=True):
        assert torch.equal(cut, whole[:2])


def test_batches_are_joined_in_order() -> None:
    first, second = {"x": torch.ones(2, 3), "kind": "a"}, {"x": torch.zeros(1, 3), "kind": "a"}
    found = trees.joined([first, second])
    assert found["kind"] == "a"
    assert found["x"][:, 0].tolist() == [1, 1, 0]
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        trees.joined([first, {"x": torch.zeros(1, 4), "kind": "a"}])


def test_rebuilding_from_the_leaves_gives_the_batch_back() -> None:
    batch = {"x": X, "deep": (Y, "name", [X])}
    again = trees.rebuild(batch, trees.sample_leaves(batch))
    assert again["deep"][1] == "name"
    assert torch.equal(again["deep"][2][0], X)


@pytest.mark.parametrize("leaf", ["name", 7, None, 2.5, torch.tensor(4.0)])
def test_other_leaves_pass_through(leaf: Any) -> None:
    assert trees.select((X, leaf), slice(0, 1))[1] is leaf


def test_a_mapping_that_cannot_be_written_becomes_a_dict() -> None:
    part = trees.select(types.MappingProxyType({"x": X}), slice(0, 1))
    assert torch.equal(part["x"], X[:1])


def test_selecting_leaves_the_batch_alone() -> None:
    batch = {"x": X}
    trees.select(batch, slice(0, 1))
    assert batch["x"] is X


@pytest.mark.parametrize(("rows", "counts"), [(1, [1, 1, 1]), (2, [2, 1]), (3, [3]), (9, [3])])
def test_parts_are_the_samples_in_order(rows: int, counts: list[int]) -> None:
    parts = list(trees.split({"x": X, "y": Y}, rows))
    assert [len(part["x"]) for part in parts] == counts
    assert torch.equal(torch.cat([part["y"] for part in parts]), Y)


def test_counts_that_differ_between_leaves_are_an_error() -> None:
    with pytest.raises(DataError, match=r"agree on the number of samples.*\(3, 2\), \(2,\)"):
        trees.sample_count((X, Y[:2]))


@pytest.mark.parametrize("batch", ["text", 3, {"a": 1}, [], torch.tensor(1.0)])
def test_a_batch_without_samples_is_an_error(batch: Any) -> None:
    with pytest.raises(DataError, match=r"must hold tensors with one entry per sample"):
        trees.sample_count(batch)


def test_flattening_and_back_is_the_identity() -> None:
    tensors = [torch.randn(2, 3), torch.randn(()), torch.randn(0, 4), torch.randn(5).half()]
    vector = trees.flatten(tensors)
    assert vector.shape == (12,)
    assert vector.dtype == torch.float64
    for back, tensor in zip(trees.unflatten(vector, tensors), tensors, strict=True):
        assert back.dtype == tensor.dtype
        assert torch.equal(back, tensor)


@pytest.mark.parametrize(
    ("dtypes", "computed"),
    [
        ([], torch.float32),
        ([torch.float16], torch.float32),
        ([torch.bfloat16, torch.float32], torch.float32),
        ([torch.float32, torch.float64], torch.float64),
    ],
)
def test_one_dtype_holds_all_of_them_and_is_float32_at_least(
    dtypes: list[torch.dtype], computed: torch.dtype
) -> None:
    assert trees.compute_dtype(torch.ones(1, dtype=dtype) for dtype in dtypes) == computed


def test_sums_are_kept_in_float64_where_there_is_one() -> None:
    assert trees.wide_dtype(torch.device("cpu")) == torch.float64
    assert trees.wide_dtype(torch.device("mps")) == torch.float32
    assert trees.widen(torch.ones(2).half()).dtype == torch.float64


def test_a_squared_norm_is_that_of_all_entries() -> None:
    assert trees.sq_norm(torch.tensor([[1.0, 2.0], [3.0, 0.0]])) == 14


def test_inference_tensors_can_be_differentiated_once_they_are_on_the_device() -> None:
    with torch.inference_mode():
        batch = {"x": torch.ones(2), "name": "train"}
    moved = trees.to_device(batch, torch.device("cpu"))
    assert moved["name"] == "train"
    assert not moved["x"].is_inference()
    assert trees.to_device(X, torch.device("cpu")) is X


def test_neighbours_of_one_kind_are_joined() -> None:
    long, short = {"x": torch.ones(2, 3), "n": 1}, {"x": torch.ones(1, 2), "n": 1}
    other = {"x": torch.ones(1, 3), "n": 2}
    found = trees.merged([long, long, other, long, short, short])
    assert [len(batch["x"]) for batch in found] == [4, 1, 2, 2]
    assert [batch["n"] for batch in found] == [1, 2, 1, 1]
    assert found[2] is long
    assert trees.merged([]) == []


def test_numbers_of_several_tensors_come_in_order() -> None:
    several = [torch.tensor([3.0, 4.0]), torch.eye(2), torch.tensor(2.0)]
    assert trees.sq_norms_of(several) == [trees.sq_norm(t) for t in several] == [25.0, 2.0, 4.0]
    assert trees.floats(t.sum() for t in several) == [7.0, 2.0, 2.0]
    assert trees.floats([]) == []
