"""Operations of torch that it differentiates once alone, with second derivatives by differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .function_part import pulled_back

OPERATIONS: tuple[Any, ...] = (
    *(F.embedding_bag, F.ctc_loss, F.grid_sample, F.multi_margin_loss, F.hardsigmoid),
    *(F.multilabel_margin_loss, torch.cdist, torch.grid_sampler, torch.ctc_loss),
)
LIBRARIES = ("torchvision",)  # all of their compiled operations


def is_known(operation: Any) -> bool:
    """Whether torch differentiates this operation once alone, in some version at least."""
    schema = getattr(operation, "_qualified_op_name", "")
    return operation in OPERATIONS or schema.partition("::")[0] in LIBRARIES


class _Watch(TorchFunctionMode):
    """Notes the known operations."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[Any, None] = {}

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if is_known(func):
            self.found[func] = None
        return func(*args, **(kwargs or {}))


def once_only(losses: Callable[[Any], Tensor]) -> list[Any]:
    """The known operations in losses, which are computed inside of the context they are given."""
    watch = _Watch()
    losses(watch)
    return list(watch.found)


@contextmanager
def operations_differenced(operations: Sequence[Any]) -> Iterator[None]:
    """These operations have second derivatives by differences meanwhile."""
    if not operations:  # a mode costs time at every operation
        yield
        return
    with _Differencing(operations):
        yield


class _Differencing(TorchFunctionMode):
    def __init__(self, operations: Sequence[Any]) -> None:
        super().__init__()
        self._operations = set(operations)

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [*args, *kwargs.values()]
        follows = any(isinstance(t, Tensor) and t.requires_grad for t in given)
        if func not in self._operations or not follows:
            return func(*args, **kwargs)
        return _Differenced.apply(_Operation(func, len(args), tuple(kwargs)), *given)  # type: ignore[no-untyped-call]


class _Operation:
    """An operation whose arguments are given in one list, as those of a custom Function.

    `count` of them are by position, and the others have `names`.
    """

    def __init__(self, operation: Any, count: int, names: tuple[str, ...]) -> None:
        self._operation, self._count, self._names = operation, count, names

    def apply(self, *inputs: Any) -> Any:
        """The operation itself, which no mode sees."""
        named = dict(zip(self._names, inputs[self._count :], strict=True))
        with torch._C.DisableTorchFunction():
            return self._operation(*inputs[: self._count], **named)


class _Differenced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operation: _Operation, *inputs: Any) -> Any:
        ctx.operation, ctx.inputs = operation, inputs
        return operation.apply(*inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        return None, *pulled_back(ctx.operation, ctx.inputs, cotangents)
