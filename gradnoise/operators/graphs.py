"""Graphs over one micro-batch that are differentiated once more per product, and their keeper.

A product with a Hessian through the graph of the gradient is one backward pass more, about 1.5 to 2
plain gradients; building the graph is as much again. So graphs are kept while they fit a budget.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..errors import CurvatureError
from ..objective import Objective
from ..problem import Problem
from ..trees import Batch, map_samples, sample_count, select

MEMORY_BUDGET = 2**30  # bytes of graphs kept between products
SIZED_ON = (4, 8)  # samples on whose graphs the size of others is read off


class Graph(abc.ABC):
    """The graph of a matrix Σ_i A_i over the samples of one micro-batch."""

    @abc.abstractmethod
    def __init__(self, objective: Objective, batch: Batch) -> None: ...

    @abc.abstractmethod
    def product(self, direction: Sequence[Tensor]) -> list[Tensor | None]:
        """Its product with a direction, by parameter; None is zero."""


class HessianGraph(Graph):
    """H_i: the gradient with its graph."""

    def __init__(self, objective: Objective, batch: Batch) -> None:
        self._parameters = list(objective.parameters.values())
        self._gradient = objective.gradient(batch, create_graph=True)

    def product(self, direction: Sequence[Tensor]) -> list[Tensor | None]:
        return pull(self._gradient, self._parameters, direction)


class GaussNewtonGraph(Graph):
    """J_iᵀ(∂²ℓ_i/∂z²)J_i for z the outputs of the model: its derivatives apart from the loss's.

    Jd is the derivative of Jᵀu in u (double backward), since that is linear in u.
    """

    def __init__(self, objective: Objective, batch: Batch) -> None:
        self._parameters = parameters = list(objective.parameters.values())
        with _outputs_cut(objective) as cut:
            losses = objective.losses(batch)
        outputs, leaves = (list(side) for side in zip(*cut, strict=True)) if cut else ([], [])
        if _reaches(losses, parameters) or not leaves:
            raise CurvatureError(
                "the Gauss-Newton matrix needs a loss of the model's outputs: loss_fn must call "
                "model(...) itself, and use no parameter outside of it"
            )
        slopes = _gradients(losses, leaves)
        used = [i for i, z in enumerate(outputs) if z.requires_grad and slopes[i] is not None]
        self._outputs, self._leaves = [outputs[i] for i in used], [leaves[i] for i in used]
        self._slopes = [slopes[i] for i in used]
        self._weights = [torch.zeros_like(z, requires_grad=True) for z in self._outputs]
        self._pulled = [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(
                parameters,
                pull(self._outputs, parameters, self._weights, create_graph=True),
                strict=True,
            )
        ]

    def product(self, direction: Sequence[Tensor]) -> list[Tensor | None]:
        along = _dense(pull(self._pulled, self._weights, direction), self._weights)
        curved = _dense(pull(self._slopes, self._leaves, along), self._leaves)
        return pull(self._outputs, self._parameters, curved)


def pull(
    outputs: Sequence[Any],
    inputs: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    *,
    create_graph: bool = False,
) -> list[Tensor | None]:
    """Jᵀu of outputs with respect to inputs; the graph stays."""
    pairs = [(z, u) for z, u in zip(outputs, cotangents, strict=True) if z.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    held, weights = zip(*pairs, strict=True)
    found = torch.autograd.grad(
        held, inputs, weights, retain_graph=True, create_graph=create_graph, allow_unused=True
    )
    return [g.to_dense() if g is not None and g.is_sparse else g for g in found]


def _dense(found: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    pairs = zip(found, like, strict=True)
    return [torch.zeros_like(tensor) if g is None else g for g, tensor in pairs]


def _gradients(losses: Tensor, leaves: list[Tensor]) -> list[Tensor | None]:
    return pull([losses], leaves, [torch.ones_like(losses)], create_graph=True)


def _reaches(losses: Tensor, parameters: list[Tensor]) -> bool:
    found = pull([losses], parameters, [torch.ones_like(losses)])
    return any(g is not None for g in found)


@contextmanager
def _outputs_cut(objective: Objective) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Meanwhile the model gives leaves in place of its outputs; both are listed."""
    cut: list[tuple[Tensor, Tensor]] = []

    def replaced(output: Tensor) -> Tensor:
        if not output.is_floating_point():
            return output
        leaf = output.detach().requires_grad_()
        cut.append((output, leaf))
        return leaf

    def hook(_module: Any, _inputs: Any, outputs: Any) -> Any:
        return map_samples(replaced, outputs)

    if isinstance(objective.model, torch.jit.ScriptModule):
        raise CurvatureError(
            "the outputs of a scripted model cannot be told from its loss: pass the module that "
            "was scripted"
        )
    handle = objective.model.register_forward_hook(hook)
    try:
        yield cut
    finally:
        handle.remove()


class Keeper:
    """The graphs of all micro-batches; as many of them as fit the budget are kept.

    Args:
        problem: the samples and the losses.
        kind: of the graphs.
        budget: bytes; 0 keeps none.
    """

    def __init__(self, problem: Problem, kind: type[Graph], budget: int) -> None:
        self._problem, self._kind, self._budget = problem, kind, budget
        self._kept: dict[int, Graph] = {}
        self._state: list[tuple[int, int]] = []
        self._capacity: int | None = None  # samples whose graphs fit

    def graphs(self) -> Iterator[Graph]:
        """Of one micro-batch after the other; inside the guard."""
        state = [(t.data_ptr(), t._version) for t in self._tensors()]
        if state != self._state:  # parameters were trained: the graphs are of other points
            self._kept, self._state = {}, state
        left = self._samples_that_fit()
        for index, batch in enumerate(self._problem.batches()):
            left -= self._problem.samples.counts[index]
            graph = self._kept.get(index)
            if graph is None:
                graph = self._kind(self._problem.objective, batch)
                if left >= 0:
                    self._kept[index] = graph
            yield graph

    def forget(self) -> None:
        """Let go of all graphs."""
        self._kept.clear()

    def _tensors(self) -> list[Tensor]:
        model = self._problem.objective.model
        return [*model.parameters(), *model.buffers()]

    def _samples_that_fit(self) -> int:
        if not self._budget:
            return 0
        if self._capacity is None:
            few, more = SIZED_ON
            small, large = self._bytes(few), self._bytes(more)
            each = max((large - small) / (more - few), 1.0)
            self._capacity = int((self._budget - small) / each) + few
        return self._capacity

    def _bytes(self, count: int) -> int:
        """What the graph of some samples saves, parameters and the samples themselves included."""
        largest = self._problem.largest_batch()
        index = torch.arange(count) % sample_count(largest)
        saved: list[Tensor] = []

        def pack(tensor: Tensor) -> int:
            saved.append(tensor)
            return len(saved) - 1

        with torch.autograd.graph.saved_tensors_hooks(pack, saved.__getitem__):
            graph = self._kind(self._problem.objective, select(largest, index))
        dense = [t._values() if t.is_sparse else t for t in saved]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in dense}
        saved.clear()  # graph and hooks hold each other
        del graph
        return sum(storages.values())
