"""Weighted sums of the gradients of samples: one backward pass each, whatever n is."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..tensors.trees import (
    binary_size,
    compute_dtype,
    flatten,
    sample_count,
    wide_dtype,
)
from .problem import Problem
from .shares import adjoint_of_centring

TOGETHER = 8  # sign vectors that share one forward pass
SUMS_BYTES = 256 * 2**20  # of the sums of gradients that are held for them


def weighted_sum(problem: Problem, weights: Tensor) -> Tensor:
    """Σ_i w_i g_i, shape (P,), for weights of shape (n,)."""
    return weighted_sums(problem, weights[None])[0]


def weighted_sums(problem: Problem, rows: Tensor) -> Tensor:
    """Σ_i w_i g_i for every row w of weights, (K, n) to (K, P); one forward pass for all rows."""
    objective = problem.objective
    sizes = rows.new_tensor([binary_size(row) for row in rows])[:, None]
    rows = adjoint_of_centring(rows, problem.samples.shares)
    split = problem.samples.split(rows / sizes, dim=1)
    totals: list[Tensor] = []
    with problem.guard():
        for turn, (batch, idle) in enumerate(problem.rounds()):
            part = rows.new_zeros(len(rows), sample_count(batch)) if idle else split[turn]
            for index, gradient in enumerate(objective.gradients(batch, part)):
                if len(totals) < len(rows):
                    totals.append(flatten(gradient))
                else:
                    totals[index] += flatten(gradient)
        if not totals:  # a rank without samples
            totals = [flatten([*objective.local_parameters.values()]).zero_() for _ in rows]
        found = problem.sum(torch.stack(totals))
    return found.mul_(sizes.to(found))


def sign_sums(problem: Problem, signs: Tensor, together: int = TOGETHER) -> Iterator[Tensor]:
    """u = Σ s_i(g_i - ḡ)/√(n - 1) for each row of signs (K, n): E[uuᵀ] = Σ."""
    objective, root = problem.objective, math.sqrt(signs.shape[1] - 1)
    together = max(1, min(together, SUMS_BYTES // objective.sample_bytes))
    device = objective.device
    for rows in torch.split(signs.to(device=device, dtype=wide_dtype(device)), together):
        if not len(rows):  # no signs at all
            return
        yield from weighted_sums(problem, rows - rows.mean(1, keepdim=True)) / root


def scattered_sums(problem: Problem, signs: Tensor, mean: Tensor) -> Iterator[Tensor]:
    """The same u for rows with few entries that are not zero: one pass for all of them.

    Args:
        problem: whose samples can be taken apart.
        signs: shape (K, n).
        mean: ḡ, shape (P,); u has its dtype.
    """
    root = math.sqrt(signs.shape[1] - 1)
    with problem.guard():
        for row in signs:
            positions = row.nonzero()[:, 0]
            total = sums_of_some(problem, positions, row[None, positions])[0].to(mean)
            yield total.sub_(mean, alpha=float(row.sum())).div_(root)


def sums_of_some(problem: Problem, positions: Tensor, rows: Tensor) -> Tensor:
    """Σ_j w_j g_j over some samples for every row w of weights; inside the guard.

    Args:
        problem: whose samples can be taken apart.
        positions: of the samples, sorted, shape (m,); they may repeat.
        rows: shape (K, m).

    Returns:
        Shape (K, P), in the dtype of the parameters, float32 at least.
    """
    objective, device = problem.objective, problem.objective.device
    samples, share = problem.samples, problem.samples.at(positions)
    batches = samples.taken(positions, samples.largest_count)
    rows = rows if share is None else share.of(rows, dim=1)
    sizes = [parameter.numel() for parameter in objective.local_parameters.values()]
    dtype = compute_dtype(objective.parameters.values())
    totals = torch.zeros(len(rows), sum(sizes), dtype=dtype, device=device)
    parts = torch.split(rows.to(totals), [*map(sample_count, batches)], dim=1)
    for index, (batch, idle) in enumerate(problem.rounds(batches)):
        own = totals.new_zeros(len(rows), sample_count(batch)) if idle else parts[index]
        gradients = objective.gradients(batch, own)
        for total, gradient in zip(totals, gradients, strict=True):
            for place, part in zip(torch.split(total, sizes), gradient, strict=True):
                place.add_(part.reshape(-1))
    return problem.sum(totals)
