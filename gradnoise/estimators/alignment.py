"""How the covariance of the gradients lies beside the Hessian."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..algebra import Eigenpairs, frobenius_norm, lanczos
from ..algebra.deflation import explore
from ..directional import forms
from ..errors import CurvatureError
from ..estimate import Estimate, Status, flag_zero, quantile, symmetric
from ..moments import GradientMoments
from ..operators import Hessian, PerSampleGradients
from ..pergrad import Engine
from ..probes import generator
from ..problem import Problem
from ..trees import widen
from .noise_scale import STEPS, measure_noise_scale, sign_probes
from .noise_spectrum import Iteration, NoiseSpectrum
from .subspace import principal_angles, share_of_gradient, share_of_noise, within

NORM_PROBES = 8  # pairs of Gaussian directions for what sampling adds to ‖H‖²


@dataclass(frozen=True)
class Alignment:
    """Σ beside H.

    Args:
        overlap: tr(HΣ)/(‖H‖_F ‖Σ‖_F), the cosine between the two as vectors, in [-1, 1].
        trace_hessian_cov: tr(HΣ).
        hessian_norm: ‖H‖_F.
        hessian_pairs: the k largest (algebraic) eigenpairs of H.
        angles: principal angles between the top subspaces of H and Σ, ascending, in radians.
        grad_share: ‖VᵀG‖²/|G|² for the top eigenvectors V of H.
        noise_share: tr(VᵀΣV)/trΣ for the same.
    """

    overlap: Estimate
    trace_hessian_cov: Estimate
    hessian_norm: Estimate
    hessian_pairs: Eigenpairs
    angles: Tensor
    grad_share: Estimate
    noise_share: Estimate

    @property
    def subspace_overlap(self) -> float:
        """Mean cos² of the principal angles: 1 for equal subspaces, about k/P for random ones."""
        return float(self.angles.cos().square().mean()) if len(self.angles) else math.nan


def measure_alignment(
    problem: Problem,
    engine: Engine,
    moments: GradientMoments,
    spectrum: NoiseSpectrum,
    trace_sq: Estimate,
    *,
    aim: Iteration,
    probes: int,
    products: int,
) -> Alignment:
    """The top of H, tr(HΣ) by random signs, ‖H‖_F by random directions, and what follows."""
    hessian = _hessian(problem, aim.memory_budget)
    seed, level = aim.seed, moments.level
    k = min(aim.k, problem.objective.size)
    pairs = lanczos(hessian, k=k, tol=aim.tol, seed=seed, memory_budget=aim.memory_budget)
    signs = sign_probes(moments.count, probes, seed)
    _, deflation = explore(hessian, tol=1.0, steps=STEPS, seed=seed)
    trace = measure_noise_scale(
        hessian, engine, moments, signs, deflation=deflation
    ).trace_hessian_cov
    plain = frobenius_norm(hessian, products=products, level=level, seed=seed)
    norm = _population_norm(hessian, plain, moments, seed)
    along = PerSampleGradients.of(problem, engine=engine).along(pairs.vectors)
    return Alignment(
        overlap=_overlap(trace, norm, trace_sq),
        trace_hessian_cov=trace,
        hessian_norm=norm,
        hessian_pairs=pairs,
        angles=principal_angles(spectrum.pairs.vectors, pairs.vectors),
        grad_share=share_of_gradient(along, moments),
        noise_share=share_of_noise(along, moments),
    )


def _hessian(problem: Problem, memory_budget: int) -> Hessian:
    try:
        return Hessian.of(problem, hvp="kept", memory_budget=memory_budget)
    except CurvatureError as error:
        raise CurvatureError(
            f"{error}. Or pass `hessian=False` to measure the covariance alone"
        ) from error


def _population_norm(
    hessian: Hessian, plain: Estimate, moments: GradientMoments, seed: int
) -> Estimate:
    """‖H‖_F of the population from that of n samples.

    E‖H̄‖² = ‖H‖² + (1/n - 1/N) Σ_i‖h_i‖²/(N - 1) with h_i = H_i - H. For Gaussian z and w,
    E(wᵀh_iz)² = ‖h_i‖² takes it off, and E zᵀh_iH̄z = tr(h_iH̄) gives the influence of a sample.
    """
    factor, n = moments.sampling_factor, moments.count
    if not factor:
        return plain
    source = generator(seed + 1)
    spreads, influences = [], []
    for _ in range(NORM_PROBES):
        z, w = torch.randn(2, hessian.shape[0], generator=source, dtype=torch.float64)
        z, w = z.to(hessian.device), w.to(hessian.device)
        found = forms(hessian.problem, z, [w, widen(hessian @ z)]).values
        spreads.append(float(found[:, 0].var()))
        influences.append(2 * (found[:, 1] - found[:, 1].mean()))
    spread = torch.tensor(spreads, dtype=torch.float64)
    square = float(plain) ** 2 - factor * float(spread.mean())
    variance = (2 * float(plain) * plain.stderr) ** 2
    variance += factor * float(torch.stack(influences).mean(0).var())
    variance += factor**2 * float(spread.var()) / len(spread)
    return square_root(square, variance, level=moments.level, samples=n)


def square_root(square: float, variance: float, *, level: float, samples: int) -> Estimate:
    """√x of an estimated x, none where x is not distinguishable from zero."""
    found = flag_zero(
        symmetric(square, variance, level=level, samples=samples, freedom=samples - 1)
    )
    low, high = (math.sqrt(max(end, 0.0)) for end in (found.low, found.high))
    if square <= 0 or not found.is_resolved:
        value = math.sqrt(square) if square > 0 and found.is_resolved else math.nan
        status = Status.SIGNAL_BELOW_NOISE if found.is_resolved else found.status
        return Estimate(value, low, high, level, math.nan, samples, status)
    value = math.sqrt(square)
    return Estimate(value, low, high, level, found.stderr / (2 * value), samples)


def _overlap(trace: Estimate, norm: Estimate, trace_sq: Estimate) -> Estimate:
    """tr(HΣ) over the norms; the three errors as if they were independent.

    They mostly go together, so that the interval is rather too wide. Its ends are those of tr(HΣ)
    where the norms are exact, and squares of distances add (Zou and Donner 2008).
    """
    level, n = trace.level, trace.samples
    size = float(norm) * math.sqrt(max(float(trace_sq), 0.0))
    if not size > 0:  # also nan
        return Estimate(math.nan, -1.0, 1.0, level, math.nan, n, Status.SIGNAL_BELOW_NOISE)
    value = float(trace) / size
    relative = math.hypot(norm.stderr / float(norm), trace_sq.stderr / (2 * float(trace_sq)))
    error = abs(value) * relative
    if math.isnan(error + trace.stderr):
        return within(symmetric(value, math.nan, level=level, samples=n), -1.0, 1.0)
    reach = quantile(level, max(n - 1, 1)) * error
    low, high = (math.hypot((end - float(trace)) / size, reach) for end in (trace.low, trace.high))
    stderr = math.hypot(trace.stderr / size, error)
    found = Estimate(value, value - low, value + high, level, stderr, n, trace.status)
    return within(found, -1.0, 1.0)
