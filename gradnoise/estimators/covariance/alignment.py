"""Alignment of the covariance of the gradients with the Hessian."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from ...linalg.deflation import krylov_deflation
from ...linalg.eigen_options import EigenOptions
from ...linalg.frobenius import frobenius_norm
from ...linalg.iteration import Eigenpairs
from ...measurement.opened import Opened
from ...moments.moments import GradientMoments
from ...operators.gradients import PerSampleGradients
from ...statistics.estimate import Estimate
from ...statistics.fourth_moments import LEAST
from ...statistics.transform import in_samples
from ..noise.noise_scale import STEPS, measure_noise_scale, sign_probes
from .cosine import Influences, overlap, population_norm, probe_variance, spread_over_samples
from .ranks import square_influences
from .spectrum import NoiseSpectrum
from .subspace import principal_angles, share_of_gradient, share_of_noise


@dataclass(frozen=True, eq=False)
class Alignment:
    """Alignment of Σ with H; in the metric of an optimizer with P^-½(H + D)P^-½.

    Decoupled weight decay is left out: it belongs to λ alone, and not to tr(HΣ).

    Args:
        overlap: tr(HΣ)/(‖H‖_F ‖Σ‖_F), the cosine between the two as vectors, in [-1, 1].
        trace_hessian_cov: tr(HΣ), in loss³/parameter⁴.
        hessian_norm: ‖H‖_F, in loss/parameter².
        hessian_pairs: the k largest (algebraic) eigenpairs of H; values in loss/parameter².
        angles: principal angles between the spans of the largest eigenvectors of H and of Σ,
            ascending, in radians, shape (k,) at most.
        grad_share: ‖VᵀG‖²/|G|² for the k largest eigenvectors V of H, in [0, 1].
        noise_share: tr(VᵀΣV)/trΣ for the same V, in [0, 1].

    Source: shares: Gur-Ari, Roberts and Dyer 2018 (arXiv:1812.04754); overlap: Wu, Wang and Su
    2022 (arXiv:2207.02628); docs/theory/covariance.md.
    """

    overlap: Estimate
    trace_hessian_cov: Estimate
    hessian_norm: Estimate
    hessian_pairs: Eigenpairs
    angles: Tensor
    grad_share: Estimate
    noise_share: Estimate

    def in_samples(self, group_size: int) -> Alignment:
        """With tr(HΣ) of samples, from that of groups."""
        return replace(self, trace_hessian_cov=in_samples(self.trace_hessian_cov, group_size))

    @property
    def subspace_overlap(self) -> float:
        """Mean cos² of the principal angles: 1 for equal subspaces, about k/P for random ones."""
        return float(self.angles.cos().square().mean()) if len(self.angles) else math.nan


def measure_alignment(
    opened: Opened,
    moments: GradientMoments,
    spectrum: NoiseSpectrum,
    trace_sq: Estimate,
    *,
    aim: EigenOptions,
    probes: int,
    products: int | None,
) -> Alignment:
    """H by Lanczos, tr(HΣ) by random signs, ‖H‖_F by random directions, and what follows.

    Args:
        opened: the model.
        moments, spectrum, trace_sq: of its gradients, with intervals; the last is tr(Σ²).
        aim: options of Lanczos.
        probes: random sign vectors, at most.
        products: with H, for ‖H‖_F; None for as many as the budget holds, 64 at most.
    """
    hessian, engine = opened.hessian(memory_budget=aim.memory_budget), opened.engine
    seed, level = aim.seed, moments.level
    pairs = replace(aim, k=min(aim.k, opened.problem.objective.size)).find(hessian)
    signs = sign_probes(moments, probes, seed)
    deflation = krylov_deflation(hessian, steps=STEPS, seed=seed)
    trace = measure_noise_scale(
        hessian, engine, moments, signs, deflation=deflation
    ).trace_hessian_cov
    measured = frobenius_norm(
        hessian, products=products, level=level, seed=seed, memory_budget=aim.memory_budget
    )
    rows = PerSampleGradients.of(opened.problem, engine=engine)
    along = rows.along(pairs.vectors)
    norm, influences, from_trace = measured, None, trace.stderr**2
    if moments.sampling_factor and moments.count >= LEAST:
        influences = Influences.measure(hessian, rows, pairs, along, spectrum, seed)
        norm = population_norm(measured, influences, moments)
        sampled = moments.sampling_factor * spread_over_samples(influences.trace)
        from_trace = max(from_trace - sampled, float(influences.traces.var()) / probes)
    return Alignment(
        overlap=overlap(
            trace,
            norm,
            trace_sq,
            moments=moments,
            influences=influences,
            squares=square_influences(moments, spectrum) if influences else None,
            probe_variances=(
                from_trace,
                probe_variance(measured, influences, moments),
                spectrum.probe_variance,
            ),
        ),
        trace_hessian_cov=trace,
        hessian_norm=norm,
        hessian_pairs=pairs,
        angles=principal_angles(spectrum.pairs.vectors, pairs.vectors),
        grad_share=share_of_gradient(along, moments),
        noise_share=share_of_noise(along, moments),
    )
