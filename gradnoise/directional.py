"""Derivatives of every sample's loss along directions: n numbers each, never n x P.

The losses are weighted by ones that are themselves differentiated: ∂/∂w_i of (Σ_j w_j g_j)ᵀv is
g_iᵀv, and ∂/∂w_i of uᵀ(Σ_j w_j H_j)v is uᵀH_iv, exactly, by one further backward pass each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import CurvatureError
from .objective import Objective
from .problem import TRIAL_SAMPLES, Problem
from .trees import Batch, binary_size, flatten, sample_count, select, unflatten, widen


@dataclass(frozen=True)
class Forms:
    """Products with the Hessian along one direction u.

    Args:
        product: Hu with H the mean over samples, shape (P,).
        values: v_kᵀH_iu for every sample i and every v_k asked for, shape (n, k).
    """

    product: Tensor
    values: Tensor


def require_second_order(problem: Problem) -> None:
    """Raise where second derivatives are visibly cut off.

    An operation whose backward is not itself differentiable is left out of second derivatives
    without a word. Two traces: the slopes g_iᵀv by double backward are not those of the gradients,
    and uᵀHv is not vᵀHu. A backward that takes what it saved for constants passes where the part
    that it leaves out is symmetric.

    Raises:
        CurvatureError: one of them shows on a few samples.
    """
    with problem.guard(), problem.objective.second_order():
        batch = _most_costly(problem.objective, problem.largest_batch())
        direction = flatten(problem.objective.gradient(batch))
        singles = [select(batch, slice(i, i + 1)) for i in range(sample_count(batch))]
        plain = torch.stack(
            [flatten(problem.objective.gradient(single)) @ direction for single in singles]
        )
        found = _slopes(problem.objective, batch, direction)
        gap, size = _asymmetry(problem.objective, batch, direction)
    coarsest = max(torch.finfo(p.dtype).eps for p in problem.objective.parameters.values())
    if bool(((plain - found).abs() > 8 * math.sqrt(coarsest) * plain.abs().max()).any()):
        raise CurvatureError(
            "some operation of the model has no second derivative: a custom autograd Function or "
            "kernel whose backward cannot be differentiated. Write its backward with torch "
            "operations, without once_differentiable. Or a part computes in half precision (an "
            "autocast inside of the model or the loss): measure in float32"
        )
    if gap > 8 * math.sqrt(coarsest) * size:
        raise CurvatureError(
            "second derivatives of the model contradict each other (uᵀHv is not vᵀHu): the "
            "backward of some operation takes what it saved for constants, as that of "
            "torch.nn.utils.weight_norm does. Remove it for the measurement"
        )


def _asymmetry(objective: Objective, batch: Batch, direction: Tensor) -> tuple[float, float]:
    """|uᵀHv - vᵀHu| for v the gradient and u its entries in another order, and ‖Hv‖‖u‖."""
    other = direction.flip(0)
    first, second = (_forms(objective, batch, d, []).product for d in (direction, other))
    size = float(first.norm() * other.norm() + second.norm() * direction.norm())
    return abs(float(other @ first - direction @ second)), size


def _most_costly(objective: Objective, batch: Batch) -> Batch:
    """The few samples with the largest losses: others may have no gradient to look at."""
    losses = objective.losses(batch).detach()
    few = losses.topk(min(TRIAL_SAMPLES, len(losses))).indices
    return select(batch, few.sort().values)


def weighted_sum(problem: Problem, weights: Tensor) -> Tensor:
    """Σ_i w_i g_i, shape (P,), for weights of shape (n,)."""
    objective, size = problem.objective, binary_size(weights)
    own = torch.split(weights / size, list(problem.samples.counts))
    with problem.guard():
        parts = (
            flatten(objective.gradient(batch, part))
            for batch, part in zip(problem.batches(), own, strict=True)
        )
        total = next(parts)
        for part in parts:
            total += part
    return total.mul_(size)


def sign_sums(problem: Problem, signs: Tensor) -> Iterator[Tensor]:
    """u = Σ s_i(g_i - ḡ)/√(n - 1) for each row of signs (K, n): E[uuᵀ] = Σ."""
    for row in signs.to(problem.objective.device):
        yield weighted_sum(problem, row - row.mean()) / math.sqrt(len(row) - 1)


def forms(problem: Problem, direction: Tensor, others: Sequence[Tensor]) -> Forms:
    """Hu, and vᵀH_iu of every sample for the directions v in `others`."""
    total, values = torch.zeros_like(direction), []
    sizes = direction.new_tensor([binary_size(other) for other in others])
    size = binary_size(direction)
    along = direction / size
    with problem.guard(), problem.objective.second_order():
        for batch in problem.batches():
            scaled = (other / s for other, s in zip(others, sizes, strict=True))
            part = _forms(problem.objective, batch, along, scaled)
            total += part.product
            values.append(part.values)
    return Forms(total * size / problem.samples.count, torch.cat(values) * (size * sizes))


def _slopes(objective: Objective, batch: Batch, direction: Tensor) -> Tensor:
    slope, weights = _weighted_slope(objective, batch, direction)
    return _per_sample(slope, weights)


def _forms(
    objective: Objective, batch: Batch, direction: Tensor, others: Iterable[Tensor]
) -> Forms:
    slope, weights = _weighted_slope(objective, batch, direction)
    product = objective.differentiate(slope, create_graph=True)
    columns = [_per_sample(_dot(product, other), weights) for other in others]
    values = torch.stack(columns, dim=1) if columns else weights.new_zeros(len(weights), 0)
    return Forms(flatten(product), values)


def _weighted_slope(objective: Objective, batch: Batch, direction: Tensor) -> tuple[Tensor, Tensor]:
    losses = objective.losses(batch)
    weights = torch.ones_like(losses, requires_grad=True)
    gradient = objective.differentiate(losses, weights, create_graph=True)
    return _dot(gradient, direction), weights


def _dot(tensors: list[Tensor], direction: Tensor) -> Tensor:
    along = unflatten(direction, tensors)
    return torch.stack([(t * a).sum() for t, a in zip(tensors, along, strict=True)]).sum()


def _per_sample(output: Tensor, weights: Tensor) -> Tensor:
    if not output.requires_grad:
        return widen(torch.zeros_like(weights))
    (values,) = torch.autograd.grad(output, weights, retain_graph=True, allow_unused=True)
    return widen(torch.zeros_like(weights) if values is None else values)
