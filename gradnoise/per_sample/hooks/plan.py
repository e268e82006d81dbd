"""Where the samples are at each operation that uses parameters: found on a few, then checked."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import EngineError
from ...problem.objective import Objective, dense
from ...problem.shards import Shards, as_they_come
from ...tensors.random import generator
from ...tensors.sums import dots
from ...tensors.trees import Batch, TensorDict, sample_count, sample_leaves
from .call import Call, carry_out, name_of, refuse_in_place
from .discovery import Discovery
from .factored import Asked, Materialised, Measured
from .layout import find_layout, touched, weighted_layout
from .precision import allowed, largest_of
from .steps import USE, Sources, Step
from .tracing import OnOperation, Replay

_DIFFERS = "differ from those of one backward pass per sample"
SPREAD = 8  # of rounding along a random direction, in units of what norms may differ by


@dataclass(frozen=True, eq=False)
class _Look:
    """A forward pass, and its losses differentiated one by one.

    Args:
        steps, reorders: as of `Discovery`.
        outputs: of the operations that use parameters.
        columns: for each output and loss the gradient, (n, ...); None where no loss depends on it.
        truth: reference norms, and products with the planner's direction, by name.
        more: positions of steps that turned out to have an entry for every sample.
    """

    steps: list[Step]
    reorders: bool
    outputs: list[Tensor]
    columns: list[Tensor | None]
    truth: dict[str, Measured]
    more: frozenset[int]


class Planner:
    """Finds where the samples are, and computes the reference norms of a few of them.

    Args:
        objective, batch: what is differentiated.
        compares: whether there are to be reference norms; without them no gradient of a parameter
            is computed.

    Attributes:
        steps: those of the forward pass, with the layouts of their outputs.
        reorders: whether data pick the samples before an operation.
        direction: a random one, with which the products of the few gradients are computed.
    """

    def __init__(self, objective: Objective, batch: Batch, compares: bool = True) -> None:
        self.objective, self.batch, self.count = objective, batch, sample_count(batch)
        self._compared = objective.parameters if compares else {}
        self._shards = objective.shards
        self.direction = _direction(self._compared, self._shards)
        own: frozenset[int] = frozenset()
        found = self._look(own)
        while found.more:  # entries for every sample, made from parameters alone
            own |= found.more
            found = self._look(own)
        # what the operations gave is not kept
        self.steps, self.reorders, self._truth = self._plan(found), found.reorders, found.truth

    def _look(self, own: frozenset[int]) -> _Look:
        outputs: list[Tensor] = []
        leaves = sample_leaves(self.batch)
        trace = Discovery(self.objective.parameters, _keeping(outputs), leaves, own)
        losses = trace.losses(self.objective, self.batch)
        self._same(losses.detach(), self.objective.losses(self.batch).detach())
        derived = {
            i: t
            for i, t in trace.derived.items()
            if any(size % self.count == 0 for size in t.shape)
        }
        seen = [i for i, output in enumerate(outputs) if output.requires_grad]
        truth, found = self._differentiate(losses, [*(outputs[i] for i in seen), *derived.values()])
        columns: list[Tensor | None] = [None] * len(outputs)
        for i, column in zip(seen, found, strict=False):
            columns[i] = column
        more = self._uses(dict(zip(derived, found[len(seen) :], strict=True)))
        return _Look(trace.steps, trace.reorders, outputs, columns, truth, more)

    def _uses(self, derived: dict[int, Tensor | None]) -> frozenset[int]:
        """The first tensor made from parameters alone that has entries for every sample."""
        for position, column in derived.items():
            found = None if column is None else find_layout(column)
            if self.count > 1 and found is not None and found.proven:
                return frozenset([position])
        return frozenset()

    def _same(self, traced: Tensor, plain: Tensor) -> None:
        """Raise unless the losses are the same with operations opened and not."""
        allowed = math.sqrt(torch.finfo(plain.dtype).eps) * plain.abs().mean()
        if not bool(((traced - plain).abs() <= allowed).all()):
            raise EngineError(
                "the losses change when the model is evaluated again: it is random, or has a state"
            )

    def _differentiate(
        self, losses: Tensor, outputs: list[Tensor]
    ) -> tuple[dict[str, Measured], list[Tensor | None]]:
        """Norms and products by parameter; where the losses touch each output, if anywhere."""
        parameters = self._compared
        inputs = [*parameters.values(), *outputs]
        truth: dict[str, Measured] = {}
        columns: list[list[Tensor]] = [[] for _ in outputs]
        reached: set[int] = set()
        for loss in losses:
            found: Any = [None] * len(inputs)
            own: dict[str, Measured] = {}
            if loss.requires_grad and inputs:
                with as_they_come(parameters, functools.partial(self._measure, own)):
                    found = torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True)
            for (name, parameter), gradient in zip(parameters.items(), found, strict=False):
                if name not in own:
                    self._measure(own, name, dense(gradient, parameter))
                truth[name] = truth[name].joined(own[name]) if name in truth else own[name]
            behind = found[len(parameters) :]
            for column, gradient, output in zip(columns, behind, outputs, strict=True):
                column.append(touched(gradient, output))
            reached |= {i for i, g in enumerate(behind) if g is not None}
        stacked = [torch.stack(own) if i in reached else None for i, own in enumerate(columns)]
        return truth, stacked

    def _measure(self, own: dict[str, Measured], name: str, gradient: Tensor) -> None:
        """Keep the sums of one sample, without its gradient."""
        direction, shards = self.direction[name], self._shards
        if shards is not None:
            direction = shards.full_rows(name, direction)
        own[name] = Materialised(gradient[None]).measure(Asked(direction, total=False))

    def _plan(self, found: _Look) -> list[Step]:
        operations = iter(zip(found.outputs, found.columns, strict=True))
        return [
            self._placed(step, *next(operations)) if step.kind == USE else step
            for step in found.steps
        ]

    def _placed(self, step: Step, output: Tensor, column: Tensor | None) -> Step:
        if column is None:
            return step
        found = find_layout(column)
        if found is None:
            raise _no_layout(step, output)
        return step.at(found, output, self.count)

    def compare(self, measured: Callable[[str], Measured], eps: float) -> None:
        """Raise unless norms and products are those of the losses differentiated one by one.

        Args:
            measured: what a pass along `direction` found, by the name of the parameter.
            eps: relative rounding of the coarsest dtype at work beside the parameters'.
        """
        sizes = {name: own.sq_norms.sqrt() for name, own in self._truth.items()}
        largest = largest_of(sizes.values())
        for name, size in sizes.items():
            if not bool(size.isfinite().all()):
                continue
            found, truth = measured(name), self._truth[name]
            own = max(torch.finfo(self.objective.parameters[name].dtype).eps, eps)
            margin = allowed(size, largest, own)
            if not bool(((found.sq_norms.sqrt() - size).abs() <= margin).all()):
                raise EngineError(f"the gradient norms of parameter {name!r} {_DIFFERS}")
            assert found.dots is not None  # all was measured along the direction
            assert truth.dots is not None
            if found.total is not None and self._shards is None:  # whose total is a rank's part
                along = dots(found.total[None], self.direction[name].to(found.total))
                if not bool((along - truth.dots.sum()).abs() <= SPREAD * margin.sum()):
                    raise EngineError(f"the gradients of parameter {name!r} {_DIFFERS}")
            gaps = (found.dots - truth.dots).abs()[:, 0]
            if not bool((gaps <= SPREAD * margin).all()):
                raise EngineError(
                    f"products of the gradients of parameter {name!r} with a direction {_DIFFERS}"
                )


def _direction(parameters: TensorDict, shards: Shards | None) -> TensorDict:
    """A random direction; each part begins inside its memory, as the parts of a vector do.

    Of parameters that ranks share, this rank's parts.
    """
    if shards is not None and parameters:
        drawn = shards.normals(generator(0))
        return {name: drawn[name][None].to(shards.local_part(name)) for name in parameters}
    places = {p.device for p in parameters.values()}
    sources = {place: torch.Generator(place).manual_seed(0) for place in places}
    return {
        name: torch.randn(
            p.numel() + 1, generator=sources[p.device], device=p.device, dtype=p.dtype
        )[1:].view(1, *p.shape)
        for name, p in parameters.items()
    }


def _keeping(outputs: list[Tensor]) -> OnOperation:
    """Runs every operation as it is, and keeps its output."""

    def keep(call: Call, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise EngineError(f"{call.name} uses a parameter and gives several outputs")
        outputs.append(output)
        return output.clone()  # is what the model may change in place: hooks see it before

    def run(call: Call, _sources: Sources, _step: Step) -> Any:
        refuse_in_place(call)
        return carry_out(call, lambda output: keep(call, output))

    return run


def prove(objective: Objective, batch: Batch, plan: list[Step]) -> list[Step]:
    """The plan with every layout checked on this batch, and made anew where it was not proven.

    Weighing the losses of the samples by powers of two has to scale the gradient at each operation
    sample by sample. The exponents are the digits of the sample's number, so that no two samples
    have the same. Costs a forward pass and, for up to 16, 256, ... samples, two, three, ...
    backward passes without weight gradients.

    Raises:
        EngineError: an operation where it does not.
        UnplannedError: other operations than the plan's.
    """
    outputs: list[Tensor] = []
    trace = Replay(objective.parameters, _keeping(outputs), plan)
    losses = trace.losses(objective, batch)
    inputs = [output for output in outputs if output.requires_grad]
    weights = _digits(len(losses), 4 if any(t.dtype == torch.float16 for t in inputs) else 16)
    columns: list[Any] = [[None] * len(inputs)] * (1 + len(weights))
    if losses.requires_grad and inputs:
        columns = [
            torch.autograd.grad(
                losses, inputs, w.to(losses), retain_graph=left > 0, allow_unused=True
            )
            for left, w in reversed(list(enumerate([*reversed(weights), weights[0] ** 0])))
        ]
    found = {id(t): column for t, *column in zip(inputs, *columns, strict=True)}
    remaining = iter(outputs)
    return [
        _proven(step, output, found[id(output)], weights)
        if step.kind == USE
        and (output := next(remaining)).requires_grad
        and step.layout is not None
        else step
        for step in plan
    ]


def _digits(count: int, base: int) -> list[Tensor]:
    """Powers of one half whose exponents are the digits of 0 … count - 1."""
    numbers, weights = torch.arange(count, device="cpu"), list[Tensor]()
    while not weights or bool(numbers.any()):
        weights.append(0.5 ** (numbers % base))
        numbers = numbers // base
    return weights


def _proven(step: Step, output: Tensor, column: list[Any], weights: list[Tensor]) -> Step:
    plain, *weighted = (torch.zeros_like(output) if g is None else g for g in column)
    found = weighted_layout(plain, weighted, weights)
    if found is None:
        raise _no_layout(step, output)
    if not found.proven and step.proven:  # no gradient here to tell from
        return step
    if step.proven and found.layout != step.layout and step.each > 1:
        raise _no_layout(step, output)
    return step.at(found, output, len(weights[0]))


def _no_layout(step: Step, output: Tensor) -> EngineError:
    return EngineError(
        f"no dimension of the output {tuple(output.shape)} of {name_of(step.func)} indexes the "
        f"samples, so their gradients cannot be separated: keep one dimension for the samples"
    )
