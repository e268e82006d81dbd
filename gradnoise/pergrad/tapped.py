"""One forward and backward pass with a tap behind every use of a parameter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import EngineError
from ..objective import Objective
from ..trees import Batch, sample_count, widen
from .contract import Explained, Summary, Wanted, check_norms
from .forms import Form, Measured, Sum, at_least_float32
from .local import local
from .pulled import pull_back
from .rules import RULES, At
from .trace import (
    Call,
    Follow,
    Source,
    Sources,
    Step,
    UnplannedError,
    carry_out,
    eager,
)


class Pass:
    """One forward and backward pass over a batch by a plan."""

    def __init__(
        self, objective: Objective, batch: Batch, plan: list[Step], wanted: Wanted, keep: bool
    ) -> None:
        self.objective, self.count = objective, sample_count(batch)
        self.eps = 0.0
        self._batch, self._plan, self._wanted, self._keep = batch, plan, wanted, keep
        self._uses: dict[Source, list[str]] = {}
        self._heads: dict[Source, Tensor] = {}
        self._pending: dict[Source, list[Form]] = {}
        self._recorded: dict[Source, Tensor] = {}
        self._measured: dict[str, Measured] = {}
        self._single: set[Source] = set()

    def forward(self) -> None:
        """Run the model.

        Raises:
            UnplannedError: its operations are not those of the plan.
        """
        trace = Follow(self.objective.parameters, self._use, self._plan)
        with eager():
            losses = self.objective.losses(self._batch, trace)
        if not trace.finished:
            raise UnplannedError
        self._losses: Tensor | None = losses
        self.losses = losses.detach()
        shared = {root for s in self._uses if s.derived for root in s.roots}
        self._single = {
            source
            for source, uses in self._uses.items()
            if len(uses) == 1 and not source.derived and not (source.roots & shared)
        }

    def _use(self, call: Call, sources: Sources, step: Step) -> Any:
        if step.layout is None:
            return call.run(call.tensors)
        call.tensors = [t.detach() if i in sources else t for i, t in enumerate(call.tensors)]
        return carry_out(call, lambda output: self._tap(call, sources, step, output))

    def _tap(self, call: Call, sources: Sources, step: Step, output: Tensor) -> Tensor:
        assert step.layout is not None
        if output.ndim != step.ndim or not step.layout.fits(output, self.count):
            raise UnplannedError
        if step.each == 1 and output.shape[step.layout.axis] > self.count:
            raise UnplannedError  # with one entry per sample, their order was not seen
        for source in sources.values():
            self._uses.setdefault(source, []).append(call.name)
        heads = [self._head(source) for source in sources.values()]
        tensors, call.tensors = call.tensors, []  # held by the tap, where changes are noticed
        if step.arguments is not None and not RULES[call.func].values:
            tensors = [t.new_empty(()).expand(t.shape) for t in tensors]
        tap = Use(self, call, step, sources)
        return _Tap.apply(  # type: ignore[no-any-return, no-untyped-call]
            output, tap, len(tensors), *tensors, *heads
        )

    def _head(self, source: Source) -> Tensor:
        """What gradients are returned to: the parameter, or a leaf in place of what is derived."""
        if not source.derived:
            return source.tensor
        if source not in self._heads:
            self._heads[source] = source.tensor.detach().requires_grad_()
        return self._heads[source]

    def arrive(self, use: Use, delta: Tensor, tensors: list[Tensor]) -> list[Tensor]:
        """Take the forms of one use; give their sums, as gradients of its sources."""
        assert use.step.layout is not None  # or there would be no tap
        at = At(use.step.layout, self.count, delta.dtype)
        self.eps = max(self.eps, torch.finfo(delta.dtype).eps)
        forms = use.forms(at, at_least_float32(delta), tensors)
        return [self._record(use.sources[i], form) for i, form in forms.items()]

    def _record(self, source: Source, form: Form) -> Tensor:
        if source in self._single and not self._keep:
            (name,) = source.roots
            self._measured[name] = form.measure(self._direction(name), self._wanted.variance)
            total = self._measured[name].total
        else:
            self._pending.setdefault(source, []).append(form)
            total = form.spend() if source not in self._single else form.total()
        if total.dtype != source.tensor.dtype:
            total = total.to(source.tensor.dtype)
        known = self._recorded.get(source)
        self._recorded[source] = total if known is None else known + total
        return total

    def _exact(self) -> torch.autocast:
        """Without the autocast that may be around the call: sums keep float32."""
        return torch.autocast(self.objective.device.type, enabled=False)

    def _direction(self, name: str) -> Tensor | None:
        return None if self._wanted.direction is None else self._wanted.direction[name]

    def backward(self) -> None:
        """Differentiate the sum of the losses; every parameter's gradient passes the taps."""
        parameters = list(self.objective.parameters.values())
        inputs = [*parameters, *self._heads.values()]
        gradients: Any = [None] * len(inputs)
        losses, self._losses = self._losses, None  # an error must not leave the graph behind
        if losses is not None and losses.requires_grad:
            ones = torch.ones_like(losses)
            with self._exact():
                gradients = torch.autograd.grad(losses, inputs, ones, allow_unused=True)
        recorded = {id(self._head(s)): total for s, total in self._recorded.items()}
        names = [*self.objective.parameters, *(", ".join(sorted(s.roots)) for s in self._heads)]
        for name, tensor, gradient in zip(names, inputs, gradients, strict=True):
            _check_seen(name, gradient, recorded.get(id(tensor)))

    def form(self, name: str) -> Form | None:
        """The gradients of a parameter, all its uses together; None where it took no part."""
        parameter = self.objective.parameters[name]
        uses = [(s, Sum(own)) for s, own in self._pending.items() if name in s.roots]
        forms: list[Form] = [form for source, form in uses if not source.derived]
        derived = [(form, source.tensor) for source, form in uses if source.derived]
        forms += pull_back([form for form, _ in derived], [t for _, t in derived], parameter)
        return Sum(forms) if forms else None

    def measured(self, name: str) -> Measured:
        """The sums of one parameter."""
        if name not in self._measured:
            form = self.form(name)
            with self._exact():
                self._measured[name] = (
                    self._nothing(name)
                    if form is None
                    else form.measure(self._direction(name), self._wanted.variance)
                )
        return self._measured[name]

    def _nothing(self, name: str) -> Measured:
        parameter = self.objective.parameters[name]
        none = widen(torch.zeros(self.count, device=parameter.device))
        squares = widen(torch.zeros_like(parameter)) if self._wanted.variance else None
        return Measured(torch.zeros_like(parameter), none, none, squares)

    def explained(self, name: str) -> Explained:
        """How the norms of one parameter are found; for passes that keep their forms."""
        form = self.form(name)
        if form is None:
            return Explained(name, "", "none", "takes no part in the loss", 0.0, 0.0)
        uses = [use for source, own in self._uses.items() if name in source.roots for use in own]
        calls = [f"{use} ×{uses.count(use)}" if uses.count(use) > 1 else use for use in uses]
        operations = ", ".join(dict.fromkeys(calls))
        return Explained(name, operations, *form.method(), form.extra(), form.plain())

    def written_out(self, name: str) -> Tensor:
        """g_i of one parameter, shape (n, *shape)."""
        form, parameter = self.form(name), self.objective.parameters[name]
        if form is None:
            return parameter.new_zeros(self.count, *parameter.shape)
        with self._exact():
            return form.gradients(slice(0, self.count)).reshape(self.count, *parameter.shape)

    def summary(self) -> Summary:
        """Everything wanted of this batch."""
        parts = {name: self.measured(name) for name in self.objective.parameters}
        norms = {name: part.sq_norms for name, part in parts.items()}
        check_norms(norms)
        squares = {name: p.squares for name, p in parts.items() if p.squares is not None}
        return Summary(
            losses=self.losses,
            total={name: part.total for name, part in parts.items()},
            sq_norms=norms,
            dots=self._dots(parts),
            squares=squares if self._wanted.variance else None,
        )

    def _dots(self, parts: dict[str, Measured]) -> Tensor | None:
        if self._wanted.direction is None:
            return None
        return torch.stack([p.dots for p in parts.values() if p.dots is not None]).sum(0)


def _check_seen(name: str, gradient: Tensor | None, recorded: Tensor | None) -> None:
    """Raise unless the gradient that autograd found is the sum of what the taps returned."""
    if gradient is None and recorded is None:
        return
    if gradient is not None and recorded is not None:
        if gradient.data_ptr() == recorded.data_ptr() or not gradient.numel():
            return
        eps = torch.finfo(gradient.dtype).eps
        gap, scale = (gradient - recorded).abs().max(), recorded.abs().max()
        # what is not finite is named later, by sample
        if bool(gap <= min(math.sqrt(eps), 64 * eps) * scale) or not bool(torch.isfinite(gap)):
            return
    raise EngineError(
        f"parameter {name!r} is used where its samples cannot be seen: a custom autograd Function, "
        f"a scripted part, or an operation outside torch"
    )


@dataclass(eq=False)
class Use:
    """One use of parameters in one pass."""

    run: Pass
    call: Call
    step: Step
    sources: Sources

    def forms(self, at: At, delta: Tensor, tensors: list[Tensor]) -> dict[int, Form]:
        """A form for every source, by position among the tensors."""
        if self.step.arguments is not None:
            args, kwargs = self.call.arguments(tensors)
            made = RULES[self.call.func].forms(at, delta, *args, **kwargs)
            named = zip(self.sources, self.step.arguments, strict=True)
            return {i: made[name]() for i, name in named}
        return local(
            at, delta, self.call.run, tensors, list(self.sources), list(self.step.dependent)
        )


class _Tap(torch.autograd.Function):
    """The identity on an operation's output; its backward is where samples are looked at."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, use: Use, count: int, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors[:count])
        ctx.use = use
        return output.detach()

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Any:
        tensors = [tensor.detach() for tensor in ctx.saved_tensors]
        totals = ctx.use.run.arrive(ctx.use, delta, tensors)
        return (delta, None, None, *(None for _ in tensors), *totals)
