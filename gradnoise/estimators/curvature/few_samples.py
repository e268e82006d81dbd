"""What few samples tell about the Hessian of all of them: where λ is, and most of tr(HΣ)."""

from __future__ import annotations

import torch
from torch import Tensor

from ...linalg.deflation import Deflation, krylov_deflation
from ...moments.moments import GradientMoments
from ...operators.hessian import Hessian
from ...problem.samples import Samples
from ...tensors.random import generator

FEW = 128
LEAST = 4 * FEW  # samples from which on a part of them is cheaper
STEPS = 10  # products of its Krylov space
MOST = 8  # Ritz vectors that are kept
FINE, COARSE = 1e-3, 1e-2  # relative residuals of λ of few and of many samples, by default
PART = 256  # samples whose own curvature is measured, where there are many
EVENLY = 0.2  # of the draws that are made without regard to gradients


def is_worthwhile(hessian: Hessian) -> bool:
    """Whether there are samples enough, which can be taken apart and count alike."""
    problem = hessian.problem
    return problem.samples.count >= LEAST and hessian.hvp == "kept" and problem.is_divisible


def accepted_residual(few: bool, asked: float | None) -> float:
    """The relative residual at which λ is accepted; its error is about the square of that."""
    return asked if asked is not None else (COARSE if few else FINE)


def chances(moments: GradientMoments, curvatures: Tensor | None = None) -> Tensor:
    """p_i, shape (n,), float64: in proportion to ‖g_i‖ and to |vᵀH_iv|, and evenly for a part.

    Most samples without a gradient have next to no curvature; not those that the model fits since
    they pull at it.

    Args:
        moments: of the samples.
        curvatures: vᵀH_iv, shape (n,), where it is known.
    """
    sizes = [moments.sq_norms.detach().cpu().double().sqrt()]
    sizes += [] if curvatures is None else [curvatures.detach().cpu().double().abs()]
    even = evenly(moments.count)
    shares = [size / size.sum() if size.sum() > 0 else even for size in sizes]
    return EVENLY * even + (1 - EVENLY) * torch.stack(shares).mean(0)


def evenly(count: int) -> Tensor:
    """The same chance for every sample."""
    return torch.full((count,), 1 / count, dtype=torch.float64)


def sides_of(samples: Samples, seed: int) -> tuple[Samples, Samples]:
    """Those PART samples whose own curvature is measured, from either half of all."""
    source, sides = generator(seed + 1), list[Samples]()  # another order than that of the halves
    for half in samples.half_positions(seed):
        order = torch.randperm(len(half), generator=source)
        sides.append(samples.together(half[order[: PART // 2]].sort().values))
    return sides[0], sides[1]


def near_spectrum(hessian: Hessian, odds: Tensor, seed: int, count: int = FEW) -> Deflation:
    """What the Krylov space of Σ_j w_jH_j/Σ_j w_j tells, for random samples j with w_j = 1/p_j.

    Args:
        hessian: of all samples.
        odds: p, shape (n,).
        seed: of the draw.
        count: samples that are drawn.
    """
    positions = torch.multinomial(odds, count, replacement=True, generator=generator(seed))
    positions = positions.sort().values
    weights = 1 / odds[positions]
    weights /= weights.mean()
    budget = hessian.memory_budget
    few = Hessian.of_few(hessian.problem, positions, weights, budget)
    return krylov_deflation(few, steps=STEPS, seed=seed, most=MOST, memory_budget=budget)
