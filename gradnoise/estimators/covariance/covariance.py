"""The covariance of the per-sample gradients: how large, how many directions, which."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ArgumentError, check_whole
from ...linalg.eigen_options import EigenOptions
from ...linalg.frobenius import HELD, LEAST
from ...linalg.iteration import Eigenpairs
from ...linalg.operator import MEMORY_BUDGET
from ...measurement.opened import Opened
from ...moments.moments import GradientMoments
from ...problem.losses.loss_fn import LossFn
from ...problem.options import Options
from ...problem.problem import Problem
from ...problem.samples import MICRO_BATCH
from ...statistics.estimate import Estimate, percent, short
from ...statistics.transform import all_in_samples, scaled
from ...tensors.trees import TensorDict, compute_dtype, wide_dtype
from ..noise.noise_scale import PROBES
from ..report import Line, line, out_of, report
from .alignment import Alignment, measure_alignment
from .ranks import Dimensions
from .spectrum import METHODS, NoiseSpectrum, noise_spectrum
from .subspace import share_of_gradient


@dataclass(frozen=True, eq=False)
class Covariance:
    """Σ = Cov(g_i): its size, shape and largest eigenvectors; `print` it.

    The eigenpairs are those of Σ̂, of the measured samples. Where these are a part of the
    population, the large eigenvalues of Σ̂ are biased upwards and `held_out` downwards, as sums
    (Ky Fan 1949): on the average the first j values of `held_out` add up to at most the j largest
    eigenvalues of Σ, and those of `eigenvalues` to at least as much.

    Eigenvalues, `trace`, `stderr` and `held_out` are in loss²/parameter², `trace_sq` in
    loss⁴/parameter⁴; ranks count directions, shares are in [0, 1]. In the metric of an optimizer Σ
    is that of P^-½g_i.

    Args:
        trace: trΣ, unbiased.
        top_eigenvalue: λ_max(Σ) of the population, with the bracket of split halves.
        trace_sq: tr(Σ²) = ‖Σ‖_F², unbiased; tr(Σ̂²) of n samples is about (trΣ)²/n larger.
        effective_rank: trΣ/λ_max(Σ), the stable rank of the matrix of centred gradients.
        participation_ratio: (trΣ)²/tr(Σ²).
        grad_share: ‖VᵀG‖²/|G|², the part of the gradient in the span of the eigenvectors V.
        pairs: `.values` (k,), `.vectors` (P, k), `.residuals`; k may be smaller than asked for,
            since n samples give rank n - 1 at most.
        stderr: sampling error of each eigenvalue by first-order perturbation, shape (k,).
        held_out: held-out Rayleigh quotients v_jᵀΣ̂v_j with v_j of one half of the samples and Σ̂
            of the other, shape (k,); nan where the population was measured.
        variance: diagonal of Σ by parameter, if asked for.
        alignment: of Σ with the Hessian; None with `hessian=False`.
        samples, population: n and N.
        method: "gram" or "lanczos".

    Source: as for `covariance`; docs/theory/covariance.md.
    """

    trace: Estimate
    top_eigenvalue: Estimate
    trace_sq: Estimate
    effective_rank: Estimate
    participation_ratio: Estimate
    grad_share: Estimate
    pairs: Eigenpairs
    stderr: Tensor
    held_out: Tensor
    variance: TensorDict | None
    alignment: Alignment | None
    samples: int
    population: float
    method: str

    def _in_samples(self, group_size: int) -> Covariance:
        """Σ of samples from that of groups: b times as large."""
        b, pairs = group_size, self.pairs
        if b == 1:
            return self
        kept = ("effective_rank", "participation_ratio", "grad_share")
        found = all_in_samples(vars(self), b, kept=kept)
        found["trace_sq"] = scaled(found["trace_sq"], b)  # of two factors Σ
        changed: dict[str, Any] = {**found}
        return replace(
            self,
            **changed,
            pairs=replace(
                pairs, values=b * pairs.values, residuals=b * pairs.residuals, bound=b * pairs.bound
            ),
            stderr=b * self.stderr,
            held_out=b * self.held_out,
            alignment=self.alignment and self.alignment.in_samples(b),
            variance=self.variance and {name: b * own for name, own in self.variance.items()},
            samples=b * self.samples,
            population=b * self.population,
        )

    @property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues of Σ̂, largest first, shape (k,)."""
        return self.pairs.values

    @property
    def eigenvectors(self) -> Tensor:
        """Orthonormal columns, shape (P, k)."""
        return self.pairs.vectors

    def __str__(self) -> str:
        heading = (
            f"gradient covariance of {out_of(self.samples, self.population)}, "
            f"{percent(self.trace.level)} intervals, top {len(self.eigenvalues)} by {self.method}"
        )
        return report(heading, self._lines())

    def _lines(self) -> list[Line]:
        lines = [
            line("trΣ", self.trace),
            line("λ_max(Σ)", self.top_eigenvalue),
            line("effective rank trΣ/λ_max", self.effective_rank),
            line("participation ratio (trΣ)²/tr(Σ²)", self.participation_ratio),
            line("|G|² in the top of Σ", self.grad_share),
        ]
        beside = self.alignment
        if beside is not None:
            lines += [
                line("|G|² in the top of H", beside.grad_share),
                line("trΣ in the top of H", beside.noise_share),
                line("tr(HΣ)/(‖H‖‖Σ‖)", beside.overlap),
                ("overlap of the top subspaces", short(beside.subspace_overlap), "no interval"),
            ]
        return lines


def covariance(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    *,
    k: int = 10,
    hessian: bool = True,
    variance: bool = False,
    method: str = "auto",
    optimizer: torch.optim.Optimizer | None = None,
    metric: str = "auto",
    population: str | int = "dataset",
    engine: str = "auto",
    tol: float = 1e-3,
    probes: int = PROBES,
    products: int | None = None,
    max_samples: int | None = 4096,
    level: float = 0.95,
    seed: int = 0,
    micro_batch: int = MICRO_BATCH,
    unit: str = "auto",
    group_size: int | None = None,
    process_group: Any = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Covariance:
    """Σ = Cov(g_i) without the matrix: trace, largest eigenpairs, effective ranks, alignment.

    Where a part of the population is measured, trΣ, tr(Σ²), tr(HΣ) and ‖H‖_F² are unbiased, and
    ratios of them biased by O(1/n). Eigenvectors are those of the measured samples: shares are
    about their span, and biased upwards because they were chosen on the same samples; angles have
    no interval (docs/theory/covariance.md).

    Args:
        model, loss_fn, data, optimizer, metric, population, engine, max_samples, level, seed,
            micro_batch, unit, group_size, process_group: as for `gradient_moments`.
        k: eigenpairs of Σ and of H, at most; fewer where the rank is lower.
        hessian: also measure the alignment of Σ with H; needs second derivatives. With
            metric="optimizer" H is P^-½(H + D)P^-½; decoupled weight decay is left out.
        variance: keep the diagonal of Σ, from the same pass.
        method: "gram" writes the n·P gradients out and is exact; "lanczos" stores nothing and takes
            two passes per product; "auto": the first where min(n, P) is at most 1024 and two copies
            of the gradients fit into `memory_budget`.
        tol: relative residual of eigenpairs by Lanczos.
        probes: random sign vectors for tr(HΣ), at most.
        products: with H, for ‖H‖_F; exact from P on. None: 64, or fewer where the budget holds
            fewer.
        memory_budget: bytes of gradients, kept graphs, and the basis of an iteration.

    Returns:
        Covariance; `print` it.

    Raises:
        GradNoiseError: see `gradient_moments`.
        ArgumentError: k, method, probes or products out of range; a `memory_budget` that does not
            hold the vectors, before anything is measured.
        CurvatureError: no second derivatives, and `hessian` is asked for.

    Source: effective rank: Vershynin, High-Dimensional Probability, 5.6; shares in top subspaces:
    Gur-Ari, Roberts and Dyer 2018 (arXiv:1812.04754); overlap: Wu, Wang and Su 2022
    (arXiv:2207.02628) with the Gauss-Newton matrix in place of H.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> data = (torch.eye(2).repeat(2, 1), torch.tensor([1.0, 0.5, -1.0, -0.5])[:, None])
        >>> _ = nn.init.zeros_(model.weight)  # g_i = ∓2e_1 and ∓e_2: Σ = diag(8, 2)/3
        >>> found = covariance(model, nn.MSELoss(), data)
        >>> round(float(found.effective_rank), 4), round(float(found.participation_ratio), 4)
        (1.25, 1.4706)
    """
    options = Options(
        optimizer=optimizer, metric=metric, engine=engine, population=population,
        max_samples=max_samples, level=level, seed=seed, micro_batch=micro_batch,
        unit=unit, group_size=group_size, process_group=process_group,
    )  # fmt: skip
    opened = Opened.open(model, loss_fn, data, options)
    return find_covariance(
        opened, k=k, hessian=hessian, variance=variance, method=method, tol=tol, probes=probes,
        products=products, memory_budget=memory_budget,
    )  # fmt: skip


def find_covariance(
    opened: Opened,
    *,
    k: int = 10,
    hessian: bool = True,
    variance: bool = False,
    method: str = "auto",
    tol: float = 1e-3,
    probes: int = PROBES,
    products: int | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Covariance:
    """The covariance of a model that is open; see `covariance`."""
    _check(k, method)
    problem = opened.problem
    _check_budget(problem, k, products if hessian else 0, memory_budget)
    aim = EigenOptions(k=k, tol=tol, seed=opened.options.seed, memory_budget=memory_budget)
    with problem.guard():
        moments = opened.moments(variance=variance)
        spectrum = noise_spectrum(problem, opened.engine, moments, aim, method)
        dimensions = Dimensions.of(moments, spectrum, problem.samples)
        beside = None
        if hessian:
            beside = measure_alignment(
                opened,
                moments,
                spectrum,
                dimensions.trace_sq,
                aim=aim,
                probes=probes,
                products=products,
            )
    return _collected(moments, spectrum, dimensions, beside)._in_samples(opened.unit.size)


def _check(k: int, method: str) -> None:
    check_whole("k", k, 1)
    if method not in METHODS:
        raise ArgumentError(f"`method` must be one of {', '.join(METHODS)}; got {method!r}")


def _check_budget(problem: Problem, k: int, products: int | None, memory_budget: int) -> None:
    """Refuse what would not fit before the work starts; 0 products where H is not measured."""
    objective = problem.objective
    size, dtype = objective.size, compute_dtype(objective.parameters.values())
    needed = min(k + 4, size) * size * dtype.itemsize  # of an iteration
    if products != 0:
        wide = wide_dtype(objective.device).itemsize
        needed = max(needed, math.ceil(HELD * min(products or LEAST, size) * size * wide))
    if needed > memory_budget:
        fewer = ", fewer `products`" if products and products > LEAST else ""
        without = "" if products == 0 else f"{fewer}, or `hessian=False`"
        raise ArgumentError(
            f"`memory_budget` = {memory_budget} bytes does not hold the vectors of {size} "
            f"parameters that are needed, {needed} bytes: give as many, or a smaller `k`{without}"
        )


def _collected(
    moments: GradientMoments,
    spectrum: NoiseSpectrum,
    dimensions: Dimensions,
    beside: Alignment | None,
) -> Covariance:
    squares = spectrum.centred.square()
    spread = (squares - squares.mean(0)).square().sum(0) / (len(squares) - 1)
    return Covariance(
        trace=moments.trace_cov,
        **vars(dimensions),
        grad_share=share_of_gradient(spectrum.along, moments),
        pairs=spectrum.pairs,
        stderr=(moments.spread_factor * spread).sqrt().cpu(),
        held_out=spectrum.held_out,
        variance=moments.variance,
        alignment=beside,
        samples=moments.count,
        population=moments.population,
        method=spectrum.method,
    )
