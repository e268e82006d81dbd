"""How things are named in messages."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.func import grad, vmap

from gradnoise.problem.losses.loss_fn import in_transform, listed, what


@pytest.mark.parametrize(
    ("item", "name"),
    [(torch.zeros(2, 3), "Tensor of shape (2, 3)"), ([1, 2], "list"), (None, "NoneType")],
)
def test_a_thing_is_named_by_its_type_and_a_tensor_by_its_shape_too(item: Any, name: str) -> None:
    assert what(item) == name


def test_long_lists_of_names_are_cut() -> None:
    assert listed("abc") == "a, b, c"
    assert listed("abc", most=2) == "a, b, ..."


def test_tensors_inside_a_transform_are_told_from_others() -> None:
    seen = []
    vmap(lambda x: seen.append(in_transform(x)) or x)(torch.ones(2))
    grad(lambda x: seen.append(in_transform(x)) or x)(torch.tensor(1.0))
    assert seen == [True, True]
    assert not in_transform(torch.ones(2))
