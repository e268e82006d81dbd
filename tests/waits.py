"""How often Python waits for numbers of a device: seen on the CPU, which need not wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ATEN = torch.ops.aten
WAITING = {
    overload
    for name in (
        *("_local_scalar_dense", "equal", "nonzero", "masked_select"),  # .item() is the first
        *("_unique2", "unique_dim", "unique_consecutive"),
    )
    for overload in (getattr(getattr(ATEN, name), own) for own in getattr(ATEN, name).overloads())
}
TAKEN = ("tolist", "cpu", "numpy")  # on the CPU they call no operation


class Waits(TorchDispatchMode):
    """Counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masked = func is ATEN.index.Tensor and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.count += func in WAITING or masked
        return func(*args, **(kwargs or {}))


@contextmanager
def _taken(seen: Waits) -> Iterator[None]:
    """Counts what a tensor is asked for as a whole."""
    own = {name: getattr(Tensor, name) for name in TAKEN}

    def counting(name: str) -> Callable[..., Any]:
        def take(self: Tensor, *args: Any, **options: Any) -> Any:
            seen.count += 1
            return own[name](self, *args, **options)

        return take

    for name in TAKEN:
        setattr(Tensor, name, counting(name))
    try:
        yield
    finally:
        for name, function in own.items():
            setattr(Tensor, name, function)


def waits(call: Callable[[], Any]) -> int:
    """How often a call waits."""
    with Waits() as seen, _taken(seen):
        call()
    return seen.count
