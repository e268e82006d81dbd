"""The relative rounding error of a model: autocast and mixed parts are coarser than its parameters.

And by how much two computations of the same numbers may differ then.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ...problem.objective import Objective
from ...problem.state.wrappers import eager
from ...tensors.trees import Batch
from .call import tensors_of


class _Dtypes(TorchFunctionMode):
    """Keeps the coarsest floating-point dtype that any operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.eps = 0.0

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, (Tensor, tuple, list)):
            self._note(tensors_of([result]))
        return result

    def _note(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            if tensor.is_floating_point():
                self.eps = max(self.eps, torch.finfo(tensor.dtype).eps)


def resolution(objective: Objective, batch: Batch) -> float:
    """Relative rounding of the coarsest dtype at work in the losses of a batch."""
    seen = _Dtypes()
    with eager():
        objective.losses(batch, lambda _: seen)
    return seen.eps


def allowed(size: Tensor, largest: float, eps: float) -> Tensor:
    """What two computations of numbers of this size may differ by.

    What cancels to zero (the bias of attention keys) is rounding of the largest.

    Args:
        size: of the numbers, or of what they are summed from; what is not finite counts as zero.
        largest: of all numbers that were computed together.
        eps: relative rounding.
    """
    size = size.nan_to_num(0.0, 0.0, 0.0)
    return math.sqrt(eps) * (size + size.mean()) + 64 * eps * largest


def largest_of(sizes: Iterable[Tensor]) -> float:
    """The largest finite entry, 0 where there is none."""
    finite = (size.nan_to_num(0.0, 0.0, 0.0) for size in sizes if size.numel())
    return max((float(size.max()) for size in finite), default=0.0)
