"""Curvatures of single samples by differences, where a model has no second derivatives.

With slopes g_iᵀv from any per-sample engine,

    vᵀH_iu = (g_i(w + hu)ᵀv - g_i(w - hu)ᵀv)/2h + O(h²),

and Hu likewise from the mean gradient: first derivatives alone. ‖hu‖ is the cube root of the
dtype's resolution, where the truncation error, of order h², and the rounding error, of order 1/h,
are about equal. Kinks (ReLU, max pooling) between the two points are included.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing

import torch
from torch import Tensor

from ..tensors.trees import flatten, unflatten, widen
from .full_precision import full_precision
from .problem import Problem
from .sums import weighted_sum


def step_length(parameters: Sequence[Tensor]) -> float:
    """‖hu‖."""
    return float(max(torch.finfo(p.dtype).eps for p in parameters) ** (1 / 3))


def differences(
    problem: Problem, direction: Tensor, others: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Hu, shape (P,), and v_kᵀH_iu of every sample, shape (n, k), for a u and directions v_k."""
    assert problem.slopes is not None
    product, count = torch.zeros_like(direction), problem.samples.count
    values = torch.zeros(count, len(others), dtype=direction.dtype, device=direction.device)
    with closing(steps_along(problem, direction)) as steps:  # also after an error
        for step in steps:
            for gradient in problem.batch_gradients():
                product += (flatten(gradient) / (step * count)).to(product)
            if others:
                slopes = problem.slopes(problem, torch.stack(list(others), dim=1))
                values += widen(slopes / step).to(values)
    return problem.sum(product), values


def weighted_difference(problem: Problem, direction: Tensor, weights: Tensor) -> Tensor:
    """Σ_i w_i H_iu, shape (P,), for weights of shape (n,)."""
    total = torch.zeros_like(direction)
    with closing(steps_along(problem, direction)) as steps:  # also after an error
        for step in steps:
            total += (weighted_sum(problem, weights) / step).to(total)
    return total


def steps_along(problem: Problem, direction: Tensor) -> Generator[float, None, None]:
    """2h and -2h, with the parameters at w + hu and w - hu, in full precision; none for u = 0."""
    objective = problem.objective
    parameters = [*objective.local_parameters.values()]
    along = unflatten(direction, parameters)
    if objective.preconditioner is not None:  # w moves by P^-½u where z moves by u
        root = objective.preconditioner.root.values()
        along = [(part * own).to(part) for part, own in zip(along, root, strict=True)]
    size = objective.norm(along)
    step = step_length(parameters) / size if size else 0.0
    for signed in (step, -step) if step else ():
        with objective.moved(along, signed), full_precision(objective.device):
            yield 2 * signed
