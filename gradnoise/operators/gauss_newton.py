"""The generalised Gauss-Newton matrix of the mean loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, CurvatureError
from ..linalg.operator import MEMORY_BUDGET
from ..problem.directional import require_second_order
from ..problem.graph import vector_jacobian
from ..problem.objective import Objective
from ..problem.problem import Problem
from ..problem.shards import needs_whole
from ..tensors.trees import Batch, map_samples
from .curvature import Curvature
from .graph_cache import Graph
from .products import ThroughGraphs


class GaussNewton(Curvature):
    """The generalised Gauss-Newton matrix, the mean of J_iᵀ(∂²ℓ_i/∂z²)J_i, shape (P, P).

    z are the outputs of the model and J_i their derivatives; in loss/parameter². Positive
    semidefinite where the loss is convex in z; for exponential families with natural parameters it
    is the Fisher matrix (Schraudolph 2002; Martens 2020, arXiv:1412.1193).

    Args:
        model, loss_fn, data, memory_budget, max_samples, seed, micro_batch, unit, group_size,
            process_group: as for `Hessian`.
        gather: as for `Hessian`; it needs whole parameters, "model".
        hvp: "kept", "fresh", or "auto": kept.

    Attributes:
        hvp, reason: the mode taken, and why.

    Raises:
        ArgumentError: another `hvp`.
        CurvatureError: the loss is not a function of the outputs of `model(...)`, or second
            derivatives are missing.
        OperatorError, ShardedError, ModelError: as `Hessian`.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> data = (torch.eye(2), torch.zeros(2, 1))
        >>> GaussNewton(model, torch.nn.MSELoss(), data) @ torch.ones(2)
        tensor([1., 1.])
    """

    def _start(
        self, problem: Problem, hvp: str = "auto", memory_budget: int = MEMORY_BUDGET
    ) -> None:
        if hvp not in ("auto", "kept", "fresh"):
            raise ArgumentError(
                f"`hvp` of the Gauss-Newton matrix must be one of auto, kept, fresh; got {hvp!r}"
            )
        if problem.objective.shards is not None:
            raise needs_whole("the Gauss-Newton matrix")
        super()._start(problem)
        plain = problem.plain
        require_second_order(plain)
        budget = 0 if hvp == "fresh" else memory_budget
        self._products = ThroughGraphs(plain, GaussNewtonGraph, budget)
        self.hvp = self._products.name
        self.reason = (
            "as asked for" if hvp != "auto" else "the graph of the outputs is kept between products"
        )


class GaussNewtonGraph(Graph):
    """J_iᵀ(∂²ℓ_i/∂z²)J_i for z the outputs of the model.

    The graph is cut at z: one part gives J, the other ∂²ℓ/∂z². Jᵀu is linear in u, so its
    derivative with respect to u, along d, is Jd (double backward).
    """

    def __init__(self, objective: Objective, batch: Batch) -> None:
        self._parameters = parameters = list(objective.parameters.values())
        with _outputs_cut(objective) as cut:
            losses = objective.losses(batch)
        self._work, self._count = objective.work, len(losses)
        outputs, leaves = (list(side) for side in zip(*cut, strict=True)) if cut else ([], [])
        if _depends([losses], parameters) or not leaves:
            raise CurvatureError(
                "the Gauss-Newton matrix needs a loss of the model's outputs: loss_fn must call "
                "model(...) itself, and use no parameter outside of it"
            )
        if _depends(outputs, leaves):
            raise CurvatureError(
                "the Gauss-Newton matrix is not defined where the outputs of model(...) are "
                "passed to it again: call it once, or use Hessian"
            )
        slopes = vector_jacobian([losses], leaves, [torch.ones_like(losses)], create_graph=True)
        used = [i for i, z in enumerate(outputs) if z.requires_grad and slopes[i] is not None]
        self._outputs, self._leaves = [outputs[i] for i in used], [leaves[i] for i in used]
        self._slopes = [slopes[i] for i in used]
        self._weights = [torch.zeros_like(z, requires_grad=True) for z in self._outputs]
        products = vector_jacobian(self._outputs, parameters, self._weights, create_graph=True)
        self._transposed = _dense(products, parameters)

    def product(self, direction: Sequence[Tensor]) -> list[Tensor | None]:
        self._work.multiplied(self._count)
        along = _dense(vector_jacobian(self._transposed, self._weights, direction), self._weights)
        curved = _dense(vector_jacobian(self._slopes, self._leaves, along), self._leaves)
        return vector_jacobian(self._outputs, self._parameters, curved)


def _dense(found: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    pairs = zip(found, like, strict=True)
    return [torch.zeros_like(tensor) if g is None else g for g, tensor in pairs]


def _depends(outputs: list[Tensor], inputs: list[Tensor]) -> bool:
    """Whether any output depends on any input."""
    found = vector_jacobian(outputs, inputs, [torch.ones_like(z) for z in outputs])
    return any(g is not None for g in found)


@contextmanager
def _outputs_cut(objective: Objective) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Inside, the model returns new leaves instead of its outputs; yields the pairs of both."""
    cut: list[tuple[Tensor, Tensor]] = []

    def replaced(output: Tensor) -> Tensor:
        if not output.is_floating_point():
            return output
        leaf = output.detach().requires_grad_()
        cut.append((output, leaf))
        return leaf.clone()  # which the loss may write into

    def hook(_module: Any, _inputs: Any, outputs: Any) -> Any:
        return map_samples(replaced, outputs)

    if isinstance(objective.model, torch.jit.ScriptModule):
        raise CurvatureError(
            "the outputs of a scripted model cannot be separated from its loss: pass the module "
            "that was scripted"
        )
    handle = objective.model.register_forward_hook(hook)
    try:
        yield cut
    finally:
        handle.remove()
