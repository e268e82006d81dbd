"""Ways to compute the product of a Hessian with a vector.

| mode | how | cost in gradients |
|---|---|---|
| kept | one more backward pass through the gradient's graph, which is kept | 1.5 to 2.2 |
| fresh | the same, the graph built for each product | 2.5 to 4 |
| forward | forward mode over reverse mode, by `torch.func` | 2.5 to 4, no second graph |
| finite | central difference of two gradients | 2; 3 or 4 digits where the loss is smooth |

Automatic differentiation leaves the kinks of ReLU and max pooling out of H; differences of
gradients include them, are then far from this H, and are not symmetric.
"""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Generator, Sequence
from contextlib import closing, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, jvp

from ..errors import CurvatureError, first_line, is_out_of_memory
from ..problem.differences import step_length
from ..problem.objective import Bound
from ..problem.problem import TRIAL_SAMPLES, Problem
from ..tensors.fingerprint import fingerprint
from ..tensors.random import generator
from ..tensors.space import Space
from ..tensors.trees import Batch, sample_count, select, unflatten, widen
from .graph_cache import Graph, GraphCache

Parts = Sequence[Tensor | None]  # by parameter; None is zero
Found = Generator[tuple[int, Parts], None, None]


class HessianProducts(abc.ABC):
    """Products of the mean over all samples with directions.

    Args:
        problem: the samples and the losses.
    """

    name: str
    twice = True  # whether the loss is differentiated twice

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    @property
    def parameters(self) -> list[Tensor]:
        """What a direction consists of: the parameters, or this rank's parts of them."""
        return [*self.problem.objective.local_parameters.values()]

    @abc.abstractmethod
    def over_samples(self, directions: list[list[Tensor]]) -> Found:
        """Parts of the sums over the samples: (number of the direction, what is added)."""

    def __call__(self, block: Tensor) -> Tensor:
        """(P, k) -> (P, k)."""
        rows = block.T.contiguous()
        objective = self.problem.objective
        sizes = rows.new_tensor(objective.binary_sizes(rows))
        directions = [unflatten(row, self.parameters) for row in rows / sizes[:, None]]
        with self.problem.guard(), objective.second_order() if self.twice else nullcontext():
            totals = torch.zeros_like(rows)
            with closing(self.over_samples(directions)) as found:  # before the guard is left
                for index, parts in found:
                    _add(totals[index], parts, self.parameters)
            self.problem.sum(totals, product_with(self.problem, block))
        return totals.mul_(sizes[:, None]).div_(self.problem.samples.count).T

    @property
    def resolution(self) -> float | None:
        """Relative error of a product; None is that of the dtype."""
        return None

    def halved(self) -> HessianProducts | None:
        """The same with half the step, where products are differences; else None."""
        return None

    def forget(self) -> None:
        """Drop what is kept between products."""
        return

    @property
    def graph_bytes(self) -> float:
        """Bytes of the graphs of all samples, of which those within the budget are kept."""
        return 0.0


def product_with(problem: Problem, block: Tensor) -> str:
    """What ranks exchange: products with other vectors would add up to nobody's."""
    if not problem.objective.ranks.are_several:
        return ""
    return f"products with {fingerprint(block)[1]}"


def _add(total: Tensor, parts: Parts, parameters: list[Tensor]) -> None:
    """Add the parts to a flat vector in place."""
    places = torch.split(total, [p.numel() for p in parameters])
    for place, part in zip(places, parts, strict=True):
        if part is not None:
            place.add_(part.detach().reshape(-1))


class ThroughGraphs(HessianProducts):
    """Products through graphs, kept within a budget of bytes; "fresh" is a budget of 0."""

    def __init__(self, problem: Problem, kind: type[Graph], budget: int) -> None:
        super().__init__(problem)
        self.name = "kept" if budget else "fresh"
        self._graphs = GraphCache(problem, kind, budget)

    def forget(self) -> None:
        self._graphs.forget()

    @property
    def graph_bytes(self) -> float:
        return self._graphs.expected_bytes

    def over_samples(self, directions: list[list[Tensor]]) -> Found:
        for graph in self._graphs.graphs():
            for index, direction in enumerate(directions):
                yield index, graph.product(direction)


class Forward(HessianProducts):
    """Forward mode over reverse mode."""

    name = "forward"

    @classmethod
    def checked(cls, problem: Problem) -> Forward:
        """Forward mode, checked: every use of a parameter must go through the given model.

        Raises:
            CurvatureError: some do not, or torch has no forward mode for an operation.
        """
        found, objective = cls(problem), problem.objective
        with problem.guard(), objective.second_order():
            batch = select(problem.largest_batch(), slice(0, TRIAL_SAMPLES))
            plain = objective.gradient(batch)
            try:
                gradient: Any = jvp(found._gradient(batch), (found._point(),), (found._point(),))[0]
            except RuntimeError as error:  # NotImplementedError is one
                if is_out_of_memory(error):
                    raise
                raise CurvatureError(
                    f"forward mode fails: {first_line(error).rstrip('.')}. Pass `hvp='auto'`"
                ) from error
        eps = math.sqrt(max(torch.finfo(p.dtype).eps for p in found.parameters))
        pairs = [pair for pair in zip(plain, gradient.values(), strict=True) if pair[0].numel()]
        for own, other in pairs:
            if not bool((own - other).abs().max() <= eps * max(float(own.abs().max()), eps)):
                raise CurvatureError(
                    "forward mode does not reach all uses of the parameters: loss_fn must use the "
                    "parameters of the model that it is given"
                )
        return found

    def _point(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.problem.objective.parameters.items()}

    def _gradient(self, batch: Batch) -> Any:
        objective = self.problem.objective
        bound = Bound(objective.model, objective.loss_fn)

        def total(values: dict[str, Tensor]) -> Any:
            named = {f"model.{name}": value for name, value in values.items()}
            return functional_call(bound, named, (batch,)).sum()

        return grad(total)

    def over_samples(self, directions: list[list[Tensor]]) -> Found:
        point = self._point()
        for batch in self.problem.batches():
            gradient = self._gradient(batch)
            for index, direction in enumerate(directions):
                self.problem.objective.work.multiplied(sample_count(batch))
                tangent = dict(zip(point, direction, strict=True))
                product: Any = jvp(gradient, (point,), (tangent,))[1]
                yield index, list(product.values())


class Finite(HessianProducts):
    """(∇L(w + hv) - ∇L(w - hv))/2h: needs first derivatives only; for losses without kinks.

    h as in `problem.differences`.
    """

    name, twice = "finite", False

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._length = step_length(self.parameters)

    @property
    def resolution(self) -> float:
        return self._disagreement

    @functools.cached_property
    def _disagreement(self) -> float:
        """Relative difference to a product with half the step, which kinks and rounding make."""
        space = self.problem.objective.space
        vector = space.random(generator(0))[:, None]
        least: float = self._length**2
        return max(least, disagreement(self(vector), self.halved()(vector), space))

    def halved(self) -> Finite:
        twin = Finite(self.problem)
        twin._length = self._length / 2
        return twin

    def over_samples(self, directions: list[list[Tensor]]) -> Found:
        objective = self.problem.objective
        for index, direction in enumerate(directions):
            size = objective.norm(direction)
            for step in (self._length / size, -self._length / size) if size else ():
                with objective.moved(direction, step):
                    for gradient in self.problem.batch_gradients():
                        yield index, [part / (2 * step) for part in gradient]


def disagreement(own: Tensor, halved: Tensor, space: Space) -> float:
    """Relative error of a product, shape (P, 1), from the one with half the step.

    An error of order h² is 4/3 of their difference.
    """
    own, halved = widen(own)[:, 0], widen(halved)[:, 0]
    scale, gap = map(space.norm, (own, own - halved))
    return 4 / 3 * gap / scale if scale else 0.0
