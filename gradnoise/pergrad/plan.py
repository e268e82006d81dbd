"""Where the samples are at each use of a parameter, found on a few and held to the truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import EngineError
from ..objective import Objective
from ..trees import Batch, sample_count, sample_leaves
from .forms import Measured, sq_norms
from .layout import find_layout
from .trace import USE, Call, Sources, Step, Watch, eager, name_of, refuse_in_place


class Planner:
    """Finds where the samples are, and the truth about a few of them."""

    def __init__(self, objective: Objective, batch: Batch) -> None:
        self.objective, self.count = objective, sample_count(batch)
        self._outputs: list[Tensor] = []
        trace = Watch(objective.parameters, self._use, sample_leaves(batch), self.count)
        with eager():
            losses = objective.losses(batch, trace)
        self._steps = trace.steps
        outputs = [output for output in self._outputs if output.requires_grad]
        names = list(objective.parameters)
        inputs = [*objective.parameters.values(), *outputs]
        self._norms: dict[str, list[Tensor]] = {name: [] for name in names}
        self._sums = {name: torch.zeros_like(p) for name, p in objective.parameters.items()}
        cotangents: list[list[Tensor]] = [[] for _ in outputs]
        for loss in losses if losses.requires_grad else ():
            found = torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True)
            dense = [_dense(g, t) for g, t in zip(found, inputs, strict=True)]
            for name, gradient in zip(names, dense, strict=False):
                self._norms[name].append(sq_norms(gradient[None]).sqrt())
                self._sums[name] += gradient
            for column, gradient in zip(cotangents, dense[len(names) :], strict=True):
                column.append(gradient)
        self._cotangents = [torch.stack(column) for column in cotangents]

    def _use(self, call: Call, _sources: Sources, _step: Step) -> Any:
        refuse_in_place(call)
        output = call.run(call.tensors)
        if not isinstance(output, Tensor):
            raise EngineError(f"{call.name} uses a parameter and gives several outputs")
        self._outputs.append(output)
        return output

    def plan(self) -> list[Step]:
        """The steps, with the layouts of the outputs of uses."""
        outputs, cotangents = iter(self._outputs), iter(self._cotangents)
        steps = []
        for step in self._steps:
            if step.kind == USE and (output := next(outputs)).requires_grad:
                layout = find_layout(next(cotangents))
                if layout is None:
                    raise EngineError(
                        f"{name_of(step.func)} gives a tensor of shape {tuple(output.shape)} in "
                        f"which samples have no axis of their own"
                    )
                step = replace(step, layout=layout)
            steps.append(step)
        return steps

    def compare(self, measured: Callable[[str], Measured], eps: float) -> None:
        """Raise unless sums and norms are those of the losses differentiated one by one."""
        sizes = {name: torch.cat(own) for name, own in self._norms.items() if own}
        largest = max((float(size.max()) for size in sizes.values()), default=0.0)
        for name, size in sizes.items():
            found = measured(name)
            own = max(torch.finfo(self.objective.parameters[name].dtype).eps, eps)
            # what cancels to zero (the bias of attention keys) is rounding of the largest
            allowed = math.sqrt(own) * (size + size.mean()) + 64 * own * largest
            if bool(((found.sq_norms.sqrt() - size).abs() > allowed).any()):
                raise EngineError(f"the norms of parameter {name!r} differ from the plain ones")
            gap = sq_norms((found.total - self._sums[name])[None]).sqrt()
            if bool(gap > allowed.sum()):
                raise EngineError(f"the gradient of parameter {name!r} differs from the plain one")


def _dense(gradient: Tensor | None, like: Tensor) -> Tensor:
    if gradient is None:
        return torch.zeros_like(like)
    return gradient.to_dense() if gradient.is_sparse else gradient
