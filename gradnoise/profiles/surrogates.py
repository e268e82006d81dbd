"""Gradients that are no derivatives of the loss: straight-through, surrogate, detached parts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..per_sample.hooks.precision import resolution
from ..problem.differences import step_length
from ..problem.objective import Objective
from ..problem.problem import TRIAL_SAMPLES, Problem
from ..tensors.trees import Batch, sample_count, select, widen

SHORTER = (1.0, 1 / 8, 1 / 64)  # factors of the step: kinks and third derivatives mislead long ones
AGREEMENT = 0.02  # relative


def surrogate_note(problem: Problem) -> str:
    """What is said where the loss does not change along the gradient as the gradient says.

    Differences of the losses of a few samples; empty where one of them agrees. Every parameter
    moves by the same length, so that those with small gradients count as well.
    """
    problem = problem.plain
    objective = problem.objective
    # an autocast keeps casts of parameters, which move here
    with problem.guard(), torch.autocast(objective.device.type, enabled=False):
        batch = problem.largest_batch()
        batch = select(batch, slice(0, min(TRIAL_SAMPLES, sample_count(batch))))
        eps = resolution(objective, batch)
        parameters = [*objective.local_parameters.values()]
        gradients = [widen(g) for g in _gradient(objective, batch)]
        squares = objective.space.over(torch.stack([g.square().sum() for g in gradients]))
        norms = squares.sqrt().tolist()
        told, slopes = math.fsum(norms), list[float]()
        if not 0 < told < math.inf:
            return ""
        pairs = zip(gradients, norms, parameters, strict=True)
        along = [(g / norm if norm else g).to(p) for g, norm, p in pairs]
        for factor in SHORTER:
            step, ends = factor * step_length(parameters), []
            for signed in (step, -step):
                with objective.moved(along, signed):
                    ends.append(objective.losses(batch).detach())
            slopes.append(float(widen(ends[0] - ends[1]).sum()) / (2 * step))
            rounding = eps * float(widen(ends[0]).abs().sum()) / step
            if not abs(slopes[-1] - told) > AGREEMENT * told + 4 * rounding:
                return ""
    return (
        f"gradients are not the derivatives of the loss: along them the loss of a few samples "
        f"rises by {slopes[-1]:.3g} per unit of distance, and they say {told:.3g}. So it is with "
        f"straight-through and surrogate gradients, and where a part of the loss is detached. "
        f"Noise scales and curvature here are those of the gradients, which training follows; "
        f"gn.critical_lr is about the loss itself"
    )


def _gradient(objective: Objective, batch: Batch) -> list[Tensor]:
    """Σ∇ℓ_i of a batch; where ranks gather layers together, each has the same one."""
    alike = 1 if objective.shards is None else objective.ranks.size
    weights = torch.full((sample_count(batch),), 1 / alike, dtype=torch.float64)
    return objective.gradient(batch, weights)
