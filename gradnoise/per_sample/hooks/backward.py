"""One forward and backward pass with a hook on the output of every operation with parameters."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import EngineError
from ...problem.objective import Objective
from ...tensors.trees import Batch, sample_count, widen
from ..contract.engine import Explained
from ..contract.summary import Summary, Wanted, check_norms
from .call import Call, carry_out, name_of
from .chain_rule import by_chain_rule
from .factored import Asked, FactoredGradients, Measured, Summed, at_least_float32
from .fallback import local
from .rules import RULES, At
from .steps import Source, Sources, Step, UnplannedError
from .tracing import Replay


class BackwardPass:
    """One forward and backward pass over a batch by a plan; the forward pass is run at once.

    Args:
        plan: the steps.
        wanted: the sums to be taken.
        keep: whether gradients are written out later.
        connect_all: whether every output is connected to the tensor that is differentiated with
            respect to, rather than only outputs without a graph of their own.
        mend: as of `Asked`.

    Raises:
        UnplannedError: the operations of the model are not those of the plan.
    """

    def __init__(
        self,
        objective: Objective,
        batch: Batch,
        plan: list[Step],
        wanted: Wanted,
        *,
        keep: bool,
        connect_all: bool,
        mend: bool,
    ) -> None:
        self.objective, self.count = objective, sample_count(batch)
        self.differentiates = False  # whether the backward pass has begun
        self.waiting = 0  # hooks that no gradient has come to
        self._views: list[tuple[Tensor, int]] = []  # outputs, and their versions
        self._wanted, self._keep, self._connect_all = wanted, keep, connect_all
        self._mend = mend
        self._functions: dict[Source, list[Any]] = {}
        self._idle: set[str] = set()  # parameters of operations without a gradient in the plan
        self._pending: dict[Source, list[FactoredGradients]] = {}
        self._measured: dict[str, Measured] = {}
        self._leaf = torch.zeros((), device=objective.device, requires_grad=True)

        try:
            trace = Replay(objective.parameters, self._run, plan)
            losses = trace.losses(objective, batch)
            self.operations = trace.operations
            # a view that is changed in place leaves its node in the graph, and the hook there
            self.lost = any(view._version != version for view, version in self._views)
        finally:
            self._views.clear()  # a graph with hooks that hold this is not to be held by it
        self._losses = None if self.lost else losses  # until they are differentiated
        self.losses = losses.detach()
        self._single = self._used_once()

    def _used_once(self) -> set[Source]:
        """Parameters that only one operation uses, and that nothing else is computed from."""
        shared = {name for s in self._functions if s.derived for name in s.parameters}
        return {
            source
            for source, functions in self._functions.items()
            if len(functions) == 1 and not source.derived and not (source.parameters & shared)
        }

    def _run(self, call: Call, sources: Sources, step: Step) -> Any:
        if step.layout is None:
            self._idle.update(*(source.parameters for source in sources.values()))
            return call.run(call.tensors)
        for index in sources:
            call.tensors[index] = call.tensors[index].detach()
        return carry_out(call, lambda output: self._hook(call, sources, step, output))

    def _hook(self, call: Call, sources: Sources, step: Step, output: Tensor) -> Tensor:
        assert step.layout is not None
        if output.ndim != step.ndim or not step.layout.fits(output, self.count):
            raise UnplannedError
        if step.each == 1 and output.shape[step.layout.axis] > self.count:
            raise UnplannedError  # with one entry per sample, their order was not seen
        for source in sources.values():
            self._functions.setdefault(source, []).append(call.func)
        if self._connect_all or not output.requires_grad:
            output = _Connected.apply(output, self._leaf)  # type: ignore[no-untyped-call]
        elif output._is_view():
            self._views.append((output, output._version))
        self.waiting += 1
        # on the node: hooks of the user's on the output have changed the gradient by then
        assert output.grad_fn is not None
        output.grad_fn.register_prehook(OperationHook(self, call, step, sources, output.output_nr))
        return output

    def arrive(self, hook: OperationHook, delta: Tensor) -> None:
        """Take the factored gradients of one operation from the gradient of its output."""
        assert hook.step.layout is not None  # or there would be no hook
        at = At(hook.step.layout, self.count, delta.dtype)
        for index, factored in hook.factored(at, at_least_float32(delta)).items():
            source = hook.sources[index]
            if source in self._single and not self._keep:
                (name,) = source.parameters
                self._measured[name] = self._measure(name, factored)
            else:
                self._pending.setdefault(source, []).append(factored)

    def _exact(self) -> AbstractContextManager[Any]:
        """Without autocast around the call, so that sums keep float32."""
        device = self.objective.device.type
        if not torch.is_autocast_enabled(device):
            return nullcontext()
        return torch.autocast(device, enabled=False)

    def _measure(self, name: str, factored: FactoredGradients) -> Measured:
        """The sums wanted; with a scale R everything is of R ⊙ g_i."""
        directions, scale = (
            None if given is None else given[name]
            for given in (self._wanted.directions, self._wanted.scale)
        )
        if scale is None:
            return factored.measure(Asked(directions, self._wanted.variance, mend=self._mend))
        along = None if directions is None else directions * scale
        own = factored.measure(Asked(along, self._wanted.variance, scale, self._mend))
        squares = None if own.squares is None else own.squares * scale.square()
        return own._replace(total=own.total * scale, squares=squares)

    def backward(self) -> None:
        """Differentiate the sum of the losses with respect to the outputs of all operations.

        The operations were given their parameters detached, so a gradient that reaches a parameter
        comes from an operation that was not seen.

        Raises:
            UnplannedError: it comes from one that had no gradient in the plan.
        """
        losses, self._losses = self._losses, None  # an error must not leave the graph behind
        if losses is None or not losses.requires_grad:
            return
        parameters = self.objective.parameters
        self.differentiates = True
        self.objective.work.differentiated(self.count)
        with self._exact():
            _, *unseen = torch.autograd.grad(
                losses,
                [self._leaf, *parameters.values()],
                torch.ones_like(losses),
                allow_unused=True,
            )
        for name, gradient in zip(parameters, unseen, strict=True):
            if gradient is None:
                continue
            if name in self._idle:
                raise UnplannedError
            raise EngineError(
                f"parameter {name!r} is used by an operation that the hooks cannot see: a custom "
                f"autograd Function, a scripted part, or an operation outside torch"
            )

    def factored(self, name: str) -> FactoredGradients | None:
        """The gradients of a parameter, all its operations together; None if it has none."""
        parameter = self.objective.parameters[name]
        found = [(s, Summed(own)) for s, own in self._pending.items() if name in s.parameters]
        terms: list[FactoredGradients] = [own for source, own in found if not source.derived]
        derived = [(own, source.tensor) for source, own in found if source.derived]
        terms += by_chain_rule([own for own, _ in derived], [t for _, t in derived], parameter)
        return Summed(terms) if terms else None

    def measured(self, name: str) -> Measured:
        """The sums of one parameter."""
        if name not in self._measured:
            factored = self.factored(name)
            with self._exact():
                self._measured[name] = (
                    self._nothing(name) if factored is None else self._measure(name, factored)
                )
        return self._measured[name]

    def _nothing(self, name: str) -> Measured:
        parameter = self.objective.parameters[name]
        none = widen(torch.zeros(self.count, device=parameter.device))
        squares = widen(torch.zeros_like(parameter)) if self._wanted.variance else None
        asked = self._wanted.directions
        along = None if asked is None else none[:, None].expand(-1, len(asked[name]))
        return Measured(at_least_float32(torch.zeros_like(parameter)), none, along, squares)

    def explained(self, name: str) -> Explained:
        """How the norms of one parameter are found; for passes that keep their gradients."""
        factored = self.factored(name)
        if factored is None:
            return Explained(name, "", "none", "takes no part in the loss", 0.0, 0.0)
        names = [
            name_of(func)
            for source, own in self._functions.items()
            if name in source.parameters
            for func in own
        ]
        calls = [f"{own} ×{names.count(own)}" if names.count(own) > 1 else own for own in names]
        operations = ", ".join(dict.fromkeys(calls))
        return Explained(
            name, operations, *factored.method(), factored.extra_cost(), factored.batch_cost()
        )

    def written_out(self, name: str) -> Tensor:
        """g_i of one parameter, shape (n, *shape)."""
        factored, parameter = self.factored(name), self.objective.parameters[name]
        if factored is None:
            return parameter.new_zeros(self.count, *parameter.shape)
        with self._exact():
            return factored.gradients(slice(0, self.count)).reshape(self.count, *parameter.shape)

    def summary(self) -> Summary:
        """Everything wanted of this batch."""
        parts = {name: self.measured(name) for name in self.objective.parameters}
        norms = {name: part.sq_norms for name, part in parts.items()}
        check_norms(norms)
        squares = {name: p.squares for name, p in parts.items() if p.squares is not None}
        dots = {name: p.dots for name, p in parts.items() if p.dots is not None}
        return Summary(
            losses=self.losses,
            total={name: part.total for name, part in parts.items()},
            sq_norms=norms,
            dots=None if self._wanted.directions is None else dots,
            squares=squares if self._wanted.variance else None,
        )


@dataclass(eq=False)
class OperationHook:
    """The hook on the output of one operation that uses parameters."""

    run: BackwardPass
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

    def factored(self, at: At, delta: Tensor) -> dict[int, FactoredGradients]:
        """Factored gradients for every source, by position among the tensors."""
        tensors = self.call.tensors
        if [tensor._version for tensor in tensors] != self._versions:
            raise EngineError(f"an input of {self.call.name} is changed in place after its use")
        if self.step.arguments is not None:
            args, kwargs = self.call.arguments(tensors)
            made = RULES[self.call.func].factored(at, delta, *args, **kwargs)
            named = zip(self.sources, self.step.arguments, strict=True)
            return {i: made[name]() for i, name in named}
        return local(
            at, delta, self.call.run, tensors, list(self.sources), list(self.step.dependent)
        )


class _Connected(torch.autograd.Function):
    """An output without a graph, connected to a leaf that requires grad."""

    @staticmethod
    def forward(_ctx: Any, output: Tensor, _leaf: Tensor) -> Tensor:
        return output.detach()

    @staticmethod
    def backward(_ctx: Any, delta: Tensor) -> Any:
        return delta, None
