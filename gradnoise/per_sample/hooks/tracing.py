"""Which operations of a forward pass use which parameters, seen as torch runs them.

Every torch function called under `Trace` passes through it. Tensors are of three kinds: those that
depend on the samples, *sources* (parameters, and what is computed from parameters alone), and
constants. An operation that joins sources with samples is passed to `on_operation`; a fused or
composite operation without a rule is opened first, so that the operations inside it are seen.
`Discovery` finds these steps on a few samples; `Replay` takes the same steps again.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ...problem.objective import Objective
from ...problem.state.wrappers import eager
from ...tensors.trees import Batch
from .call import Call, is_in_place, results_of, tensors_of
from .composite import simpler
from .steps import DERIVE, OPEN, Source, Sources, Step, UnplannedError

OnOperation = Callable[[Call, Sources, Step], Any]  # the call, its sources by position, its step


class Trace(TorchFunctionMode, abc.ABC):
    """Follow one forward pass.

    Args:
        parameters: by name.
        on_operation: is called with every operation that joins sources with samples, and gives its
            result.
    """

    def __init__(self, parameters: dict[str, Tensor], on_operation: OnOperation) -> None:
        super().__init__()
        self.sources = {id(p): Source(p, frozenset([name])) for name, p in parameters.items()}
        self._on_operation = on_operation
        self.operations = 0  # a hash of all operations, in their order

    def losses(self, objective: Objective, batch: Batch) -> Tensor:
        """Per-sample losses of a batch, shape (n,), while their operations are followed."""
        with eager():
            return objective.losses(batch, self.watching)

    def watching(self, _made: list[Tensor]) -> Trace:
        """The context in which a loss is called with tensors that were put together for it."""
        return self

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__ == "__get__":  # shape, device, ...: most calls, and most give no tensor
            result = func(*args, **kwargs)
            if not isinstance(result, Tensor):
                return result
        self.operations = hash((self.operations, func))
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

    @abc.abstractmethod
    def without_sources(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation that is given no parameter."""

    @abc.abstractmethod
    def given_sources(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation that is given a parameter."""

    def take(self, step: Step, args: Any, kwargs: Any) -> Any:
        """Run an operation as its step says."""
        if step.kind == OPEN:
            inner = simpler(step.func)
            assert inner is not None  # or the step would be no OPEN
            with self:
                return inner(*args, **kwargs)
        if step.kind == DERIVE:
            return self._derive(step.func, args, kwargs)
        call = Call(step.func, args, kwargs)
        own = {i: self.sources[id(t)] for i, t in enumerate(call.tensors) if id(t) in self.sources}
        if step.dependent and step.places != (call.places, tuple(own)):
            raise UnplannedError
        result = self._on_operation(call, own, step)
        if is_in_place(step.func):  # what was of parameters alone no longer is
            self.sources.pop(id(args[0]), None)
        return result

    def _derive(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        made = [t for t in results_of(func, args, result) if t.requires_grad]
        if made:
            given = (self.sources.get(id(t)) for t in tensors_of((args, kwargs.values())))
            names = frozenset[str]().union(*(source.parameters for source in given if source))
            for tensor in made:
                self.sources.setdefault(id(tensor), Source(tensor, names, derived=True))
        return result


class Replay(Trace):
    """Takes the steps of a plan.

    Args:
        parameters, on_operation: as of `Trace`.
        plan: the steps.
    """

    def __init__(
        self, parameters: dict[str, Tensor], on_operation: OnOperation, plan: list[Step]
    ) -> None:
        super().__init__(parameters, on_operation)
        self._plan, self._taken = plan, 0

    def losses(self, objective: Objective, batch: Batch) -> Tensor:
        """Per-sample losses of a batch, shape (n,).

        Raises:
            UnplannedError: the operations of the model are not those of the plan.
        """
        losses = super().losses(objective, batch)
        if self._taken < len(self._plan):
            raise UnplannedError
        return losses

    def without_sources(self, func: Any, args: Any, kwargs: Any) -> Any:
        return func(*args, **kwargs)

    def given_sources(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self._taken == len(self._plan) or self._plan[self._taken].func != func:
            raise UnplannedError
        self._taken += 1
        return self.take(self._plan[self._taken - 1], args, kwargs)
