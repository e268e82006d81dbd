"""One forward and backward pass with a hook on the output of every operation with parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...errors import EngineError
from ...problem.objective import Objective
from ...tensors.trees import Batch, sample_count
from ..contract.engine import Explained
from ..contract.summary import Summary, Wanted, check_norms
from .arrivals import Arrivals
from .call import Call, carry_out, name_of
from .steps import Sources, Step, UnplannedError
from .tracing import Replay


class BackwardPass(Arrivals):
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
        super().__init__(
            objective.parameters,
            sample_count(batch),
            wanted,
            keep=keep,
            mend=mend,
            total=wanted.total,
            shards=objective.shards,
        )
        self.objective, self._connect_all = objective, connect_all
        self._idle: set[str] = set()  # parameters of operations without a gradient in the plan
        self._leaf = torch.zeros((), device=objective.device, requires_grad=True)
        try:
            trace = Replay(objective.parameters, self._run, plan)
            losses = trace.losses(objective, batch)
            self.operations = trace.operations
        finally:
            self.lost = self.has_lost_views()
        self._losses = None if self.lost else losses  # until they are differentiated
        self.losses = losses.detach()
        self._single = self.used_once()

    def _run(self, call: Call, sources: Sources, step: Step) -> Any:
        if step.layout is None:
            self._idle.update(*(source.parameters for source in sources.values()))
            return call.run(call.tensors)
        for index in sources:
            call.tensors[index] = call.tensors[index].detach()
        return carry_out(call, lambda output: self._connected(call, sources, step, output))

    def _connected(self, call: Call, sources: Sources, step: Step, output: Tensor) -> Tensor:
        self.check_layout(step, output)
        if self._connect_all or not output.requires_grad:
            output = _Connected.apply(output, self._leaf)  # type: ignore[no-untyped-call]
        else:
            self.watch(output)
        return self.hook(call, sources, step, output)

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
        with self.exact():
            _, *unseen = torch.autograd.grad(
                losses,
                [self._leaf, *parameters.values()],
                torch.full_like(losses, 0.0 if self._wanted.idle else 1.0),
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
        factored, parameter = self.factored(name), self.parameters[name]
        if factored is None:
            return parameter.new_zeros(self.count, *parameter.shape)
        with self.exact():
            return factored.gradients(slice(0, self.count)).reshape(self.count, *parameter.shape)

    def summary(self) -> Summary:
        """Everything wanted of this batch."""
        parts = {name: self.measured(name) for name in self.parameters}
        if self._wanted.idle:
            self.losses = self.losses[:0]
            parts = {name: part.of_none() for name, part in parts.items()}
        norms = {name: part.sq_norms for name, part in parts.items()}
        check_norms(norms)
        squares = {name: p.squares for name, p in parts.items() if p.squares is not None}
        dots = {name: p.dots for name, p in parts.items() if p.dots is not None}
        return Summary(
            losses=self.losses,
            total={n: part.total for n, part in parts.items() if part.total is not None},
            sq_norms=norms,
            dots=None if self._wanted.directions is None else dots,
            squares=squares if self._wanted.variance else None,
        )


class _Connected(torch.autograd.Function):
    """An output without a graph, connected to a leaf that requires grad."""

    @staticmethod
    def forward(_ctx: Any, output: Tensor, _leaf: Tensor) -> Tensor:
        return output.detach()

    @staticmethod
    def backward(_ctx: Any, delta: Tensor) -> Any:
        return delta, None
