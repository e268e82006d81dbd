"""How things are named in messages."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gradnoise.problem.losses.loss_fn import what


@pytest.mark.parametrize(
    ("item", "name"),
    [(torch.zeros(2, 3), "Tensor of shape (2, 3)"), ([1, 2], "list"), (None, "NoneType")],
)
def test_a_thing_is_named_by_its_type_and_a_tensor_by_its_shape_too(item: Any, name: str) -> None:
    assert what(item) == name
