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
from ...operators.preconditioned import with_decay
from ...tensors.trees import widen
from .extreme_eigenvalue import Halves
from .few_samples import FEW, near_spectrum

OF_HALVES = 0.03  # residual of a half relative to its λ, at least


@dataclass(frozen=True, eq=False)
class Sharpest:
    """The largest eigenpair of H + E, with the decoupled weight decay E where there is any.

    Args:
        pairs: λ and v of all samples.
        near: of H, from few samples.
        space: in which v was found.
        halves: None where not asked for.
    """

    pairs: Eigenpairs
    near: Deflation
    space: Refinement
    halves: Halves | None = None

    def product(self, hessian: Hessian, vector: Tensor) -> Tensor:
        """Hx in float64, for one of the vectors that were wanted."""
        found, preconditioner = self.space.image(vector), hessian.problem.objective.preconditioner
        if preconditioner is None or not preconditioner.is_decayed:
            return found
        return found - widen(preconditioner.decoupled(vector))


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
        tol: residual relative to λ.
        seed: of what is drawn.
        tick: called with 1 after every product.
    """
    if halved:
        return _with_halves(hessian, odds, wanted, tol=tol, seed=seed, tick=tick)
    near = near_spectrum(hessian, odds, seed)
    starts = [partly_random(near.top, seed + 1), *wanted]
    pairs, space = refine(
        with_decay(hessian), starts, tol=tol, memory_budget=hessian.memory_budget, tick=tick
    )
    return Sharpest(pairs, near, space)


def _with_halves(
    hessian: Hessian, odds: Tensor, wanted: Sequence[Tensor], *, tol: float, seed: int, tick: Any
) -> Sharpest:
    problem, budget = hessian.problem, hessian.memory_budget
    found, operators = list[Sharpest](), list[Operator]()
    halves = problem.samples.half_positions(seed)
    for k, half in enumerate(halves):
        chosen = torch.zeros_like(odds).index_copy(0, half, odds[half])
        near = near_spectrum(hessian, chosen, seed, FEW // len(halves))
        own = Hessian.of_few(problem, half, torch.ones(len(half)), budget // len(halves))
        operators.append(with_decay(own))
        start = partly_random(near.top, seed + 1 + k)
        pairs, space = refine(
            operators[-1], [start], tol=max(tol, OF_HALVES), memory_budget=budget, tick=tick
        )
        found.append(Sharpest(pairs, near, space))
    tops = [side.pairs.vectors[:, 0] for side in found]
    own_images = [side.space.image(top) for side, top in zip(found, tops, strict=True)]
    crossed = [widen(a @ top) for a, top in zip(reversed(operators), tops, strict=True)]
    first, second = (len(half) / problem.samples.count for half in halves)
    known = [
        (tops[0], first * own_images[0] + second * crossed[0]),
        (tops[1], second * own_images[1] + first * crossed[1]),
    ]
    whole = first * operators[0] + second * operators[1]
    pairs, space = refine(whole, wanted, known=known, tol=tol, memory_budget=budget, tick=tick)
    of_halves = Halves.of([side.pairs for side in found], crossed)
    return Sharpest(pairs, found[0].near, space, of_halves)
