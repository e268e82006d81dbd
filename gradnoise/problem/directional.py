"""Derivatives of every sample's loss along directions: n numbers each, never n x P.

The losses are weighted by ones that are themselves differentiated: ∂/∂w_i of (Σ_j w_j g_j)ᵀv is
g_iᵀv, and ∂/∂w_i of uᵀ(Σ_j w_j H_j)v is uᵀH_iv, exactly, by one further backward pass each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import CurvatureError, first_line, is_out_of_memory
from ..tensors.trees import (
    Batch,
    compute_dtype,
    flatten,
    in_units,
    sample_count,
    select,
    unflatten,
    wide_dtype,
    widen,
)
from .custom_functions import custom_functions, hiding
from .differences import differences, weighted_difference
from .full_precision import FullPrecisionError, full_precision
from .graph import vector_jacobian
from .objective import Objective
from .once_only import once_only
from .problem import TRIAL_SAMPLES, Problem
from .shares import adjoint_of_centring, centred_by_share


@dataclass(frozen=True, eq=False)
class SampleCurvatures:
    """Products with the Hessian in one direction u.

    Args:
        product: Hu with H the mean over samples, shape (P,).
        values: v_kᵀH_iu for every sample i and every given v_k, shape (n, k).
    """

    product: Tensor
    values: Tensor


def require_second_order(problem: Problem) -> None:
    """Raise where second derivatives are visibly missing or wrong.

    Autograd silently leaves out an operation whose backward is not differentiable. Custom
    Functions are tried one by one. Those that hide their second derivatives have them by
    differences from here on, and so have operations that torch differentiates once alone. Two
    checks follow: the slopes g_iᵀv by double backward must be those of the gradients, and uᵀHv must
    be vᵀHu.

    Raises:
        CurvatureError: a check fails on a few samples, or torch cannot differentiate twice.
    """
    objective, failure, new = problem.objective, None, list[Any]()
    with problem.guard():
        batch = _most_costly(problem)
        try:
            _require(problem, batch)
        except FullPrecisionError:
            raise
        except CurvatureError as error:
            failure = error
            with full_precision(objective.device):
                found = once_only(lambda watch: objective.losses(batch, lambda _: watch))
            new = [operation for operation in found if operation not in objective.once]
        objective.once += new
        if any(objective.ranks.gathered(bool(new), "operations that are differentiated once")):
            _require(problem, batch)
        elif failure is not None:
            raise failure


def _require(problem: Problem, batch: Batch) -> None:
    find_hidden(problem.objective, batch)
    with problem.guard(), problem.objective.second_order():
        direction, _ = in_units(_joined(problem.objective.gradient(batch)))
        ones = torch.eye(sample_count(batch))
        gradients = problem.objective.gradients(batch, ones)
        plain = widen(torch.stack([_dot(gradient, direction) for gradient in gradients]))
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
            "backward of some operation treats its saved tensors as constants, as that of "
            "torch.nn.utils.weight_norm does. Remove it for the measurement"
        )


def find_hidden(objective: Objective, batch: Batch) -> None:
    """Keep the custom Functions of the losses of a batch that hide their second derivatives."""
    with objective.guard(), full_precision(objective.device):
        kinds = [k for k in custom_functions(objective.losses(batch)) if k not in objective.hidden]
        objective.hidden += hiding(kinds, lambda: objective.losses(batch))


def _asymmetry(objective: Objective, batch: Batch, direction: Tensor) -> tuple[float, float]:
    """|uᵀHv - vᵀHu| for v the gradient and u its entries in another order, and ‖Hv‖‖u‖."""
    other = direction.flip(0)
    gradient, _ = _weighted_gradient(objective, batch)
    forms, size = [], 0.0
    for along, across in ((direction, other), (other, direction)):
        with _twice():  # a graph of the product as well, which single samples need
            product = objective.product(gradient, along, create_graph=True)
        parts = [part.detach() for part in product]
        del product  # and its graph, before the other one
        forms.append(float(_dot(parts, across)))
        size += math.hypot(*map(_norm, parts)) * _norm(across)
    return abs(forms[0] - forms[1]), size


def _most_costly(problem: Problem) -> Batch:
    """The few samples with the largest losses: others may have no gradient."""
    objective = problem.objective
    with problem.guard():
        batch = problem.largest_batch()
        try:
            with objective.second_order():
                losses = objective.losses(batch).detach()
        except RuntimeError as error:
            objective.losses(batch)  # where this fails as well, it is the user's own error
            raise FullPrecisionError(
                f"the model cannot compute in full precision, which second derivatives need: "
                f"{first_line(error).rstrip('.')}. Let autocast cast its inputs and parameters, "
                f"not the model itself, or measure a float32 copy"
            ) from error
    few = losses.topk(min(TRIAL_SAMPLES, len(losses))).indices
    return select(batch, few.sort().values)


def weighted_product(problem: Problem, vector: Tensor, weights: Tensor) -> Tensor:
    """Σ_i w_i H_i v, shape (P,), for weights of shape (n,)."""
    if problem.slopes is not None:
        with problem.guard():
            return weighted_difference(problem, vector, weights)
    objective = problem.objective
    (row,) = adjoint_of_centring(weights[None], problem.samples.shares)
    total = torch.zeros_like(vector)
    with problem.guard(), objective.second_order():
        for batch, part in zip(problem.batches(), problem.samples.split(row), strict=True):
            losses = objective.losses(batch)
            with _twice():
                gradient = objective.differentiate(losses, part.to(losses), create_graph=True)
                total += flatten(objective.product(gradient, vector))
            objective.work.multiplied(len(losses))
        return problem.sum(total)


def per_sample_curvatures(
    problem: Problem, direction: Tensor, others: Sequence[Tensor]
) -> SampleCurvatures:
    """Hu, and vᵀH_iu of every sample for the directions v in `others`."""
    return curvatures_of_each(problem, [(direction, others)])[0]


def curvatures_of_each(
    problem: Problem, asked: Sequence[tuple[Tensor, Sequence[Tensor]]]
) -> list[SampleCurvatures]:
    """The same for several pairs of u and its `others`, through one graph of the gradient.

    By differences of slopes where the problem has no second derivatives.
    """
    if problem.slopes is not None:
        with problem.guard():
            return [SampleCurvatures(*differences(problem, u, others)) for u, others in asked]
    scaled = [(in_units(u), [in_units(v) for v in others]) for u, others in asked]
    totals = torch.stack([torch.zeros_like(u) for u, _ in asked])
    values: list[Tensor] = []  # of every micro-batch, those of all pairs side by side
    with problem.guard(), problem.objective.second_order():
        for batch in problem.batches():
            gradient, weights = _weighted_gradient(problem.objective, batch)
            columns = []
            for total, ((along, _), others) in zip(totals, scaled, strict=True):
                others_here = (vector for vector, _ in others)
                part = _sample_curvatures(problem.objective, gradient, weights, along, others_here)
                total += part.product
                columns.append(part.values)
            values.append(torch.cat(columns, dim=1))
        counts = [len(others) for _, others in scaled]
        rows = torch.split(problem.rows_of(values, sum(counts)), counts, dim=1)
        totals = problem.sum(totals)
    return [
        SampleCurvatures(
            total * size / problem.samples.count,
            centred_by_share(own, problem.samples.shares)
            * (size * total.new_tensor([unit for _, unit in others])),
        )
        for total, own, ((_, size), others) in zip(totals, rows, scaled, strict=True)
    ]


def _slopes(objective: Objective, batch: Batch, direction: Tensor) -> Tensor:
    gradient, weights = _weighted_gradient(objective, batch)
    with _twice():
        return _per_sample(gradient, direction, weights)


def _sample_curvatures(
    objective: Objective,
    gradient: list[Tensor],
    weights: Tensor,
    direction: Tensor,
    others: Iterable[Tensor],
) -> SampleCurvatures:
    with _twice():
        product = objective.product(gradient, direction, create_graph=True)
        columns = [_per_sample(product, other, weights) for other in others]
    objective.work.multiplied(len(weights), 1 + len(columns))
    values = torch.stack(columns, dim=1) if columns else weights.new_zeros(len(weights), 0)
    return SampleCurvatures(flatten(product), values)


def _weighted_gradient(objective: Objective, batch: Batch) -> tuple[list[Tensor], Tensor]:
    """Σ_i w_i g_i at w = 1, with its graph, and w."""
    losses = objective.losses(batch)
    weights = torch.ones_like(losses, requires_grad=True)
    with _twice():
        return objective.differentiate(losses, weights, create_graph=True), weights


@contextmanager
def _twice() -> Iterator[None]:
    """Turn torch's error for a backward pass that cannot be differentiated into ours.

    Only backward passes run inside: errors of the user's code are left as they are.
    """
    try:
        yield
    except RuntimeError as error:  # NotImplementedError is one
        if is_out_of_memory(error):
            raise
        raise CurvatureError(
            f"torch cannot differentiate a part of the model twice: "
            f"{first_line(error).rstrip('.')}. Replace its operations by differentiable ones, or "
            f"pass `hvp='finite'` where a call takes it (differences of gradients; smooth losses)"
        ) from error


def _joined(tensors: list[Tensor]) -> Tensor:
    """All entries in one vector, in their own dtype, float32 at least."""
    dtype = compute_dtype(tensors)
    return torch.cat([tensor.detach().reshape(-1).to(dtype) for tensor in tensors])


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=wide_dtype(tensor.device)))


def _dot(tensors: list[Tensor], direction: Tensor) -> Tensor:
    along = unflatten(direction, tensors)
    return torch.stack([(t * a).sum() for t, a in zip(tensors, along, strict=True)]).sum()


def _per_sample(vector: list[Tensor], direction: Tensor, weights: Tensor) -> Tensor:
    """∂(xᵀu)/∂w_i of a vector x with its graph and the weights w of the samples, shape (n,)."""
    (values,) = vector_jacobian(vector, [weights], unflatten(direction, vector))
    return widen(torch.zeros_like(weights) if values is None else values)
