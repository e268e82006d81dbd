"""The steps of a model on a few samples: which operations depend on the samples."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .call import Call, out_of_place, results_of, tensors_of
from .composite import UNFUSED, simpler
from .rules import RULES
from .steps import DERIVE, OPEN, USE, Step
from .tracing import OnOperation, Trace


class Discovery(Trace):
    """Determines what depends on the samples, and records the steps.

    Args:
        parameters, on_operation: as of `Trace`.
        leaves: the tensors of the batch.
        own: positions of steps that make one entry for every sample from parameters alone, and are
            therefore followed like operations on samples.
    """

    def __init__(
        self,
        parameters: dict[str, Tensor],
        on_operation: OnOperation,
        leaves: list[Tensor],
        own: frozenset[int],
    ) -> None:
        super().__init__(parameters, on_operation)
        self.steps: list[Step] = []
        self.derived: dict[int, Tensor] = {}  # by the position of the step
        self.reorders = False  # whether data pick the samples before an operation
        self._picked, self._own = False, own
        self._dependent: dict[int, Any] = {}  # not held
        self._mark(leaves)

    def watching(self, made: list[Tensor]) -> Trace:
        self._mark(made)
        return self

    def without_sources(self, func: Any, args: Any, kwargs: Any) -> Any:
        depends = any(map(self._depends, tensors_of((args, kwargs.values()))))
        if depends and func in _PICKS:
            chosen = func in _SORTS or self._by_data(args if func in _TO_PYTHON else args[1:])
            self._picked |= chosen
        result = func(*args, **kwargs)
        if depends:
            self._mark(results_of(func, args, result))
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
            self._mark(results_of(func, args, result))
        return result

    def _judge(self, func: Any, args: Any, kwargs: Any) -> Step:
        call = Call(func, args, kwargs)
        dependent = tuple(i for i, t in enumerate(call.tensors) if self._depends(t))
        own = [i for i, t in enumerate(call.tensors) if id(t) in self.sources]
        if not dependent:
            if len(self.steps) not in self._own:
                return Step(func, DERIVE)
            return Step(
                func, USE, arguments=_arguments(call, own), places=(call.places, tuple(own))
            )
        if func in UNFUSED:  # initial states are of the samples, also where they are zeros
            self._mark(t for t in tensors_of(args[1:2]) if t.is_floating_point())
        if out_of_place(func) not in RULES and simpler(func) is not None:
            return Step(func, OPEN)
        return Step(
            func, USE, dependent, arguments=_arguments(call, own), places=(call.places, tuple(own))
        )

    def _depends(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on the samples: marked so, or of unknown origin with a graph."""
        if id(tensor) in self.sources:
            return False
        reference = self._dependent.get(id(tensor))
        return tensor.requires_grad or (reference is not None and reference() is tensor)

    def _by_data(self, picked: Any) -> bool:
        """Whether entries are chosen by integers or booleans that depend on the samples."""
        return any(self._depends(t) and not t.is_floating_point() for t in tensors_of(picked))

    def _mark(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            self._dependent[id(tensor)] = weakref.ref(tensor)


_PICKS = {
    getattr(place, name)
    for place in (Tensor, torch)
    for name in (
        *("index_select", "masked_select", "gather", "take_along_dim", "take", "sort", "topk"),
        *("index_add", "index_copy", "index_put", "scatter", "scatter_add", "scatter_reduce"),
    )
} | {
    *(Tensor.__getitem__, Tensor.__setitem__, Tensor.tolist, Tensor.numpy),
    *(Tensor.index_add_, Tensor.index_copy_, Tensor.index_put_),
    *(Tensor.scatter_, Tensor.scatter_add_, Tensor.scatter_reduce_),
}
_SORTS = {torch.sort, Tensor.sort, torch.topk, Tensor.topk}  # by the values themselves
_TO_PYTHON = {Tensor.tolist, Tensor.numpy}  # torch: what Python picks then is not seen


def _arguments(call: Call, sources: list[int]) -> tuple[str, ...] | None:
    """Names of the sources among the arguments, where there is a rule for all of them."""
    known = RULES.get(out_of_place(call.func))
    if known is None:
        return None
    args, kwargs = call.arguments(call.tensors)
    bound = known.bind(args, kwargs)
    names = [name for name, value in bound.items() if isinstance(value, Tensor)]
    if len(names) < len(call.tensors):  # some are in lists
        return None
    named = tuple(names[i] for i in sources)
    return named if known.of.issuperset(named) and known.fits(bound) else None
