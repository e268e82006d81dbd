"""Graphs of the micro-batches, kept between products while they fit a memory budget.

A product with a Hessian through the graph of the gradient is one backward pass more, about 1.5 to
2 gradients; building the graph costs as much again.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..errors import is_out_of_memory
from ..problem.objective import Objective
from ..problem.problem import Problem
from ..tensors.trees import Batch, sample_count, sample_leaves, select

SIZED_ON = (4, 8)  # samples whose graphs are measured to predict the size of others


class Graph(abc.ABC):
    """The graph of a matrix Σ_i A_i over the samples of one micro-batch."""

    @abc.abstractmethod
    def __init__(self, objective: Objective, batch: Batch) -> None: ...

    @abc.abstractmethod
    def product(self, direction: Sequence[Tensor]) -> list[Tensor | None]:
        """The product with a direction, by parameter; None is zero."""


class GraphCache:
    """The graphs of all micro-batches; as many of them as fit the budget are kept.

    Args:
        problem: the samples and the losses.
        kind: the class of the graphs.
        budget: bytes; 0 keeps none.
    """

    def __init__(self, problem: Problem, kind: type[Graph], budget: int) -> None:
        self._problem, self._kind, self._budget = problem, kind, budget
        self._kept: dict[int, Graph] = {}
        self._point: tuple[object, int] = (
            None,
            0,
        )  # fingerprint of the graphs, and guard in which it was taken
        self._sizes: tuple[float, float] | None = None  # bytes of a graph: constant, and per entry

    def graphs(self) -> Iterator[Graph]:
        """The graph of each micro-batch in turn; call it inside the guard."""
        objective, (point, entered) = self._problem.objective, self._point
        if self._budget and objective.entered != entered:  # compared once per guard
            self._point = now, _ = objective.fingerprint(), objective.entered
            if now != point:
                self._kept = {}
        left = float(self._budget)
        for index, batch in enumerate(self._problem.batches()):
            left -= self._expected(batch)
            graph = self._kept.get(index)
            if graph is None:
                graph = self._kind(self._problem.objective, batch)
                if left >= 0:
                    self._kept[index] = graph
            yield graph

    def forget(self) -> None:
        """Drop all graphs."""
        self._kept.clear()

    @property
    def expected_bytes(self) -> float:
        """Of the graphs of all micro-batches; inf where torch cannot tell."""
        return sum(map(self._expected, self._problem.batches()))

    def _expected(self, batch: Batch) -> float:
        """Bytes of the graph of a micro-batch: those of the gradients, and those per entry."""
        if not self._budget:
            return math.inf
        if self._sizes is None:
            few, more = SIZED_ON
            small, large = self._bytes(few), self._bytes(more)
            if math.isinf(small + large):
                self._sizes = math.inf, 0.0
                return math.inf
            each = (large - small) / (more - few)
            parameters = self._problem.objective.parameters.values()
            ends = sum(p.numel() * p.element_size() for p in parameters)
            entries = _entries(self._problem.largest_batch())
            self._sizes = ends + max(small - few * each, 0.0), each / entries
        return self._sizes[0] + self._sizes[1] * _entries(batch) * sample_count(batch)

    def _bytes(self, count: int) -> float:
        """Bytes that the graph of some samples saves, including parameters and samples.

        inf where torch cannot tell: inside of torch.func and of forward-mode derivatives.
        """
        largest = self._problem.largest_batch()
        index = torch.arange(count) % sample_count(largest)
        saved: list[Tensor] = []

        def pack(tensor: Tensor) -> int:
            saved.append(tensor)
            return len(saved) - 1

        try:
            with torch.autograd.graph.saved_tensors_hooks(pack, saved.__getitem__):
                self._kind(self._problem.objective, select(largest, index))
            dense = [t._values() if t.is_sparse else t for t in saved]
            storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in dense}
            return sum(storages.values())
        except RuntimeError as error:  # one of the user's own comes again with the graph itself
            if is_out_of_memory(error):
                raise
            return math.inf
        finally:
            saved.clear()  # graph and hooks hold each other


def _entries(batch: Batch) -> float:
    """Numbers in one sample: graphs grow with them where samples differ in length."""
    return max(1.0, sum(leaf[0].numel() for leaf in sample_leaves(batch)))
