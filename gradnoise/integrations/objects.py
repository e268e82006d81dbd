"""Objects of training frameworks, known by their attributes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import ArgumentError

OTHERS = {"DataParallel", "FullyShardedDataParallel", "DeepSpeedEngine"}


def is_of(thing: Any, package: str, name: str) -> bool:
    """Whether an object is of a class of that name in a package, which may not be imported."""
    return any(
        kind.__name__ == name and f"{kind.__module__}.".startswith(f"{package}.")
        for kind in type(thing).__mro__
    )


def replace(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Callable[[], None]:
    """Put a wrapper around a method of one object; the result takes it off."""
    own, original = vars(owner).get(name), getattr(owner, name)
    wrapper = functools.wraps(original)(wrap(original))
    setattr(owner, name, wrapper)

    def put_back() -> None:
        if vars(owner).get(name) is not wrapper:
            return  # somebody has wrapped it once more
        delattr(owner, name)
        if own is not None:
            setattr(owner, name, own)

    return put_back


def group_of(model: nn.Module, processes: int) -> Any:
    """The process group of the ranks that average the gradients of a model; None for one process.

    Raises:
        ArgumentError: the model is shared among devices in another way.
    """
    if isinstance(model, DistributedDataParallel):
        return model.process_group if processes > 1 else None
    sharded = any(hasattr(p, "device_mesh") for p in model.parameters())
    others = OTHERS & {kind.__name__ for kind in type(model).__mro__}
    if processes > 1 or sharded or others:
        raise ArgumentError(
            "the monitor follows a model on one device, or in DistributedDataParallel; this one is "
            "sharded or replicated in another way"
        )
    return None
