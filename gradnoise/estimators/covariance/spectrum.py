"""The largest eigenpairs of Σ: dense where that is cheap, by Lanczos where it is not.

Dense ("gram"): the n·P gradients are written out; the smaller of CCᵀ (n, n) and CᵀC (P, P) gives
every eigenvalue at once, exactly, for n·P·min(n, P) multiplications and a dense eigenproblem: less
than a second up to min(n, P) = 1024. Lanczos: two passes over the samples per product, n + P
numbers for each vector of its basis, the largest eigenpairs alone; of tr(Σ²) the part of the other
eigenvalues is then estimated by random signs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...linalg.eigen_options import EigenOptions
from ...linalg.iteration import Eigenpairs
from ...moments.moments import GradientMoments
from ...operators.gradient_covariance import GradientCovariance
from ...operators.gradients import PerSampleGradients
from ...per_sample.contract.engine import Engine
from ...per_sample.contract.summary import Chunk
from ...problem.problem import Problem
from ...problem.shares import centred_by_share
from ...problem.sums import sign_sums
from ...tensors.random import generator, is_complete, random_signs
from ...tensors.trees import flatten, widen
from ..curvature.extreme_eigenvalue import Halves

WRITTEN_OUT = 1024  # the smaller of n and P up to which eigenproblems are dense
SQUARE_PROBES = 16  # sign vectors for the part of tr(Σ²) outside of the largest eigenpairs
METHODS = ("auto", "gram", "lanczos")


@dataclass(frozen=True, eq=False)
class NoiseSpectrum:
    """Σ̂ of the measured samples.

    Args:
        pairs: the largest eigenpairs, without those that are rounding.
        along: g_iᵀv_j, shape (n, k), float64.
        quadratic: c_iᵀΣ̂c_i, shape (n,): their sum is (n - 1) tr(Σ̂²).
        probe_variance: of tr(Σ̂²), from random signs.
        halves: the largest eigenvalue of split halves; None where the population was measured or
            fewer than four samples were.
        held_out: held-out Rayleigh quotients v_jᵀΣ̂v_j, v_j of one half and Σ̂ of the other, mean
            of both ways, shape (k,).
        method: "gram" or "lanczos".
    """

    pairs: Eigenpairs
    along: Tensor
    quadratic: Tensor
    probe_variance: float
    halves: Halves | None
    held_out: Tensor
    method: str

    @property
    def centred(self) -> Tensor:
        """c_iᵀv_j, shape (n, k)."""
        return self.along - self.along.mean(0)

    @property
    def trace_sq(self) -> float:
        """tr(Σ̂²)."""
        return float(self.quadratic.sum()) / (len(self.quadratic) - 1)


def noise_spectrum(
    problem: Problem, engine: Engine, moments: GradientMoments, aim: EigenOptions, method: str
) -> NoiseSpectrum:
    """By the cheaper method, or the one asked for."""
    n, size = problem.samples.count, problem.objective.size
    aim = replace(aim, k=min(aim.k, n - 1, size))
    fits = min(n, size) <= WRITTEN_OUT and 16 * n * size <= aim.memory_budget  # and a copy
    if method == "gram" or (method == "auto" and fits):
        found = _written_out(_rows(problem, engine), aim, split=moments.spread_factor > 0)
    else:
        found = _iterated(problem, engine, aim, split=moments.spread_factor > 0)
    mean_sq = sum(float(part.square().sum()) for part in moments.mean.values())
    return _above(found, moments.resolution**2 * mean_sq)


def _above(found: NoiseSpectrum, rounding: float) -> NoiseSpectrum:
    """Without eigenvalues that are no more than rounding."""
    pairs = found.pairs
    kept = int((pairs.values > rounding).sum())
    few = replace(
        pairs,
        values=pairs.values[:kept],
        residuals=pairs.residuals[:kept],
        vectors=pairs.vectors[:, :kept],
    )
    return replace(found, pairs=few, along=found.along[:, :kept], held_out=found.held_out[:kept])


def _rows(problem: Problem, engine: Engine) -> Tensor:
    """All per-sample gradients in the coordinates of the problem, shape (n, P), float64."""
    objective = problem.objective
    with problem.guard():
        chunks = (chunk for batch in problem.batches() for chunk in engine.chunks(batch))
        found = [_flat(chunk, list(objective.parameters)) for chunk in chunks]
        rows = problem.rows_of(found, objective.size)
        rows = centred_by_share(rows, problem.samples.shares)
    if objective.preconditioner is not None:  # engines differentiate in the parameters themselves
        rows *= objective.preconditioner.flat(objective.preconditioner.root, rows)
    decay = objective.decay()
    return rows if decay is None else rows.add_(flatten(list(decay.values())))


def _flat(chunk: Chunk, names: list[str]) -> Tensor:
    """The gradients of a chunk, shape (n, P), float64."""
    return torch.cat([widen(chunk.gradients[k]).reshape(len(chunk.losses), -1) for k in names], 1)


def _written_out(rows: Tensor, aim: EigenOptions, *, split: bool) -> NoiseSpectrum:
    n = len(rows)
    centred = rows - rows.mean(0)
    values, vectors, quadratic = _dense(centred, aim.k)
    halves, held_out = None, torch.full_like(values, math.nan)
    if split and n >= 4:
        order = torch.randperm(n, generator=generator(aim.seed)).to(rows.device)
        parts = [rows[half] - rows[half].mean(0) for half in (order[: n // 2], order[n // 2 :])]
        found = [_dense(part, aim.k) for part in parts]
        others = [_spread(o @ v) for o, (_, v, _) in zip(reversed(parts), found, strict=True)]
        halves, held_out = _joined([values for values, _, _ in found], others, len(values))
    exact = torch.zeros_like(values)
    pairs = Eigenpairs(values, exact, vectors, matvecs=0, converged=True)
    return NoiseSpectrum(pairs, rows @ vectors, quadratic, 0.0, halves, held_out, "gram")


def _dense(centred: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k largest eigenvalues that are not zero, their vectors (P, k), and c_iᵀΣ̂c_i."""
    n, size = centred.shape
    if size <= n:
        matrix = centred.T @ centred / (n - 1)
        quadratic = ((centred @ matrix) * centred).sum(1)
    else:
        matrix = centred @ centred.T / (n - 1)
        quadratic = matrix.square().sum(1) * (n - 1)
    values, vectors = torch.linalg.eigh(matrix.cpu())
    rounding = len(values) * torch.finfo(values.dtype).eps * values[-1].clamp(min=0)
    kept = (values > rounding).nonzero()[:, 0].flip(0)[:k]
    top = vectors[:, kept].to(centred)
    if size > n:
        top = torch.linalg.qr(centred.T @ top).Q
    return values[kept], top, quadratic


def _iterated(problem: Problem, engine: Engine, aim: EigenOptions, *, split: bool) -> NoiseSpectrum:
    covariance = GradientCovariance.of(problem, engine=engine)
    pairs = aim.find(covariance)
    rows = PerSampleGradients.of(problem, engine=engine)
    along = rows.along(pairs.vectors)
    centred = along - along.mean(0)
    outside = _outside_top(problem, rows, pairs, aim.seed)  # [m, n]
    quadratic = centred.square() @ pairs.values.to(centred) + outside.mean(0)
    n, traces = outside.shape[1], outside.sum(1)
    variance = 0.0
    if not is_complete(len(outside), n):
        variance = float(traces.var()) / len(outside) / (n - 1) ** 2
    halves, held_out = None, torch.full_like(pairs.values, math.nan)
    if split and n >= 4:
        halves, held_out = _iterated_halves(problem, engine, aim, len(pairs.values))
    return NoiseSpectrum(pairs, along, quadratic, variance, halves, held_out, "lanczos")


def _outside_top(
    problem: Problem, rows: PerSampleGradients, pairs: Eigenpairs, seed: int
) -> Tensor:
    """(c_iᵀr)² of every sample and probe, shape (m, n): r = (I - VVᵀ)u with E[uuᵀ] = Σ̂."""
    top, found = widen(pairs.vectors), []
    for noise in sign_sums(problem, random_signs(SQUARE_PROBES, problem.samples.count, seed)):
        slopes = rows.along((noise - top @ (top.T @ noise))[:, None])[:, 0]
        found.append((slopes - slopes.mean()).square())
    return torch.stack(found)


def _iterated_halves(
    problem: Problem, engine: Engine, aim: EigenOptions, count: int
) -> tuple[Halves, Tensor]:
    parts = [replace(problem, samples=half) for half in problem.samples.halves(aim.seed)]
    found = []
    for part in parts:
        few = replace(aim, k=min(aim.k, part.samples.count - 1), repeats=False)
        found.append(few.find(GradientCovariance.of(part, engine=engine)))
    rows = [PerSampleGradients.of(part, engine=engine) for part in reversed(parts)]
    others = [_spread(o.along(p.vectors)) for o, p in zip(rows, found, strict=True)]
    halves, held_out = _joined([pairs.values for pairs in found], others, count)
    matvecs = sum(pairs.matvecs for pairs in found)
    converged = all(pairs.converged for pairs in found)
    return replace(halves, matvecs=matvecs, converged=converged), held_out


def _spread(along: Tensor) -> Tensor:
    """vᵀΣ̂v from g_iᵀv."""
    return along.var(0).cpu() if along.shape[1] else along[0].cpu()


def _joined(values: list[Tensor], others: list[Tensor], count: int) -> tuple[Halves, Tensor]:
    """Means over both halves of their eigenvalues and held-out quotients; nan beyond a half's rank.

    Args:
        values: eigenvalues of each half.
        others: quotients of its eigenvectors on the other half.
        count: of the whole, which is the length of the result.
    """
    if any(not len(largest) for largest in values):
        return Halves(0.0, 0.0), torch.full((count,), math.nan, dtype=torch.float64)
    padded = [
        torch.nn.functional.pad(held, (0, max(count - len(held), 0)), value=math.nan)[:count]
        for held in others
    ]
    held_out = (padded[0] + padded[1]) / 2
    return Halves(float(values[0][0] + values[1][0]) / 2, float(held_out[0])), held_out
