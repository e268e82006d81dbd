"""The Hessian of the mean loss, and the ways to its products."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import ArgumentError, CurvatureError, OperatorError
from ..linalg.iteration import COARSE, uncertain
from ..linalg.operator import MEMORY_BUDGET
from ..per_sample.contract.engine import Engine
from ..problem.directional import require_second_order
from ..problem.full_precision import FullPrecisionError
from ..problem.graph import vector_jacobian
from ..problem.objective import Objective
from ..problem.problem import Problem
from ..problem.samples import Samples
from ..problem.shards import WHOLE, needs_whole
from ..problem.state.sharded import policies
from ..problem.state.wrappers import bare_model
from ..tensors.trees import Batch, sample_count
from .curvature import Curvature
from .gradients import PerSampleGradients, chosen_engine
from .graph_cache import Graph
from .products import Finite, Forward, HessianProducts, ThroughGraphs

DIFFERENCES = "differences of gradients are H where the loss is smooth"
MODES = ("auto", "kept", "fresh", "forward", "finite")


class Hessian(Curvature):
    """H = ∇²L, the mean of the per-sample Hessians, shape (P, P), symmetric, in loss/parameter².

    The samples are drawn once and micro-batches weigh by their samples, so every product sees the
    same matrix while the parameters stay. Parameters and buffers that changed are noticed by value;
    attributes of the model and what a loss_fn closes over are not: call `.forget()` then. Products
    are taken outside of an autocast context around the call. Source: Pearlmutter 1994 (Neural
    Computation 6).

    Args:
        model, loss_fn, data: as for `gradient_moments`.
        hvp: "kept" (graphs of the gradient stay in memory), "fresh" (built again for each product),
            "forward" (forward over reverse mode), "finite" (differences of gradients, for losses
            without kinks; needs no second derivatives), or "auto": kept, or finite where there
            are none.
        memory_budget: bytes of graphs kept; graphs beyond them are built for each product.
        max_samples: n at most; None measures all.
        seed: of the choice of samples.
        micro_batch: samples evaluated at once.
        unit, group_size, process_group, gather: as for `gradient_moments`. Where one layer is
            gathered at a time, products are differences of gradients, and vectors have the entries
            of this rank's parts, in the order of the parameters; dicts hold DTensors.

    Attributes:
        hvp, reason: the mode taken, and why.

    Raises:
        OperatorError: the vector does not fit.
        CurvatureError: the model has no second derivatives and `hvp` needs them.
        ShardedError: gather="layers", and `hvp` or the model needs whole parameters.
        ModelError: the model was changed since.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> data = (torch.eye(2), torch.zeros(2, 1))
        >>> Hessian(model, torch.nn.MSELoss(), data) @ torch.ones(2)  # H = 2 XᵀX/n
        tensor([1., 1.])
    """

    def _start(
        self, problem: Problem, hvp: str = "auto", memory_budget: int = MEMORY_BUDGET
    ) -> None:
        self.memory_budget = memory_budget
        self._products, self.reason = choose_products(problem.plain, hvp, memory_budget)
        self.hvp = self._products.name
        if isinstance(self._products, Finite) and problem.slopes is None:
            problem = replace(problem, slopes=SlopesByEngine())
        super()._start(problem)

    @classmethod
    def of_few(
        cls, problem: Problem, positions: Tensor, weights: Tensor, memory_budget: int = 0
    ) -> Hessian:
        """Σ_j w_jH_j/m over m samples, without another trial of second derivatives.

        Args:
            problem: whose samples are meant.
            positions: of the samples, sorted, shape (m,); they may repeat.
            weights: shape (m,).
            memory_budget: bytes of graphs kept, for several products.
        """
        samples, share = problem.samples, problem.samples.at(positions)
        parts = samples.taken(positions, samples.largest_count)
        here = (weights if share is None else share.of(weights)).to(problem.objective.device)
        batches = tuple(map(Weighted, parts, torch.split(here, [*map(sample_count, parts)])))
        few = replace(problem, samples=Samples(batches, math.inf, share=share))
        found = cls.__new__(cls)
        found.memory_budget = memory_budget
        found._products = ThroughGraphs(few.plain, WeightedGraph, memory_budget)
        found.hvp, found.reason = found._products.name, "as for all samples"
        Curvature._start(found, few)
        return found

    def products(self, block: Tensor) -> Tensor:
        if self.space.is_sharded and self.resolution > COARSE:  # nobody has asked for differences
            raise OperatorError(uncertain(self.resolution))
        return super().products(block)

    @property
    def resolution(self) -> float:
        own = self._products.resolution
        return super().resolution if own is None else own


class SlopesByEngine:
    """g_iᵀv by the engine that "auto" takes, which is chosen once."""

    def __init__(self) -> None:
        self._engine: Engine | None = None

    def __call__(self, problem: Problem, block: Tensor) -> Tensor:
        self._engine = self._engine or chosen_engine(problem, "auto")
        rows: PerSampleGradients = PerSampleGradients.of(problem, engine=self._engine)
        return rows.along(block)


class HessianGraph(Graph):
    """H_i: the gradient with its graph."""

    def __init__(self, objective: Objective, batch: Batch) -> None:
        self._objective, self._parameters = objective, list(objective.parameters.values())
        self._count, self._gradient = self._made(batch)

    def _made(self, batch: Any) -> tuple[int, list[Tensor]]:
        """The number of samples, and the gradient of their sum."""
        return sample_count(batch), self._objective.gradient(batch, create_graph=True)

    def product(self, direction: Sequence[Tensor]) -> list[Tensor | None]:
        self._objective.work.multiplied(self._count)
        return vector_jacobian(self._gradient, self._parameters, direction)


class Weighted(NamedTuple):
    """Samples with a weight each, shape (n,)."""

    batch: Batch
    weights: Tensor


class WeightedGraph(HessianGraph):
    """w_iH_i: the weighted gradient with its graph."""

    def _made(self, batch: Weighted) -> tuple[int, list[Tensor]]:
        gradient = self._objective.gradient(batch.batch, batch.weights, create_graph=True)
        return sample_count(batch.batch), gradient


def choose_products(problem: Problem, mode: str, budget: int) -> tuple[HessianProducts, str]:
    """How the products with the Hessian are computed, and why.

    Raises:
        ArgumentError: an unknown mode.
        CurvatureError: the mode needs second derivatives and the model has none; or layers are
            gathered one by one, and FSDP casts them.
        ShardedError: they are, and the mode needs second derivatives.
    """
    if mode not in MODES:
        raise ArgumentError(f"`hvp` must be one of {', '.join(MODES)}; got {mode!r}")
    if problem.objective.shards is not None:
        if mode not in ("auto", "finite"):
            raise needs_whole(f"hvp={mode!r}")
        _refuse_casts(problem)
        why = problem.objective.shards.reason
        return Finite(problem), f"one layer is gathered at a time ({why}): {DIFFERENCES}"
    if mode == "finite":
        return Finite(problem), "as asked for"
    if mode == "forward":
        return Forward.checked(problem), "as asked for"
    if mode == "auto" and problem.slopes is not None:
        return Finite(problem), "no second derivatives"
    why = _without_second_order(problem, mode)
    if why:
        return Finite(problem), f"{why}; {DIFFERENCES}"
    keep = 0 if mode == "fresh" else budget
    why = "as asked for" if mode != "auto" else "the gradient's graph is kept between products"
    return ThroughGraphs(problem, HessianGraph, keep), "; ".join([why, *_hidden(problem)])


def _refuse_casts(problem: Problem) -> None:
    """Raise CurvatureError where FSDP's own passes compute more coarsely than parameters move."""
    finest = min(torch.finfo(p.dtype).eps for p in problem.objective.registered.values())
    for policy in policies(bare_model(problem.objective.model)):
        if policy.param_dtype is not None and torch.finfo(policy.param_dtype).eps > finest:
            raise CurvatureError(
                f"the MixedPrecisionPolicy of fully_shard computes in {policy.param_dtype}, too "
                f"coarse for differences of gradients: {WHOLE}, which leaves its casts out"
            )


def _without_second_order(problem: Problem, mode: str) -> str:
    """Why there are no second derivatives, on any rank; empty where there are, or raised."""
    found = ""
    try:
        require_second_order(problem)
    except CurvatureError as error:
        if mode != "auto" or isinstance(error, FullPrecisionError):
            raise
        found = f"no second derivatives: {str(error).splitlines()[0]}"
    everywhere: list[str] = problem.objective.ranks.gathered(found, "second derivatives")
    return max(everywhere)


def _hidden(problem: Problem) -> Iterator[str]:
    """What is said where second derivatives of custom Functions are differences."""
    if problem.objective.hidden or problem.objective.once:
        found = [*problem.objective.hidden, *problem.objective.once]
        names = ", ".join(getattr(kind, "__name__", str(kind)) for kind in found)
        yield (
            f"second derivatives of {names} are differences of that operation alone, because its "
            f"own backward has none or hides them"
        )
