"""One operation with its arguments: the tensors among them, what it gives and what it changes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor

from ...errors import EngineError


class Call:
    """One operation and its arguments, with a list of the tensors among them."""

    def __init__(self, func: Any, args: Any, kwargs: Any) -> None:
        self.func = func
        self.tensors: list[Tensor] = []
        self._args = self._apart(args)
        named = self._apart(kwargs.values()) if kwargs else []
        self._kwargs = dict(zip(kwargs, named, strict=True))

    @property
    def name(self) -> str:
        """Name of the torch function."""
        return name_of(self.func)

    @property
    def places(self) -> tuple[Any, ...]:
        """Positions and names of the arguments that are tensors, or hold some."""
        found = [i for i, value in enumerate(self._args) if isinstance(value, _HOLDERS)]
        return (*found, *(n for n, value in self._kwargs.items() if isinstance(value, _HOLDERS)))

    def _apart(self, values: Iterable[Any]) -> list[Any]:
        parts: list[Any] = []
        for value in values:
            if isinstance(value, Tensor):
                parts.append(_Place(len(self.tensors)))
                self.tensors.append(value)
            elif isinstance(value, (tuple, list)):
                own = self._apart(value)
                parts.append(own if isinstance(value, list) else tuple(own))
            else:
                parts.append(value)
        return parts

    def arguments(self, tensors: Sequence[Tensor]) -> tuple[list[Any], dict[str, Any]]:
        """Positional and named arguments, with these tensors in their places."""
        args, named = _filled(self._args, tensors), self._kwargs
        if named:
            named = dict(zip(named, _filled(named.values(), tensors), strict=True))
        return args, named

    def run(self, tensors: Sequence[Tensor]) -> Any:
        """What the operation gives for these tensors."""
        args, kwargs = self.arguments(tensors)
        return self.func(*args, **kwargs)


class _Place(int):
    """Index of a tensor among the tensors of a call."""


_HOLDERS = (_Place, tuple, list)


def _filled(values: Iterable[Any], tensors: Sequence[Tensor]) -> list[Any]:
    parts: list[Any] = []
    for value in values:
        if isinstance(value, _Place):
            parts.append(tensors[value])
        elif isinstance(value, (tuple, list)):
            own = _filled(value, tensors)
            parts.append(own if isinstance(value, list) else tuple(own))
        else:
            parts.append(value)
    return parts


def name_of(func: Any) -> str:
    """`linear` for F.linear, `add` for Tensor.__add__."""
    return str(getattr(func, "__name__", func)).strip("_")


def tensors_of(values: Any) -> Iterator[Tensor]:
    """The tensors among arguments or results, however nested."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list, _VALUES)):
            yield from tensors_of(value)


_VALUES = type(dict[str, object]().values())


def results_of(func: Any, args: Any, result: Any) -> list[Tensor]:
    """What an operation gives, and what it changed in place."""
    made = [result] if isinstance(result, Tensor) else list(tensors_of([result]))
    if is_in_place(func) and args and isinstance(args[0], Tensor):
        made.append(args[0])
    return made


def is_in_place(func: Any) -> bool:
    """Whether an operation changes its first argument."""
    return _says_in_place(getattr(func, "__name__", ""))


@functools.lru_cache(maxsize=1024)
def _says_in_place(name: str) -> bool:
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name[3:] in _OPERATORS)
    return name.endswith("_")


_OPERATORS = {"add__", "sub__", "mul__", "truediv__", "div__", "floordiv__", "pow__", "matmul__"}


def out_of_place(func: Any) -> Any:
    """The operation that gives what this one writes into its first argument."""
    if not is_in_place(func):
        return func
    name = func.__name__.strip("_")
    name = name.removeprefix("i") if func.__name__.startswith("__") else name
    return getattr(Tensor, name, None)


def carry_out(call: Call, hook: Callable[[Any], Any]) -> Any:
    """Run an operation and put `hook` on its output, also where that is written into its input.

    The call becomes that of the operation out of place on a copy, before `hook` is given the
    output: rules are found by it.
    """
    if not is_in_place(call.func):
        return hook(call.run(call.tensors))
    target = call.tensors[0]
    call.func, call.tensors[0] = out_of_place(call.func), target.clone()
    return target.copy_(hook(call.run(call.tensors)))


def refuse_in_place(call: Call) -> None:
    """Raise where a parameter is written into a tensor of the samples."""
    if out_of_place(call.func) is None:
        raise EngineError(
            f"a parameter is written into a tensor in place, by {call.name}: use torch.cat, "
            f"torch.stack or torch.where"
        )
