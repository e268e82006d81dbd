"""How finely a model computes: autocast and mixed parts are coarser than its parameters say."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..objective import Objective
from ..trees import Batch
from .trace import eager


class _Dtypes(TorchFunctionMode):
    """Keeps the coarsest floating-point dtype that any operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.eps = 0.0

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.is_floating_point():
            self.eps = max(self.eps, torch.finfo(result.dtype).eps)
        return result


def resolution(objective: Objective, batch: Batch) -> float:
    """Relative rounding of the coarsest dtype at work in the losses of a batch."""
    seen = _Dtypes()
    with eager():
        objective.losses(batch, seen)
    return seen.eps
