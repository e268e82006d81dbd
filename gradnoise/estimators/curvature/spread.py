"""How the curvatures of samples spread in the sharpest directions, for the mean-square limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ...learning_rate.mean_square import CHANGE, CurvatureSpread
from ...linalg.deflation import Deflation
from ...problem.directional import per_sample_curvatures
from ...problem.problem import Problem
from ...tensors.trees import widen


def sharp_directions(vector: Tensor, deflation: Deflation, count: int) -> Tensor:
    """v and the next Ritz vectors of positive curvature, orthonormal rows, shape (<= count, P)."""
    curvatures = deflation.kernel.diagonal()[:-1]
    order = torch.argsort(curvatures, descending=True)[1:count]
    others = deflation.directions[order[curvatures[order] > 0]]
    return deflation.space.orthonormal([vector, *others]).to(vector)


def measure_curvature_spread(
    problem: Problem, directions: Tensor, curvatures: Tensor, change: float = CHANGE
) -> CurvatureSpread | None:
    """VᵀH_iV of every sample, direction by direction until the mean-square limit converges.

    That is the limit at B = 1. The j-th direction takes one pass with j products per sample. None
    where the curvature along the first direction is not positive.

    Args:
        problem: what to measure; in the metric of an optimizer decoupled weight decay is included.
        directions: orthonormal, the sharpest first, shape (k, P).
        curvatures: v_1ᵀH_iv_1 of every sample, measured before, shape (n,).
        change: relative change of the limit by one more direction at which it has converged.
    """
    entries = curvatures.cpu().double().numpy()[:, None, None]
    found = CurvatureSpread.of(entries)
    if found.mean[0][0] <= 0:
        return None
    factor = 1 - 1 / problem.samples.population  # finite population, B = 1
    for count in range(2, len(directions) + 1):
        entries = _bordered(entries, _column(problem, directions[:count]))
        before, found = found, CurvatureSpread.of(entries)
        if np.linalg.eigvalsh(np.array(found.mean))[0] <= 0:  # a Ritz vector far from converged
            return replace(before, converged=False)
        if found.stable_lr(factor) >= (1 - change) * before.stable_lr(factor):
            return found
    return replace(found, converged=found.directions == problem.objective.size)


def _column(problem: Problem, directions: Tensor) -> np.ndarray:
    """v_lᵀH_iv of all directions v_l and the last of them, v, shape (n, l)."""
    last, preconditioner = directions[-1], problem.objective.preconditioner
    column = per_sample_curvatures(problem, last, list(directions)).values
    if preconditioner is not None and preconditioner.is_decayed:
        decays = widen(directions) @ widen(preconditioner.decoupled(last))
        column = column + problem.objective.space.over(decays)
    return column.cpu().double().numpy()


def _bordered(entries: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Symmetric matrices with one row and column more, shape (n, k, k)."""
    size = column.shape[1]
    grown = np.zeros((len(column), size, size))
    grown[:, :-1, :-1] = entries
    grown[:, -1, :] = grown[:, :, -1] = column
    return grown
