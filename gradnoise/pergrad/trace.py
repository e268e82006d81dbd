"""Which operations of a forward pass use which parameters, seen as torch runs them.

Every torch function called under `Trace` passes through it. Tensors are of three kinds: those that
depend on the samples, *sources* (parameters, and what is computed from parameters alone), and
constants. An operation that joins sources with samples is a *use*, handed to the visitor; a fused
or composite operation without a rule is opened first, so that the uses inside it are seen.
"""

from __future__ import annotations

import abc
import functools
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..errors import EngineError
from .rules import COPIES, RULES
from .unfused import UNFUSED


@dataclass(eq=False)
class Source:
    """A parameter, or a tensor computed from parameters alone.

    Args:
        tensor: itself, with its graph.
        roots: names of the parameters it comes from.
        derived: whether it was computed.
    """

    tensor: Tensor
    roots: frozenset[str]
    derived: bool = False


class Call:
    """One operation and its arguments, with the tensors among them apart."""

    def __init__(self, func: Any, args: Any, kwargs: Any) -> None:
        self.func = func
        self.tensors: list[Tensor] = []
        self._args = self._apart(tuple(args))
        self._kwargs = {name: self._apart(value) for name, value in kwargs.items()}

    @property
    def name(self) -> str:
        """Of the torch function."""
        return name_of(self.func)

    def _apart(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            self.tensors.append(value)
            return _Place(len(self.tensors) - 1)
        if isinstance(value, (tuple, list)):
            parts = [self._apart(part) for part in value]
            return parts if isinstance(value, list) else tuple(parts)
        return value

    def arguments(self, tensors: Sequence[Tensor]) -> tuple[Any, Any]:
        """Positional and named arguments, with these tensors in their places."""
        kwargs = {name: _filled(value, tensors) for name, value in self._kwargs.items()}
        return _filled(self._args, tensors), kwargs

    def run(self, tensors: Sequence[Tensor]) -> Any:
        """What the operation gives for these tensors."""
        args, kwargs = self.arguments(tensors)
        return self.func(*args, **kwargs)


@dataclass(frozen=True)
class _Place:
    """Of a tensor among the tensors of a call."""

    index: int


def _filled(value: Any, tensors: Sequence[Tensor]) -> Any:
    if isinstance(value, _Place):
        return tensors[value.index]
    if isinstance(value, (tuple, list)):
        parts = [_filled(part, tensors) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    return value


def name_of(func: Any) -> str:
    """`linear` for F.linear, `add` for Tensor.__add__."""
    return str(getattr(func, "__name__", func)).strip("_")


class Visitor(abc.ABC):
    """What happens at the uses of parameters."""

    @abc.abstractmethod
    def use(self, call: Call, sources: dict[int, Source], dependent: list[int]) -> Any:
        """Run an operation; sources and sample-dependent tensors by position in its tensors."""


@dataclass
class Seen:
    """Sources by identity, held; tensors that depend on the samples, not held."""

    sources: dict[int, Source] = field(default_factory=dict)
    dependent: dict[int, Any] = field(default_factory=dict)

    def depends(self, tensor: Tensor) -> bool:
        """On the samples: marked so, or of unknown origin with a graph."""
        if tensor.requires_grad:
            return id(tensor) not in self.sources
        reference = self.dependent.get(id(tensor))
        return reference is not None and reference() is tensor

    def mark(self, tensors: Iterable[Tensor]) -> None:
        """These depend on the samples."""
        for tensor in tensors:
            self.dependent[id(tensor)] = weakref.ref(tensor)


class Trace(TorchFunctionMode):
    """Follow one forward pass.

    Args:
        parameters: by name.
        leaves: the tensors of the batch.
        count: number of samples.
        visitor: is handed the uses.
    """

    def __init__(
        self, parameters: dict[str, Tensor], leaves: list[Tensor], count: int, visitor: Visitor
    ) -> None:
        super().__init__()
        self.seen = Seen()
        for name, parameter in parameters.items():
            self.seen.sources[id(parameter)] = Source(parameter, frozenset([name]))
        self.seen.mark(leaves)
        self._count, self._visitor = count, visitor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__ == "__get__":  # shape, device, ...: most calls, and most give no tensor
            result = func(*args, **kwargs)
            if not isinstance(result, Tensor):
                return result
        sources = dependent = False
        for tensor in _tensors((args, kwargs.values()) if kwargs else args):
            if id(tensor) in self.seen.sources:
                sources = True
            else:
                dependent = dependent or self.seen.depends(tensor)
        if not sources or not torch.is_grad_enabled():
            result = func(*args, **kwargs)
            if dependent:
                self.seen.mark(_results(func, args, result))
            return result
        return (self._use if dependent else self._derive)(func, args, kwargs)

    def _use(self, func: Any, args: Any, kwargs: Any) -> Any:
        inner = UNFUSED.get(func) or (_opened(func) if func not in RULES else None)
        if func in UNFUSED:  # initial states are of the samples, also where they are zeros
            given = [t for t in _tensors(args[1:2]) if id(t) not in self.seen.sources]
            self.seen.mark(t for t in given if t.is_floating_point())
        if inner is not None:
            with self:
                return inner(*args, **kwargs)
        call = Call(func, args, kwargs)
        found = self._sources_of(call)
        samples = [i for i, t in enumerate(call.tensors) if self.seen.depends(t)]
        result = self._visitor.use(call, found, samples)
        self.seen.mark(_results(func, args, result))
        return result

    def _derive(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func in COPIES:
            call = Call(func, args, kwargs)
            if _copies_for_samples(call, self._count):
                result = self._visitor.use(call, self._sources_of(call), [])
                self.seen.mark([result])
                return result
        result = func(*args, **kwargs)
        made = [t for t in _results(func, args, result) if t.requires_grad]
        roots = frozenset[str]().union(*(source.roots for source in self._given(args, kwargs)))
        for tensor in made:
            self.seen.sources.setdefault(id(tensor), Source(tensor, roots, derived=True))
        return result

    def _given(self, args: Any, kwargs: Any) -> Iterator[Source]:
        for tensor in (*_tensors(args), *_tensors(kwargs.values())):
            if id(tensor) in self.seen.sources:
                yield self.seen.sources[id(tensor)]

    def _sources_of(self, call: Call) -> dict[int, Source]:
        known = self.seen.sources
        return {i: known[id(t)] for i, t in enumerate(call.tensors) if id(t) in known}


_VALUES = type(dict[str, object]().values())


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list, _VALUES)):
            yield from _tensors(value)


def _results(func: Any, args: Any, result: Any) -> list[Tensor]:
    """What an operation gives, and what it changed in place."""
    made = [result] if isinstance(result, Tensor) else list(_tensors([result]))
    if is_in_place(func) and args and isinstance(args[0], Tensor):
        made.append(args[0])
    return made


@functools.cache
def is_in_place(func: Any) -> bool:
    """Whether an operation changes its first argument."""
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name[3:] in _OPERATORS)
    return name.endswith("_")


_OPERATORS = {"add__", "sub__", "mul__", "truediv__", "div__", "floordiv__", "pow__", "matmul__"}


def _copies_for_samples(call: Call, count: int) -> bool:
    """Whether a parameter is repeated along an axis of the number of samples, and nothing else."""
    source = call.tensors[0]
    with torch.no_grad():
        shape = call.run(call.tensors).shape
    padded = (1,) * (len(shape) - source.ndim) + tuple(source.shape)
    plain = all(own in (1, size) for own, size in zip(padded, shape, strict=True))
    return plain and any(o == 1 and s == count for o, s in zip(padded, shape, strict=True))


_CHECKS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


@functools.cache
def _opened(func: Any) -> Callable[..., Any] | None:
    """The body of an operation that torch writes in Python, past its own hand-over to a mode."""
    if not isinstance(func, types.FunctionType) or not func.__module__.startswith("torch"):
        return None
    past = dict.fromkeys(_CHECKS, lambda *_: False)
    twin = types.FunctionType(
        func.__code__,
        {**func.__globals__, **past},
        func.__name__,
        func.__defaults__,
        func.__closure__,
    )
    twin.__kwdefaults__ = func.__kwdefaults__
    return twin


def rule_arguments(call: Call, sources: dict[int, Source]) -> tuple[str, ...] | None:
    """Names of the sources among the arguments, where there is a rule for all of them."""
    known = RULES.get(call.func)
    if known is None:
        return None
    args, kwargs = call.arguments(call.tensors)
    names = {id(value): name for name, value in known.bind(args, kwargs).items()}
    named = tuple(names.get(id(call.tensors[i]), "") for i in sources)
    return named if known.of.issuperset(named) else None


def eager() -> AbstractContextManager[Any]:
    """Compiled models run their original code, whose operations can be seen."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled
        return nullcontext()
    stance = getattr(torch.compiler, "set_stance", None)
    return nullcontext() if stance is None else stance("force_eager")


def refuse_in_place(call: Call) -> None:
    """Raise where a parameter is written into a tensor of the samples."""
    if is_in_place(call.func) and call.func not in RULES:
        raise EngineError(f"a parameter is written into a tensor in place, by {call.name}")
