"""Sums and means over the ranks of a process group; without one, of this process alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from ..problem.state.wrappers import OWN_FORWARD

ELSEWHERE = "another rank could not measure this step"


def world_size(group: Any) -> int:
    """How many ranks average their gradients."""
    return 1 if group is None else dist.get_world_size(group)


def is_alone(model: nn.Module, group: Any) -> bool:
    """Whether nobody averages the gradients of a model over ranks."""
    kinds = {kind.__name__ for kind in type(model).__mro__}
    return group is None and kinds.isdisjoint(OWN_FORWARD)


def summed(numbers: Tensor, group: Any) -> Tensor:
    """The sum over the ranks of a tensor on the CPU; all ranks have to call it, or none."""
    if world_size(group) == 1:
        return numbers
    nccl = dist.get_backend(group) == "nccl"
    place = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
    moved = numbers.to(place)
    dist.all_reduce(moved, group=group)
    return moved.cpu()


def agreed(own: list[float], norms: Tensor, reason: str, group: Any) -> Tensor | None:
    """Sums over the ranks of numbers and norms; None for all of them where one has a reason.

    A rank that went on alone would wait for the others for ever.
    """
    numbers = torch.tensor([float(bool(reason)), *own], dtype=torch.float64, device="cpu")
    both = summed(torch.cat([numbers, norms]), group)
    return None if both[0] else both[1:]


def averaged(gradient: Tensor, group: Any) -> Tensor:
    """The mean over the ranks, as parallel training takes it; all have to call it, or none."""
    size = world_size(group)
    if size == 1:
        return gradient
    gradient = gradient.clone()
    dist.all_reduce(gradient, group=group)
    return gradient / size
