"""Eigenvalues of a model's Hessian with their errors: residual and sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ArgumentError
from ...linalg.eigen_options import EigenOptions
from ...linalg.iteration import Eigenpairs
from ...linalg.operator import MEMORY_BUDGET
from ...measurement.opened import Opened
from ...operators.gauss_newton import GaussNewton
from ...operators.hessian import Hessian
from ...operators.preconditioned import with_decay
from ...problem.gathering import by_layers_or_whole
from ...problem.losses.loss_fn import LossFn
from ...problem.options import AUTO, Options
from ...problem.problem import Problem
from ...problem.samples import MICRO_BATCH
from ...statistics.estimate import Estimate
from .extreme_eigenvalue import (
    Halves,
    half_sharpness,
    sample_curvatures,
    sharpness_estimate,
)
from .few_samples import FINE, accepted_residual, evenly, is_worthwhile, sides_of
from .sharpest import sharpest_of_many

MATRICES = {
    "hessian": lambda opened, hvp, budget: opened.hessian(hvp=hvp, memory_budget=budget),
    "gauss-newton": lambda opened, hvp, budget: GaussNewton.of(
        opened.problem, hvp=hvp, memory_budget=budget
    ),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Sharpness(Eigenpairs):
    """Eigenpairs of a model's curvature, and how far the samples determine them.

    In addition to the fields of `Eigenpairs`, which are about the matrix of the measured samples;
    values, errors and quotients are in loss/parameter²:

    Args:
        estimate: the first value for the population; its interval holds the residual, the sampling
            error and the bracket of split halves.
        stderr: sampling error of each value by first-order perturbation, shape (k,):
            √((1/n - 1/N) Var_i(vᵀH_iv)); 0 where the population was measured, nan if not measured.
        held_out: held-out Rayleigh quotient, the mean of vᵀHv with v of one half of the samples and
            H of the other: too small in size where the value is too large. nan where the
            population was measured, or single samples were not.
        hvp, reason: how products were taken, and why.

    Source: as for `sharpness`.
    """

    estimate: Estimate
    stderr: Tensor
    held_out: float
    hvp: str
    reason: str

    def __str__(self) -> str:
        return f"{self.estimate}; of the measured samples {super().__str__()}"


def sharpness(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    *,
    k: int = 1,
    which: str = "LA",
    tol: float | None = None,
    operator: str = "hessian",
    hvp: str = "auto",
    optimizer: torch.optim.Optimizer | None = None,
    metric: str = "auto",
    v0: Tensor | None = None,
    repeats: bool = True,
    population: str | int = "dataset",
    intervals: bool = True,
    level: float = 0.95,
    max_samples: int | None = 4096,
    max_iterations: int | None = None,
    seed: int = 0,
    micro_batch: int = MICRO_BATCH,
    unit: str = "auto",
    group_size: int | None = None,
    process_group: Any = None,
    gather: str = AUTO,
    memory_budget: int = MEMORY_BUDGET,
) -> Sharpness:
    """Eigenpairs of the Hessian of the mean loss; by default λ, the largest algebraic eigenvalue.

    Not the largest in magnitude unless asked for: 2/λ is a learning rate only when λ is the most
    positive curvature. λ of a part of the samples is biased upwards: `.values` are those of the
    measured samples, `.estimate` is about the population.

    Args:
        model, loss_fn, data: as for `gradient_moments`.
        k, which, max_iterations, v0, repeats, seed: as for `lanczos`.
        tol: stop when every residual is at most tol·|θ|. By default 1e-3; for the largest one of
            512 samples and more 1e-2, from where a part of the samples has its largest one.
        operator: "hessian" or "gauss-newton".
        hvp: how products with the Hessian are taken, as for `Hessian`.
        optimizer, metric: as for `gradient_moments`; with "optimizer" the matrix is
            P^-½(H + D)P^-½ + E of `Preconditioned`, weight decay included.
        population: "dataset", "distribution" or a number N: what `.estimate` is about.
        intervals: measure the sampling error where n < N: one pass for each pair, and the first
            eigenvalue of two halves of the samples, about as expensive as λ itself; `.matvecs`
            counts all products.
        level: coverage of the interval.
        max_samples: n at most; None measures all.
        micro_batch: samples evaluated at once.
        unit, group_size, process_group: as for `gradient_moments`.
        gather: as for `Hessian`; `v0` and `.vectors` then have the entries of this rank's parts.
        memory_budget: bytes of kept graphs, and of the basis of the iteration; of each rank.

    Returns:
        Sharpness; values in loss/parameter².

    Raises:
        GradNoiseError: see `Hessian`, `GaussNewton` and `lanczos`.

    Source: Golub and Van Loan, Matrix Computations, 4th ed., ch. 10; Cohen et al. 2021
    (arXiv:2103.00065) for λ and 2/ε in training; docs/theory/noise_scale.md for `.estimate`.

    Example:
        >>> import torch
        >>> model = nn.Linear(2, 1, bias=False)
        >>> data = (torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1))
        >>> sharpness(model, nn.MSELoss(), data).values  # H = 2 XᵀX/n = diag(1, 4)
        tensor([4.0...], dtype=torch.float64)
    """
    options = Options(
        optimizer=optimizer, metric=metric, population=population, max_samples=max_samples,
        level=level, seed=seed, micro_batch=micro_batch,
        unit=unit, group_size=group_size, process_group=process_group, gather=gather,
    )  # fmt: skip

    def found(own: Options) -> Sharpness:
        return find_sharpness(
            Opened.open(model, loss_fn, data, own),
            k=k, which=which, tol=tol, operator=operator, hvp=hvp, v0=v0, repeats=repeats,
            intervals=intervals, max_iterations=max_iterations, memory_budget=memory_budget,
        )  # fmt: skip

    return by_layers_or_whole(found, options)


def find_sharpness(
    opened: Opened,
    *,
    k: int = 1,
    which: str = "LA",
    tol: float | None = None,
    operator: str = "hessian",
    hvp: str = "auto",
    v0: Tensor | None = None,
    repeats: bool = True,
    intervals: bool = True,
    max_iterations: int | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Sharpness:
    """Eigenpairs of the curvature of a model that is open; see `sharpness`."""
    if operator not in MATRICES:
        raise ArgumentError(f"`operator` must be one of {', '.join(MATRICES)}; got {operator!r}")
    matrix = MATRICES[operator](opened, hvp, memory_budget)
    problem, level, seed = matrix.problem, opened.options.level, opened.options.seed
    plain = operator == "hessian" and (k, which, v0, max_iterations) == (1, "LA", None, None)
    few = plain and is_worthwhile(matrix) and (tol is None or tol >= FINE)
    # curvatures of single samples are measured for the Hessian alone
    sampled = problem.samples.sampling_factor > 0 and intervals and operator == "hessian"
    aim = EigenOptions(
        k=k, which=which, tol=accepted_residual(few, tol), max_iterations=max_iterations,
        repeats=repeats, seed=seed, memory_budget=memory_budget,
    )  # fmt: skip
    with problem.guard():
        part, halves = problem, None
        if few:
            odds = evenly(problem.samples.count)
            found = sharpest_of_many(matrix, odds, halved=sampled, tol=aim.tol, seed=seed)
            pairs, halves = found.pairs, found.halves
            del found  # and the graphs of the halves with it
            if sampled:
                first, second = sides_of(problem.samples, seed)
                part = replace(problem, samples=first.joined(second))
        else:
            pairs = aim.find(with_decay(matrix), v0)
        sign = _sign(pairs, which)
        if sampled and not few:
            matrix.forget()
            one = replace(aim, k=1, which="LA" if sign > 0 else "SA", repeats=True)
            halves = half_sharpness(problem, pairs.vectors[:, 0], one, hvp=matrix.hvp)
        columns = [sample_curvatures(part, v) for v in pairs.vectors.T] if sampled else []
        return _judged(problem, matrix, pairs, columns, halves, level, sign)


def _sign(pairs: Eigenpairs, which: str) -> int:
    """1 if the first value is the largest of all, -1 if it is the smallest."""
    return -1 if which == "SA" or (which == "LM" and float(pairs.values[0]) < 0) else 1


def _judged(
    problem: Problem,
    matrix: Hessian | GaussNewton,
    pairs: Eigenpairs,
    columns: list[Tensor],
    halves: Halves | None,
    level: float,
    sign: int,
) -> Sharpness:
    """The pairs with their sampling errors, as far as these were measured."""
    samples = problem.samples
    factor, first = samples.sampling_factor, columns[0] if columns else None
    errors = [math.sqrt(factor * float(curvatures.var())) for curvatures in columns]
    unknown = torch.full_like(pairs.values, math.nan if factor else 0.0)
    spent = pairs.matvecs + (halves.matvecs if halves else 0)
    return Sharpness(
        **{**vars(pairs), "matvecs": spent},
        estimate=sharpness_estimate(
            pairs,
            first,
            halves,
            samples,
            level,
            sign,
            matrix.product_error_along(pairs.vectors[:, 0]),
        ),
        stderr=torch.tensor(errors, dtype=unknown.dtype) if errors else unknown,
        held_out=halves.held_out if halves else math.nan,
        hvp=matrix.hvp,
        reason=matrix.reason,
    )
