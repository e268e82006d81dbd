"""Whether a loss is computed inside of transforms of `torch.func` or forward-mode derivatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from ...problem.objective import Objective
from ...tensors.trees import Batch


class _Watch(TorchFunctionMode):
    """Looks at the tensors that operations are given."""

    def __init__(self) -> None:
        super().__init__()
        self.found = ""

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(
            isinstance(t, Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(t)
            for t in args
        ):
            self.found = "torch.func (grad, jacrev, jvp, vmap)"
        elif forward_ad._current_level >= 0:
            self.found = "torch.autograd.forward_ad"
        return func(*args, **(kwargs or {}))


def transforms_of(objective: Objective, batch: Batch) -> str:
    """The name of what the losses of a batch are transformed by; empty where by nothing."""
    watch = _Watch()
    objective.losses(batch, lambda _: watch)
    return watch.found
