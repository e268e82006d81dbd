"""Batches of positions, and what can be cut without them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import default_collate

from gradnoise import DataError, EngineError
from gradnoise.tensors.ragged import (
    Items,
    Ragged,
    for_collate,
    is_plain,
    is_ragged,
    moved,
    opened,
    tensors_in,
)
from gradnoise.tensors.trees import sample_count, select, split, to_device

SAMPLES = [{"x": torch.full((k + 1,), float(k))} for k in range(5)]
X = torch.zeros(3, 2)


def listed(samples: list[Any]) -> list[Any]:
    return samples


def batch() -> Ragged:
    return Ragged(torch.arange(5), Items(SAMPLES, listed))


def numbers(ragged: Any) -> list[int]:
    return [len(own["x"]) - 1 for own in opened(ragged)]


def test_positions_are_cut_and_samples_follow() -> None:
    whole = batch()
    assert sample_count(whole) == 5
    assert numbers(select(whole, slice(1, 3))) == [1, 2]
    assert numbers(select(whole, torch.tensor([4, 0, 4]))) == [4, 0, 4]
    assert [numbers(part) for part in split(whole, 2)] == [[0, 1], [2, 3], [4]]
    assert numbers(to_device(whole, torch.device("cpu"))) == [0, 1, 2, 3, 4]


def test_what_a_loss_takes_out_of_its_samples_is_there_the_next_time() -> None:
    whole = batch()
    for _ in range(2):
        assert [len(own.pop("x")) for own in opened(whole)] == [1, 2, 3, 4, 5]
    assert opened(whole)[0]["x"] is SAMPLES[0]["x"]


def test_other_batches_are_given_as_they_are() -> None:
    pair = (X, X)
    assert opened(pair) is pair


def test_samples_of_one_size_are_not_ragged() -> None:
    assert is_ragged(batch())
    assert is_ragged((batch(), torch.zeros(5)))
    assert not is_ragged(Ragged(torch.arange(5), Items(SAMPLES, listed, rows=True)))
    assert not is_ragged((X, [X]))


PLAIN = {
    "tensor": X,
    "pair": (X, X[:, 0]),
    "mapping": {"x": X, "mask": None, "task": "first", "scale": 2.0, "count": torch.tensor(4)},
    "nested": [(X, X), {"y": X}],
    "a size for all": {"x": X, "size": [2, 2]},
    "a function for all": (X, len),
}
NOT_PLAIN = {
    "other lengths": (X, torch.zeros(7)),
    "per batch": {"x": X, "scale": torch.zeros(1)},
    "no tensor": ["a", "b", "c"],
    "no samples": (torch.tensor(1.0), None),
    "packed": pack_sequence([X[:, :1]]),
    "jagged": torch.nested.nested_tensor([X[:1], X[:2], X], layout=torch.jagged),
    "object": (X, object()),
    "dicts": (X, [{"y": torch.zeros(2)}] * 3),
}


@pytest.mark.parametrize("name", PLAIN)
def test_tensors_with_a_row_for_every_sample_can_be_cut(name: str) -> None:
    assert is_plain(PLAIN[name], 3)
    assert not is_plain(PLAIN[name], 4)


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_other_batches_cannot_be_cut(name: str) -> None:
    assert not is_plain(NOT_PLAIN[name], 3)
    assert not is_plain(NOT_PLAIN[name], 3, names=True)


def test_a_name_for_every_sample_cannot_be_cut_but_has_rows_beside_it() -> None:
    named = {"x": X, "names": ["a", "b", "c"]}
    assert not is_plain(named, 3)
    assert is_plain(named, 3, names=True)


@dataclass
class Target:
    boxes: Tensor


def test_samples_are_copied_for_a_collate_function_that_may_change_them() -> None:
    target = Target(X)
    samples = [(X, {"y": target, "z": [1]})]
    ((x, own),) = for_collate(listed, samples)
    own["z"].append(2)
    own["y"].boxes = None
    del own["y"]
    assert x is X
    assert samples[0][1]["z"] == [1]
    assert target.boxes is X
    assert for_collate(default_collate, samples) is samples  # it changes nothing


def test_a_batch_is_moved_with_the_objects_in_it() -> None:
    meta = torch.device("meta")
    target, name = Target(X), "a"
    ours = pack_sequence([X, X[:2]])
    images, (own, text), packed = moved(([X, X], (target, name), ours), meta)
    assert [image.device for image in images] == [meta, meta]
    assert (own, text) == (target, name)  # it has no `.to`: the loss moves it, as in training
    assert packed.data.device == meta
    assert ours.data.device.type == "cpu"
    with torch.inference_mode():
        made = torch.zeros(2)
    assert not moved(made, torch.device("cpu")).is_inference()


def test_tensors_are_found_in_objects() -> None:
    found = list(tensors_in({"a": [X, (Target(X[0]),)], "b": "text"}))
    assert [tensor.shape for tensor in found] == [(3, 2), (2,)]


def test_a_collate_function_that_fails_is_named() -> None:
    def strict(samples: list[Any]) -> Any:
        raise KeyError("label")

    with pytest.raises(DataError, match=r"collate function failed for 2 of the samples.*KeyError"):
        opened(Ragged(torch.arange(2), Items(SAMPLES, strict)))

    def refused(samples: list[Any]) -> Any:
        raise DataError("in our own words")

    with pytest.raises(DataError, match=r"^in our own words"):
        opened(Ragged(torch.arange(2), Items(SAMPLES, refused)))


def test_transforms_cannot_follow() -> None:
    items = Items(SAMPLES, listed)
    with pytest.raises(EngineError, match=r"Python code, which torch.func cannot follow"):
        torch.func.vmap(lambda index: opened(Ragged(index, items)))(torch.arange(2)[:, None])
