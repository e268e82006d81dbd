"""The cosine between H and Σ, and how far the samples determine it.

tr(HΣ), ‖H‖² and tr(Σ²) rise and fall together, so the interval of their quotient needs the
influence of every sample on all three, with h_i = H_i - H and c_i = g_i - ḡ:

    on tr(HΣ)   c_iᵀHc_i + tr(h_iΣ)
    on ‖H‖²     2 tr(h_iH)
    on tr(Σ²)   2 c_iᵀΣc_i

The part in the largest eigenvectors of H and Σ is computed exactly. The remainder is averaged over
random directions, and the variance between directions is subtracted from the variance over samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...linalg.iteration import Eigenpairs
from ...moments.moments import GradientMoments
from ...operators.gradients import PerSampleGradients
from ...operators.hessian import Hessian
from ...problem.directional import per_sample_curvatures
from ...problem.sums import sign_sums
from ...statistics.estimate import Estimate, Status
from ...statistics.interval import symmetric
from ...statistics.transform import square_root, within
from ...tensors.random import generator, random_signs
from ...tensors.trees import widen
from .spectrum import NoiseSpectrum

RANDOM = 8  # directions of each kind


@dataclass(frozen=True, eq=False)
class Influences:
    """Influences of every sample, estimated along m random directions.

    Args:
        trace: on tr(HΣ), shape (m, n).
        hessian_sq: on ‖H‖², shape (m, n).
        spread: Σ_i‖h_i‖²/(n - 1), shape (m,).
        traces: the part of tr(HΣ) that is estimated by random signs, shape (m,).
    """

    trace: Tensor
    hessian_sq: Tensor
    spread: Tensor
    traces: Tensor

    @classmethod
    def measure(
        cls,
        hessian: Hessian,
        rows: PerSampleGradients,
        pairs: Eigenpairs,
        along: Tensor,
        spectrum: NoiseSpectrum,
        seed: int,
    ) -> Influences:
        """From the largest eigenpairs of H and of Σ, and `along`, g_iᵀv for those of H."""
        top = widen(pairs.vectors), pairs.values.to(along)
        noisy = widen(spectrum.pairs.vectors), spectrum.pairs.values.to(along)
        centred = along - along.mean(0)
        in_hessian, in_covariance = _curvatures(hessian, *top), _curvatures(hessian, *noisy)
        exact = centred.square() @ top[1] + in_covariance
        squares, spread = _gaussian(hessian, top[0], seed + 1)
        sampled, traces = _signed(hessian, rows, top, noisy[0], seed)
        return cls(exact + sampled, 2 * (in_hessian + squares), spread, traces)


def _curvatures(hessian: Hessian, vectors: Tensor, values: Tensor) -> Tensor:
    """Σ_j λ_j v_jᵀH_iv_j, shape (n,)."""
    total = vectors.new_zeros(hessian.problem.samples.count)
    for vector, value in zip(vectors.T, values, strict=True):
        total += value * per_sample_curvatures(hessian.problem, vector, [vector]).values[:, 0]
    return total


def _without(vector: Tensor, basis: Tensor) -> Tensor:
    """(I - VVᵀ)u."""
    return vector - basis @ (basis.T @ vector)


def _gaussian(hessian: Hessian, top: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """zᵀH_iHz orthogonal to the top of H, (m, n), and Σ_i(wᵀh_iz)²/(n - 1), (m,); z, w normal."""
    source, squares, spread = generator(seed), [], []
    for _ in range(RANDOM):
        z, w = torch.randn(2, hessian.shape[0], generator=source, dtype=torch.float64).to(top)
        orthogonal = _without(z, top)
        image = _without(widen(hessian @ orthogonal), top)
        squares.append(per_sample_curvatures(hessian.problem, orthogonal, [image]).values[:, 0])
        spread.append(per_sample_curvatures(hessian.problem, z, [w]).values[:, 0].var())
    return torch.stack(squares), torch.stack(spread)


def _signed(
    hessian: Hessian,
    rows: PerSampleGradients,
    top: tuple[Tensor, Tensor],
    noisy: Tensor,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """c_iᵀHc_i + tr(H_iΣ) less its exact part, by random signs, (m, n); and uᵀHu less its, (m,)."""
    vectors, values = top
    found, traces = [], []
    signs = random_signs(RANDOM, hessian.problem.samples.count, seed + 2).to(vectors)
    root = math.sqrt(signs.shape[1] - 1)
    for row, noise in zip(signs, sign_sums(hessian.problem, signs), strict=True):
        image = widen(hessian @ noise) - vectors @ (values * (vectors.T @ noise))
        slopes = rows.along(image[:, None])[:, 0]
        orthogonal = _without(noise, noisy)
        mixed = per_sample_curvatures(hessian.problem, orthogonal, [orthogonal]).values[:, 0]
        found.append(root * row * (slopes - slopes.mean()) + mixed)
        traces.append(noise @ image)
    return torch.stack(found), torch.stack(traces)


def spread_over_samples(influences: Tensor) -> float:
    """Variance over samples of influences (m, n), less that of their random directions."""
    gaps = influences - influences.mean(1, keepdim=True)
    m, n = gaps.shape
    noise = float(gaps.var(0).sum()) / (n - 1) / m
    return max(float(gaps.mean(0).var()) - noise, 0.0)


def population_norm(
    measured: Estimate, influences: Influences, moments: GradientMoments
) -> Estimate:
    """‖H‖_F of the population: E‖H̄‖² = ‖H‖² + (1/n - 1/N) Σ_i‖h_i‖²/(N - 1).

    Args:
        measured: ‖H̄‖_F of the measured samples.
        influences, moments: of the same samples.
    """
    factor, spread = moments.sampling_factor, influences.spread
    square = float(measured) ** 2 - factor * float(spread.mean())
    variance = factor * spread_over_samples(influences.hessian_sq)
    variance += probe_variance(measured, influences, moments)
    return square_root(square, variance, level=moments.level, samples=moments.count)


def probe_variance(
    measured: Estimate, influences: Influences | None, moments: GradientMoments
) -> float:
    """Variance of the estimate of the population's ‖H‖² that comes from random directions."""
    from_norm = (2 * float(measured) * measured.stderr) ** 2
    if influences is None:
        return from_norm
    spread = influences.spread
    return from_norm + moments.sampling_factor**2 * float(spread.var()) / len(spread)


def overlap(
    trace: Estimate,
    norm: Estimate,
    trace_sq: Estimate,
    *,
    moments: GradientMoments,
    influences: Influences | None,
    squares: Tensor | None,
    probe_variances: tuple[float, float, float],
) -> Estimate:
    """tr(HΣ)/(‖H‖_F ‖Σ‖_F).

    Args:
        trace, norm, trace_sq: tr(HΣ), ‖H‖_F, tr(Σ²).
        moments: of the same samples.
        influences, squares: on the first two and on tr(Σ²); None where nothing was sampled.
        probe_variances: of tr(HΣ), ‖H‖² and tr(Σ²), from random directions.
    """
    level, n = moments.level, moments.count
    size = float(norm) * math.sqrt(max(float(trace_sq), 0.0))
    if not size > 0:  # also nan
        return Estimate(math.nan, -1.0, 1.0, level, math.nan, n, Status.SIGNAL_BELOW_NOISE)
    value = float(trace) / size
    slopes = 1 / size, -value / (2 * float(norm) ** 2), -value / (2 * float(trace_sq))
    variance = sum(c * c * v for c, v in zip(slopes, probe_variances, strict=True))
    freedom = math.inf
    if influences is not None and squares is not None:
        all_three = (
            slopes[0] * influences.trace + slopes[1] * influences.hessian_sq + slopes[2] * squares
        )
        variance += moments.sampling_factor * spread_over_samples(all_three)
        freedom = n - 1
    elif moments.sampling_factor:
        variance = math.nan
    # a value beyond ±1 is cut, and its interval has the width that it would have there
    inside = min(max(value, -1.0), 1.0)
    found = symmetric(inside, variance, level=level, samples=n, freedom=freedom)
    return within(found, -1.0, 1.0)
