"""λ and v of many samples, and λ of their halves: from few samples, to halves, to all.

128 samples give a start. Where halves are wanted, each begins with 64 of its own and knows nothing
of the other half, so that vᵀHv with v of one and H of the other is a fair test. The products of all
samples with both v are then known, and λ of all begins in their plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...linalg.deflation import Deflation
from ...linalg.iteration import Eigenpairs
from ...linalg.operator import Operator
from ...linalg.refine import Refinement, partly_random, refine
from ...operators.hessian import Hessian
from ...operators.preconditioned import uniform_decay, with_decay
from ...tensors.trees import widen
from .extreme_eigenvalue import Halves
from .few_samples import FEW, near_spectrum

HALF_RESIDUAL = 0.03  # of a half relative to its λ, at least


@dataclass(frozen=True, eq=False)
class Sharpest:
    """The largest eigenpair of H + E, with the decoupled weight decay E where there is any.

    Args:
        pairs: λ and v.
        near: of H, from few samples; where halves were measured, of the first.
        space: a basis with its products, by which v was found.
        halves: None where not asked for.
    """

    pairs: Eigenpairs
    near: Deflation
    space: Refinement
    halves: Halves | None = None

    def product(self, hessian: Hessian, vector: Tensor) -> Tensor:
        """Hx of a vector that was wanted, shape (P,), in float64 where the device has it."""
        if uniform_decay(hessian) is None:  # to take away what E adds would leave its rounding
            return widen(hessian @ vector)
        return self.space.image(vector)


def sharpest_of_many(
    hessian: Hessian,
    odds: Tensor,
    wanted: Sequence[Tensor] = (),
    *,
    halved: bool,
    tol: float,
    seed: int,
    tick: Any = None,
) -> Sharpest:
    """The largest eigenpair of many samples; inside the guard.

    Args:
        hessian: of all samples.
        odds: by which few are drawn, shape (n,).
        wanted: vectors whose products are wanted as well, shape (P,) each.
        halved: whether λ of halves is wanted.
        tol: residual relative to λ, without a decay that is the same for all parameters.
        seed: of what is drawn.
        tick: called with 1 after every product.

    Raises:
        OperatorError: a product is not finite.
    """
    if uniform_decay(hessian) is None:  # `Sharpest.product` could not use them
        wanted = ()
    find = _of_halves_and_all if halved else _of_all
    return find(hessian, odds, wanted, tol=tol, seed=seed, tick=tick)


def _of_all(
    hessian: Hessian, odds: Tensor, wanted: Sequence[Tensor], *, tol: float, seed: int, tick: Any
) -> Sharpest:
    near = near_spectrum(hessian, odds, seed)
    starts = [partly_random(near.top, seed + 1), *wanted]
    pairs, space = refine(
        _looked_at(hessian), starts, tol=tol, memory_budget=hessian.memory_budget, tick=tick
    )
    return Sharpest(pairs.shifted(uniform_decay(hessian) or 0.0), near, space)


def _looked_at(hessian: Hessian) -> Operator:
    """H + E, without an E that changes no eigenvector."""
    return hessian if uniform_decay(hessian) is not None else with_decay(hessian)


def _of_halves_and_all(
    hessian: Hessian, odds: Tensor, wanted: Sequence[Tensor], *, tol: float, seed: int, tick: Any
) -> Sharpest:
    problem, budget = hessian.problem, hessian.memory_budget
    decay, parts = uniform_decay(hessian) or 0.0, problem.samples.half_positions(seed)
    found, matrices = list[Sharpest](), list[Operator]()
    for k, half in enumerate(parts):
        chosen = torch.zeros_like(odds).index_copy(0, half, odds[half])
        near = near_spectrum(hessian, chosen, seed, FEW // len(parts))
        own = Hessian.of_few(problem, half, torch.ones(len(half)), budget // len(parts))
        matrices.append(_looked_at(own))
        start = partly_random(near.top, seed + 1 + k)
        pairs, space = refine(
            matrices[k], [start], tol=max(tol, HALF_RESIDUAL), memory_budget=budget, tick=tick
        )
        found.append(Sharpest(pairs, near, space))
    tops = [side.pairs.vectors[:, 0] for side in found]
    own_images = [side.space.image(top) for side, top in zip(found, tops, strict=True)]
    crossed = [widen(a @ top) for a, top in zip(reversed(matrices), tops, strict=True)]
    first, second = (len(half) / problem.samples.count for half in parts)
    known = [
        (tops[0], first * own_images[0] + second * crossed[0]),
        (tops[1], second * own_images[1] + first * crossed[1]),
    ]
    whole = first * matrices[0] + second * matrices[1]
    pairs, space = refine(whole, wanted, known=known, tol=tol, memory_budget=budget, tick=tick)
    halves = Halves.of([side.pairs for side in found], crossed, whole.space).shifted(decay)
    return Sharpest(pairs.shifted(decay), found[0].near, space, halves)
