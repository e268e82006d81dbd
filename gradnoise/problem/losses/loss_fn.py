"""What a loss function is, and how the things that it is given are named in messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...tensors.trees import Batch

LossFn = Callable[[nn.Module, Batch], Tensor]


def what(item: Any) -> str:
    """Its type, and its shape if it is a tensor."""
    shape = f" of shape {tuple(item.shape)}" if isinstance(item, Tensor) else ""
    return f"{type(item).__name__}{shape}"


def listed(names: Any, most: int = 8) -> str:
    """The first names, with commas."""
    names = [str(name) for name in names]
    more = ", ..." if len(names) > most else ""
    return ", ".join(names[:most]) + more


def in_transform(tensor: Tensor) -> bool:
    """Whether a transform of `torch.func` is at work, under which no value can be looked at."""
    return torch.func.debug_unwrap(tensor) is not tensor
