"""Which operations of a forward pass use which parameters, seen as torch runs them.

Every torch function called under `Trace` passes through it. Tensors are of three kinds: those that
depend on the samples, *sources* (parameters, and what is computed from parameters alone), and
constants. An operation that joins sources with samples is a *use*, handed to who traces; a fused
or composite operation without a rule is opened first, so that the uses inside it are seen. `Watch`
finds these steps on a few samples; `Follow` takes the same steps again.
"""

from __future__ import annotations

import abc
import functools
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..errors import EngineError
from .layout import Found, Layout
from .rules import RULES
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
        self._args = self._apart(args)
        named = self._apart(kwargs.values()) if kwargs else []
        self._kwargs = dict(zip(kwargs, named, strict=True))

    @property
    def name(self) -> str:
        """Of the torch function."""
        return name_of(self.func)

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
    """Of a tensor among the tensors of a call."""


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


@dataclass(frozen=True)
class Step:
    """One operation that is given parameters, in the order of the forward pass.

    Args:
        func: the operation.
        kind: DERIVE from parameters alone, OPEN because it has no rule as a whole, or USE.
        dependent: which of its tensors depend on the samples.
        layout: of a use: where the samples are in its output; None where it has no gradient.
        arguments: of a use: names of the sources among its arguments; None without a rule.
        each: of a use: entries per sample along the layout's axis, on the samples of the plan.
        ndim: of a use: dimensions of its output.
        proven: of a use: whether its layout is the only one that the gradients allow.
    """

    func: Any
    kind: str
    dependent: tuple[int, ...] = ()
    layout: Layout | None = None
    arguments: tuple[str, ...] | None = None
    each: int = 1
    ndim: int = 0
    proven: bool = False

    def at(self, found: Found, output: Tensor, count: int) -> Step:
        """The step with the layout of its output."""
        each = output.shape[found.layout.axis] // count
        return replace(self, layout=found.layout, each=each, ndim=output.ndim, proven=found.proven)


DERIVE, OPEN, USE = "derive", "open", "use"
Sources = dict[int, Source]


class UnplannedError(Exception):
    """The operations are not those of the plan."""


class Trace(TorchFunctionMode, abc.ABC):
    """Follow one forward pass.

    Args:
        parameters: by name.
        use: is handed every use: the call, its sources by position, the step.
    """

    def __init__(
        self, parameters: dict[str, Tensor], use: Callable[[Call, Sources, Step], Any]
    ) -> None:
        super().__init__()
        self.sources = {id(p): Source(p, frozenset([name])) for name, p in parameters.items()}
        self._use = use

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__ == "__get__":  # shape, device, ...: most calls, and most give no tensor
            result = func(*args, **kwargs)
            if not isinstance(result, Tensor):
                return result
        if torch.is_grad_enabled() and (self._given(args) or self._given(kwargs.values())):
            return self.given_sources(func, args, kwargs)
        return self.without_sources(func, args, kwargs)

    def _given(self, values: Iterable[Any]) -> bool:
        for value in values:
            if id(value) in self.sources or (
                isinstance(value, (tuple, list)) and self._given(value)
            ):
                return True
        return False

    def without_sources(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation that is given no parameter."""
        return func(*args, **kwargs)

    @abc.abstractmethod
    def given_sources(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation that is."""

    def take(self, step: Step, args: Any, kwargs: Any) -> Any:
        """Run an operation as its step says."""
        if step.kind == OPEN:
            with self:
                return _inner(step.func)(*args, **kwargs)
        if step.kind == DERIVE:
            return self._derive(step.func, args, kwargs)
        call = Call(step.func, args, kwargs)
        own = {i: self.sources[id(t)] for i, t in enumerate(call.tensors) if id(t) in self.sources}
        return self._use(call, own, step)

    def _derive(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        made = [t for t in _results(func, args, result) if t.requires_grad]
        if made:
            given = (self.sources.get(id(t)) for t in _tensors((args, kwargs.values())))
            roots = frozenset[str]().union(*(source.roots for source in given if source))
            for tensor in made:
                self.sources.setdefault(id(tensor), Source(tensor, roots, derived=True))
        return result


class Watch(Trace):
    """Tells what depends on the samples, and writes down the steps.

    Args:
        parameters, use: as of `Trace`.
        leaves: the tensors of the batch.
        own: positions of steps that derive one entry for every sample from parameters alone, and
            are therefore uses.
    """

    def __init__(
        self,
        parameters: dict[str, Tensor],
        use: Callable[[Call, Sources, Step], Any],
        leaves: list[Tensor],
        own: frozenset[int],
    ) -> None:
        super().__init__(parameters, use)
        self.steps: list[Step] = []
        self.derived: dict[int, Tensor] = {}  # by the position of the step
        self.reorders = False  # whether samples are picked by data before a use
        self._picked, self._own = False, own
        self._dependent: dict[int, Any] = {}  # not held
        self._mark(leaves)

    def without_sources(self, func: Any, args: Any, kwargs: Any) -> Any:
        depends = any(map(self._depends, _tensors((args, kwargs.values()))))
        if depends and func in _PICKS:
            self._picked |= self._by_data(args if func in _LEAVES else args[1:])
        result = func(*args, **kwargs)
        if depends:
            self._mark(_results(func, args, result))
        return result

    def given_sources(self, func: Any, args: Any, kwargs: Any) -> Any:
        step = self._judge(func, args, kwargs)
        self.steps.append(step)
        position = len(self.steps) - 1
        result = self.take(step, args, kwargs)
        if step.kind == DERIVE and isinstance(result, Tensor) and result.requires_grad:
            self.derived[position] = result
        if step.kind == USE:
            self.reorders |= self._picked
            self._mark(_results(func, args, result))
        return result

    def _judge(self, func: Any, args: Any, kwargs: Any) -> Step:
        call = Call(func, args, kwargs)
        dependent = tuple(i for i, t in enumerate(call.tensors) if self._depends(t))
        own = [i for i, t in enumerate(call.tensors) if id(t) in self.sources]
        if not dependent:
            if len(self.steps) not in self._own:
                return Step(func, DERIVE)
            return Step(func, USE, arguments=_arguments(call, own))
        if func in UNFUSED:  # initial states are of the samples, also where they are zeros
            self._mark(t for t in _tensors(args[1:2]) if t.is_floating_point())
        if func in UNFUSED or (out_of_place(func) not in RULES and _opened(func) is not None):
            return Step(func, OPEN)
        return Step(func, USE, dependent, arguments=_arguments(call, own))

    def _depends(self, tensor: Tensor) -> bool:
        """On the samples: marked so, or of unknown origin with a graph."""
        if id(tensor) in self.sources:
            return False
        reference = self._dependent.get(id(tensor))
        return tensor.requires_grad or (reference is not None and reference() is tensor)

    def _by_data(self, picked: Any) -> bool:
        """Whether entries are chosen by what the samples hold: whole numbers, or yes and no."""
        return any(self._depends(t) and not t.is_floating_point() for t in _tensors(picked))

    def _mark(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            self._dependent[id(tensor)] = weakref.ref(tensor)


class Follow(Trace):
    """Takes the steps of a plan.

    Args:
        parameters, use: as of `Trace`.
        plan: the steps.
    """

    def __init__(
        self,
        parameters: dict[str, Tensor],
        use: Callable[[Call, Sources, Step], Any],
        plan: list[Step],
    ) -> None:
        super().__init__(parameters, use)
        self._plan, self._taken = plan, 0

    @property
    def finished(self) -> bool:
        """Whether every step was taken."""
        return self._taken == len(self._plan)

    def given_sources(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self.finished or self._plan[self._taken].func != func:
            raise UnplannedError
        self._taken += 1
        return self.take(self._plan[self._taken - 1], args, kwargs)


_PICKS = {
    getattr(place, name)
    for place in (Tensor, torch)
    for name in ("index_select", "masked_select", "gather", "take_along_dim", "take", "index_add")
} | {Tensor.__getitem__, Tensor.tolist, Tensor.numpy}
_LEAVES = {Tensor.tolist, Tensor.numpy}  # torch: what Python picks then is not seen
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


_CHECKS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


def _inner(func: Any) -> Callable[..., Any]:
    inner = UNFUSED.get(func) or _opened(func)
    assert inner is not None  # or the step would be no OPEN
    return inner


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


def _arguments(call: Call, sources: list[int]) -> tuple[str, ...] | None:
    """Names of the sources among the arguments, where there is a rule for all of them."""
    known = RULES.get(out_of_place(call.func))
    if known is None:
        return None
    args, kwargs = call.arguments(call.tensors)
    bound = known.bind(args, kwargs)
    names = {id(value): name for name, value in bound.items()}
    named = tuple(names.get(id(call.tensors[i]), "") for i in sources)
    return named if known.of.issuperset(named) and known.fits(bound) else None


def eager() -> AbstractContextManager[Any]:
    """Compiled models run their original code, whose operations can be seen."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled
        return nullcontext()
    stance = getattr(torch.compiler, "set_stance", None)
    return nullcontext() if stance is None else stance("force_eager")


@functools.cache
def out_of_place(func: Any) -> Any:
    """The operation that gives what this one writes into its first argument."""
    if not is_in_place(func):
        return func
    name = func.__name__.strip("_")
    name = name.removeprefix("i") if func.__name__.startswith("__") else name
    return getattr(Tensor, name, None)


def carry_out(call: Call, tap: Callable[[Any], Any]) -> Any:
    """Run an operation and `tap` what it gives, also where that is written into its input."""
    if not is_in_place(call.func):
        return tap(call.run(call.tensors))
    target = call.tensors[0]
    call.func, call.tensors[0] = out_of_place(call.func), target.clone()
    return target.copy_(tap(call.run(call.tensors)))


def refuse_in_place(call: Call) -> None:
    """Raise where a parameter is written into a tensor of the samples."""
    if out_of_place(call.func) is None:
        raise EngineError(f"a parameter is written into a tensor in place, by {call.name}")
