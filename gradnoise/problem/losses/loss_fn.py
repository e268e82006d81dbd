"""What a loss function is, and how the things that it is given are named in messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ...tensors.trees import Batch

LossFn = Callable[[nn.Module, Batch], Tensor]


def what(item: Any) -> str:
    """Its type, and its shape if it is a tensor."""
    shape = f" of shape {tuple(item.shape)}" if isinstance(item, Tensor) else ""
    return f"{type(item).__name__}{shape}"
