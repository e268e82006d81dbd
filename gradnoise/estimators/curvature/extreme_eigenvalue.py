"""λ, the largest eigenvalue of the Hessian: its estimate for the population."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...linalg.eigen_options import EigenOptions
from ...linalg.iteration import Eigenpairs
from ...operators.hessian import Hessian
from ...operators.preconditioned import with_decay
from ...problem.directional import per_sample_curvatures
from ...problem.problem import Problem
from ...problem.samples import Samples
from ...statistics.estimate import Estimate, Status
from ...statistics.interval import flag_zero, symmetric, with_skew
from ...statistics.skew import Skew
from ...tensors.random import generator
from ...tensors.space import Space
from ...tensors.trees import widen

OF_HALVES = 10.0  # their residual in units of `tol`: eigenvalues are known to about its square


def sample_curvatures(problem: Problem, vector: Tensor) -> Tensor:
    """vᵀH_iv of every sample, shape (n,), with the decoupled weight decay of the optimizer."""
    values = per_sample_curvatures(problem, vector, [vector]).values[:, 0]
    preconditioner = problem.objective.preconditioner
    if preconditioner is None or not preconditioner.is_decayed:
        return values
    return values + problem.objective.space.over(vector @ preconditioner.decoupled(vector))


@dataclass(frozen=True, eq=False)
class Halves:
    """λ of two random halves of the samples (split halves).

    Args:
        mean: of λ of each half; its upward bias is about twice that of λ of all samples.
        held_out: held-out Rayleigh quotient: mean of vᵀHv with v from one half and H of the other,
            biased downwards.
        matvecs, converged: products spent on both, and whether both converged.
        vectors: v of each half, shape (2, P); None when not kept.
    """

    mean: float
    held_out: float
    matvecs: int = 0
    converged: bool = True
    vectors: Tensor | None = None

    @classmethod
    def of(cls, found: list[Eigenpairs], crossed: list[Tensor], space: Space) -> Halves:
        """From the eigenpairs of both, and the products of either v with the other half's H.

        Args:
            space: of the vectors.
        """
        tops = [pairs.vectors[:, 0] for pairs in found]
        pairs = zip(tops, crossed, strict=True)
        quotients = (space.inner(widen(v), widen(hv)) for v, hv in pairs)
        return cls(
            mean=sum(float(pairs.values[0]) for pairs in found) / 2,
            held_out=sum(quotients) / 2,
            matvecs=sum(pairs.matvecs for pairs in found) + len(crossed),
            converged=all(pairs.converged for pairs in found),
            vectors=torch.stack(tops),
        )

    def shifted(self, amount: float) -> Halves:
        """Those of A + amount times the identity."""
        return replace(self, mean=self.mean + amount, held_out=self.held_out + amount)


def half_sharpness(
    problem: Problem,
    vector: Tensor,
    aim: EigenOptions,
    *,
    hvp: str = "auto",
) -> Halves:
    """An extreme eigenvalue of both halves, started near the eigenvector of the whole.

    Args:
        problem: all samples.
        vector: eigenvector of all samples, shape (P,).
        aim: for each half, with OF_HALVES times its `tol`; its budget is that of the graphs of both
            together, and of one basis at a time.
        hvp: as for `Hessian`.
    """
    halves = [replace(problem, samples=half) for half in problem.samples.halves(aim.seed)]
    matrices = [Hessian.of(half, hvp=hvp, memory_budget=aim.memory_budget // 2) for half in halves]
    hessians = [with_decay(matrix) for matrix in matrices]
    # half random: the vector may be an eigenvector of a half that is not its largest
    vector = widen(vector)
    space = hessians[0].space
    other = space.random(generator(aim.seed + 1))
    start = vector + (-other if space.inner(vector, other) < 0 else other)  # not 0, also for P = 1
    aim = replace(aim, tol=OF_HALVES * aim.tol)
    found = [aim.find(hessian, start) for hessian in hessians]
    tops = [pairs.vectors[:, 0] for pairs in found]
    crossed = [h @ v for h, v in zip(reversed(hessians), tops, strict=True)]
    return Halves.of(found, crossed, space)


def sharpness_estimate(
    pairs: Eigenpairs,
    curvatures: Tensor | None,
    halves: Halves | None,
    samples: Samples,
    level: float,
    sign: int = 1,
    error: float = 0.0,
) -> Estimate:
    """An extreme eigenvalue of the population, with its residual and its sampling error.

    λ of n samples is biased upwards. Where λ is well separated from the next eigenvalue the bias is
    proportional to 1/n - 1/N, which is 2/n - 1/N for halves, so (1 - n/N)(λ_{n/2} - λ_n) is
    subtracted. Where it is not separated, that is too little, and only the bracket holds: from the
    held-out Rayleigh quotient to λ of the n samples. The interval is this bracket plus, at both
    ends, the error of first-order perturbation, of variance (1/n - 1/N) Var_i(vᵀH_iv), as in
    `with_skew`. For the smallest eigenvalue everything is mirrored.

    Args:
        pairs: of all measured samples; the first is estimated.
        curvatures: vᵀH_iv for its vector, of all samples or of some of them; None if not measured.
        halves: of the same samples; None where the population was measured.
        samples: n and N.
        level: coverage of the interval.
        sign: 1 for the largest eigenvalue, -1 for the smallest.
        error: relative, of the products with the matrix; both ends move by it.
    """
    raw = sign * float(pairs.values[0])
    residual, moved = float(pairs.residuals[0]), error * abs(raw)
    n, factor = samples.count, samples.sampling_factor
    if factor and (curvatures is None or halves is None):
        return symmetric(sign * raw, math.nan, level=level, samples=n)
    value = below = raw
    around = symmetric(0.0, 0.0, level=level, samples=n)
    if curvatures is not None and halves is not None:
        below = min(sign * halves.held_out, raw)
        value = min(max(raw - n * factor * (sign * halves.mean - raw), below), raw)
        around = with_skew(
            0.0,
            factor * float(curvatures.var()),
            Skew.of_some(sign * curvatures[None], n, samples.population),
            level=level,
            samples=n,
            freedom=len(curvatures) - 1,
        )
    ends = sorted(
        (sign * (below + around.low - moved), sign * (raw + residual + around.high + moved))
    )
    estimate = Estimate(sign * value, ends[0], ends[1], level, around.stderr, n)
    if not (pairs.converged and (halves is None or halves.converged)):
        return replace(estimate, status=Status.NOT_CONVERGED)
    return flag_zero(estimate)
