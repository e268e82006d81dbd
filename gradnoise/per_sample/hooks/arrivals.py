"""Per-sample gradients as they arrive: at the outputs of operations, in a backward pass."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import EngineError
from ...problem.shards import Shards
from ...tensors.trees import TensorDict, widen
from ..contract.summary import Wanted
from .call import Call
from .chain_rule import by_chain_rule
from .factored import Asked, FactoredGradients, Measured, Summed, at_least_float32
from .fallback import local
from .rules import RULES, At
from .steps import Source, Sources, Step, UnplannedError


class Arrivals:
    """Hooks on the outputs of operations, and what is made of the gradients that come there.

    Args:
        parameters: by name.
        count: samples n.
        wanted: the sums to be taken.
        keep: whether gradients are written out later.
        mend, total: as of `Asked`.
        shards: where ranks share the parameters: directions and sums are then parts of this rank,
            sums those over the samples of all ranks.
    """

    def __init__(
        self,
        parameters: TensorDict,
        count: int,
        wanted: Wanted,
        *,
        keep: bool = False,
        mend: bool = True,
        total: bool = True,
        shards: Shards | None = None,
    ) -> None:
        self.parameters, self.count = parameters, count
        self.rows: slice | None = None  # of samples that are measured; None for all
        self.differentiates = False  # whether the backward pass has begun
        self.waiting = 0  # hooks that no gradient has come to
        self._views: list[tuple[Tensor, int]] = []  # outputs, and their versions
        self._wanted, self._keep, self._mend, self._total = wanted, keep, mend, total
        self._shards = shards
        self._valued: set[str] = set()  # parameters whose values are needed once all has arrived
        self._functions: dict[Source, list[Any]] = {}
        self._pending: dict[Source, list[FactoredGradients]] = {}
        self._measured: dict[str, Measured] = {}
        self._single: set[Source] = set()

    @property
    def device(self) -> torch.device:
        """Of the parameters."""
        return next(iter(self.parameters.values())).device

    def used_once(self) -> set[Source]:
        """Parameters that only one operation uses, and that nothing else is computed from."""
        shared = {name for s in self._functions if s.derived for name in s.parameters}
        return {
            source
            for source, functions in self._functions.items()
            if len(functions) == 1 and not source.derived and not (source.parameters & shared)
        }

    def hook(self, call: Call, sources: Sources, step: Step, output: Tensor) -> Tensor:
        """Wait for the gradient of an operation's output, which has a graph."""
        for source in sources.values():
            self._functions.setdefault(source, []).append(call.func)
        self.waiting += 1
        # on the node: hooks of the user's on the output have changed the gradient by then
        assert output.grad_fn is not None
        output.grad_fn.register_prehook(self.hook_of(call, sources, step, output))
        return output

    def hook_of(self, call: Call, sources: Sources, step: Step, output: Tensor) -> OperationHook:
        """The hook on one output."""
        return OperationHook(self, call, step, sources, output.output_nr)

    def watch(self, output: Tensor) -> None:
        """Remember the version of a view: one that is changed in place leaves the hook behind."""
        if output._is_view():
            self._views.append((output, output._version))

    def has_lost_views(self) -> bool:
        """Whether a view that has a hook was changed in place since; forgets them."""
        lost = any(view._version != version for view, version in self._views)
        self._views.clear()  # a graph with hooks that hold this is not to be held by it
        return lost

    def check_layout(self, step: Step, output: Tensor) -> None:
        """Raise UnplannedError where the samples are not where the plan has them."""
        assert step.layout is not None
        if output.ndim != step.ndim or not step.layout.fits(output, self.count):
            raise UnplannedError
        if step.each == 1 and output.shape[step.layout.axis] > self.count:
            raise UnplannedError  # with one entry per sample, their order was not seen

    def arrive(self, hook: OperationHook, delta: Tensor) -> None:
        """Take the factored gradients of one operation from the gradient of its output."""
        assert hook.step.layout is not None  # or there would be no hook
        at = At(hook.step.layout, self.count, delta.dtype)
        for index, factored in hook.factored(at, delta, self.rows).items():
            source = hook.sources[index]
            if source in self._single and not self._keep:
                (name,) = source.parameters
                self._measured[name] = self._measure(name, factored)
            else:
                self._pending.setdefault(source, []).append(factored)
                if source.derived or hook.step.arguments is None:
                    self._valued |= source.parameters

    def exact(self) -> AbstractContextManager[Any]:
        """Without autocast around the call, so that sums keep float32."""
        device = self.device.type
        if not torch.is_autocast_enabled(device):
            return nullcontext()
        return torch.autocast(device, enabled=False)

    def _measure(self, name: str, factored: FactoredGradients) -> Measured:
        """The sums wanted; with a scale R everything is of R ⊙ g_i."""
        directions, scale = self._whole(name)
        along = None if directions is None or scale is None else directions * scale
        asked = Asked(
            directions if scale is None else along,
            self._wanted.variance,
            scale,
            self._mend,
            self._total,
        )
        own = factored.measure(asked)
        if scale is not None:
            squares = None if own.squares is None else own.squares * scale.square()
            total = None if own.total is None else own.total * scale
            own = own._replace(total=total, squares=squares)
        return self._parted(name, own)

    def _whole(self, name: str) -> tuple[Tensor | None, Tensor | None]:
        """Directions and scale of one parameter, gathered where ranks hold parts of them."""
        directions, scale = (
            None if given is None else given[name]
            for given in (self._wanted.directions, self._wanted.scale)
        )
        if self._shards is not None:
            directions = None if directions is None else self._shards.full_rows(name, directions)
            scale = None if scale is None else self._shards.full(name, scale)
        return directions, scale

    def _parted(self, name: str, own: Measured) -> Measured:
        """Sums over the samples of all ranks, of which this one keeps its part."""
        if self._shards is None:
            return own
        total, squares = (
            None if whole is None else self._shards.reduce_scattered(name, whole)
            for whole in (own.total, own.squares)
        )
        return own._replace(total=total, squares=squares)

    def factored(self, name: str) -> FactoredGradients | None:
        """The gradients of a parameter, all its operations together; None if it has none."""
        parameter = self.origin(name)
        found = [(s, Summed(own)) for s, own in self._pending.items() if name in s.parameters]
        terms: list[FactoredGradients] = [own for source, own in found if not source.derived]
        derived = [(own, source.tensor) for source, own in found if source.derived]
        terms += by_chain_rule([own for own, _ in derived], [t for _, t in derived], parameter)
        return Summed(terms) if terms else None

    def origin(self, name: str) -> Tensor:
        """The parameter that derived sources are differentiated with respect to."""
        return self.parameters[name]

    def measured(self, name: str) -> Measured:
        """The sums of one parameter."""
        if name not in self._measured:
            with self._present(name), self.exact():
                factored = self.factored(name)
                self._measured[name] = (
                    self._nothing(name) if factored is None else self._measure(name, factored)
                )
        return self._measured[name]

    def _present(self, name: str) -> AbstractContextManager[Any]:
        """A parameter is whole here, after its layer's turn, where its value is needed."""
        if self._shards is None or name not in self._valued:
            return nullcontext()
        return self._shards.unsharded_now(name)

    def _nothing(self, name: str) -> Measured:
        parameter = self.parameters[name]
        count = self.count if self.rows is None else len(range(self.count)[self.rows])
        none = widen(torch.zeros(count, device=parameter.device))
        squares = widen(torch.zeros_like(parameter)) if self._wanted.variance else None
        asked = self._wanted.directions
        along = None if asked is None else none[:, None].expand(-1, len(asked[name]))
        total = at_least_float32(torch.zeros_like(parameter)) if self._total else None
        return self._parted(name, Measured(total, none, along, squares))


@dataclass(eq=False)
class OperationHook:
    """The hook on the output of one operation that uses parameters."""

    run: Arrivals
    call: Call
    step: Step
    sources: Sources
    output: int = 0  # which one of its node

    def __post_init__(self) -> None:
        tensors = self.call.tensors
        if self.step.arguments is not None and not RULES[self.call.func].values:
            tensors = [t.new_empty(()).expand(t.shape) for t in tensors]
        # an input that is changed in place later would hold the graph that holds this hook
        self.call.tensors = [t.detach() if t.requires_grad else t for t in tensors]
        self._versions = [tensor._version for tensor in tensors]

    def __call__(self, deltas: tuple[Tensor | None, ...]) -> None:
        """Hand the gradient of the output to the pass, and let go of the inputs."""
        if not self.run.differentiates or not self.call.tensors:  # too early, or a second time
            raise EngineError(
                "loss_fn calls torch.autograd.grad or .backward() through the model (a gradient "
                "penalty, forces), which the hooks do not support"
            )
        self.run.waiting -= 1
        delta = deltas[self.output]
        if delta is not None:
            self.run.arrive(self, delta)
        self.call.tensors = []

    def factored(
        self, at: At, delta: Tensor, rows: slice | None = None
    ) -> dict[int, FactoredGradients]:
        """Factored gradients for every source, by position among the tensors.

        Args:
            rows: samples that are wanted; None for all.
        """
        tensors = self.call.tensors
        if [tensor._version for tensor in tensors] != self._versions:
            raise EngineError(f"an input of {self.call.name} is changed in place after its use")
        if self.step.arguments is None:
            wide, dependent = at_least_float32(delta), list(self.step.dependent)
            found = local(at, wide, self.call.run, tensors, list(self.sources), dependent)
        else:
            if rows is not None and self._has_rows(at, delta, tensors):
                tensors = [
                    _some(at, t, rows) if i in self.step.dependent else t
                    for i, t in enumerate(tensors)
                ]
                count = len(range(at.samples)[rows])
                at, delta, rows = at._replace(samples=count), _some(at, delta, rows), None
            args, kwargs = self.call.arguments(tensors)
            wide = at_least_float32(delta)
            made = RULES[self.call.func].factored(at, wide, *args, **kwargs)
            named = zip(self.sources, self.step.arguments, strict=True)
            found = {i: made[name]() for i, name in named}
        return found if rows is None else {i: own.some(rows) for i, own in found.items()}

    def _has_rows(self, at: At, delta: Tensor, tensors: list[Tensor]) -> bool:
        """Whether the samples lie along the first dimension of all tensors, parameters apart.

        Where a tensor is of neither kind, such as positions that the model makes, it is not known
        whether it has entries for every sample.
        """
        others = [i for i in range(len(tensors)) if i not in self.sources]
        alike = all(
            i in self.step.dependent
            and tensors[i].ndim == delta.ndim
            and len(tensors[i]) == len(delta)
            for i in others
        )
        return bool(others) and alike and at.layout.major and not at.layout.axis


def _some(at: At, tensor: Tensor, rows: slice) -> Tensor:
    """Some of the samples along the first dimension."""
    each = len(tensor) // at.samples
    return tensor.reshape(at.samples, each, *tensor.shape[1:])[rows].flatten(0, 1)
