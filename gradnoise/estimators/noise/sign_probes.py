"""Estimates by random signs of the sums over samples in B_noise and its parts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...linalg.deflation import Deflation
from ...operators.gradients import PerSampleGradients
from ...operators.hessian import Hessian
from ...problem.directional import forms, sign_sums
from ...tensors.sums import by_parameter
from ...tensors.trees import widen

AGREEMENT = 1e-14  # relative difference of equal probes, from rounding
SAMPLING_PROBES = 8  # that also measure single samples, for bias and sampling error


@dataclass(frozen=True)
class Probed:
    """Results of K probes, of which the first K' measured single samples (sampling probes).

    Args:
        traces: uᵀ(H - M)u + tr(MΣ) per probe, shape (K,).
        third: the unbiased K3 per pair of sampling probes, empty when nothing is sampled.
        mixed: C per sampling probe.
        influences: of each sample on tr(HΣ), per sampling probe, shape (K', n).
        lengths: ‖(H - M)u‖ per probe; 1 where u itself is zero.
        squares: (u_sᵀHu_t)² per pair of sampling probes: E = tr((HΣ)²).
        parts: `traces` parameter by parameter, shape (K, p).
    """

    traces: Tensor
    third: Tensor
    mixed: Tensor
    influences: Tensor
    lengths: Tensor
    squares: Tensor
    parts: Tensor


def slopes_along(rows: PerSampleGradients, direction: Tensor) -> Tensor:
    """g_iᵀv, shape (n,)."""
    return rows.along(direction[:, None])[:, 0]


def probe(
    hessian: Hessian,
    rows: PerSampleGradients,
    mean: Tensor,
    signs: Tensor,
    sampled: int,
    exact: ExactPart | None,
    accuracy: float,
    tick: Any,
) -> Probed:
    """The probes; the first `sampled` of them also measure the samples one by one."""
    signs = signs.to(mean)
    ring: list[tuple[Tensor, Tensor]] = []  # the first and the latest (signs, direction)
    seen: list[_Sampling] = []
    traces: list[Tensor] = []
    parts: list[Tensor] = []
    squares: list[Tensor] = []
    lengths: list[Tensor] = []
    products: list[Tensor] = []
    previous: Tensor | None = None
    for k, direction in enumerate(sign_sums(rows.problem, signs)):
        if k < sampled:
            partners = [*ring[-1:], *(ring[:1] if k == sampled - 1 else [])]
            image, sampling = _sample_by_sample(rows, mean, signs[k], direction, partners, exact)
            seen.append(sampling)
            squares += [(partner @ image).square() for _, partner in partners]
            ring = [*ring[:1], (signs[k], direction)]
        else:
            image = widen(hessian @ direction)
        remainder = image
        if exact is not None:
            remainder = exact.remainder(direction, image, hessian.resolution)
        traces.append(direction @ remainder + (exact.trace if exact else 0.0))
        by_name = by_parameter(direction, remainder, sizes_of(rows))
        parts.append(by_name + (exact.parts if exact else 0.0))
        lengths.append(remainder.norm() if direction.any() else torch.ones_like(traces[-1]))
        products += [] if previous is None else [previous @ remainder]
        previous = direction
        if tick is not None:
            tick(1)
        if k + 1 >= max(sampled, SAMPLING_PROBES) and _suffice(traces, products, lengths, accuracy):
            break
    n = signs.shape[1]
    third = [value for sampling in seen for value in sampling.third]
    return Probed(
        traces=torch.stack(traces),
        third=_stack(third) * (n / (n - 2) if n > 2 else 0.0),
        mixed=_stack([sampling.mixed for sampling in seen]),
        influences=_stack([sampling.influence for sampling in seen]),
        lengths=_stack(lengths),
        squares=_stack(squares),
        parts=torch.stack(parts),
    )


@dataclass(frozen=True)
class _Sampling:
    """What one sampling probe adds to `Probed`, before the factor n/(n - 2) of the third moment."""

    third: list[Tensor]
    mixed: Tensor
    influence: Tensor


def _sample_by_sample(
    rows: PerSampleGradients,
    mean: Tensor,
    signs: Tensor,
    direction: Tensor,
    partners: list[tuple[Tensor, Tensor]],
    exact: ExactPart | None,
) -> tuple[Tensor, _Sampling]:
    """Hu, and from the same pass the contributions of single samples.

    With u_s and u_t of two sign vectors: E Σ s_i t_i u_sᵀh_iu_t = Σ c_iᵀh_ic_i/(n - 1), and
    E Σ s_i ḡᵀh_iu_s = Σ ḡᵀh_ic_i/√(n - 1). The influence of sample i on tr(HΣ) through its gradient
    is √(n - 1) s_i c_iᵀHu on the average, of which c_iᵀMc_i is computed exactly.
    """
    others = [direction, mean, *(partner for _, partner in partners)]
    found = forms(rows.problem, direction, others)
    image = found.product
    centred = found.values - torch.stack([image @ other for other in others])  # [n, k], of h_i
    root = math.sqrt(len(signs) - 1)
    remainder = image if exact is None else exact.remainder(direction, image, 0.0)
    influence = root * signs * (slopes_along(rows, remainder) - mean @ remainder)
    influence = influence + (exact.influences if exact else 0.0)
    third = [(signs * t) @ column for (t, _), column in zip(partners, centred.T[2:], strict=True)]
    mixed = signs @ centred[:, 1] / root
    return image, _Sampling(third, mixed, influence - influence.mean() + centred[:, 0])


@dataclass(frozen=True)
class ExactPart:
    """The part of tr(HΣ) that is computed without probes.

    Args:
        deflation: M.
        influences: c_iᵀMc_i, shape (n,).
        trace: tr(MΣ).
        parts: the same by parameter, shape (p,).
    """

    deflation: Deflation
    influences: Tensor
    trace: float
    parts: Tensor

    @classmethod
    def of(
        cls, deflation: Deflation | None, rows: PerSampleGradients, mean: Tensor
    ) -> ExactPart | None:
        """From the slopes of every sample along the directions of M."""
        if deflation is None:
            return None
        sizes = sizes_of(rows)
        centre = torch.stack([by_parameter(mean, d, sizes) for d in deflation.directions])  # [k, p]
        along, parts = [], torch.zeros_like(centre[0])
        for batch in rows.along_by_parameter(deflation.directions.T):
            gaps = batch - centre
            along.append(batch.sum(2))
            parts += torch.einsum("ikp,ik->p", gaps, gaps.sum(2) @ deflation.kernel)
        whole = torch.cat(along)
        whole = whole - whole.mean(0)
        influences, freedom = deflation.form(whole, whole), len(whole) - 1
        return cls(deflation, influences, float(influences.sum()) / freedom, parts / freedom)

    def remainder(self, direction: Tensor, image: Tensor, resolution: float) -> Tensor:
        """(H - M)u from Hu; zero where it is no more than rounding."""
        remainder = image - self.deflation.image(self.deflation.coordinates(direction))
        if float(remainder.norm()) <= 64 * resolution * float(image.norm()):
            return torch.zeros_like(remainder)
        return remainder


def _suffice(
    traces: list[Tensor], products: list[Tensor], lengths: list[Tensor], accuracy: float
) -> bool:
    """Whether the mean of the probes is as accurate as asked for.

    Judged by the variance of the probes and by an upper bound of it: with R = H - M and
    K_ij = c_iᵀRc_j/(n - 1), Var(uᵀRu) = 2(‖K‖_F² - ΣK_ii²) <= 2‖K‖_F² = 2 E(u_sᵀRu_t)². Where a few
    samples dominate tr(RΣ), a few probes can be equal by chance; their products are not.
    """
    values = torch.stack(traces)
    if agree(values) and bool(torch.stack(lengths).any()):
        return False
    most = 2 * float(torch.stack(products).square().mean()) / len(values)
    stderr = math.sqrt(max(mean_variance(values), most))
    return bool(accuracy) and stderr <= accuracy * abs(float(values.mean()))


def agree(values: Tensor) -> bool:
    """Whether all are the same number, except for rounding."""
    return float(values.max() - values.min()) <= AGREEMENT * float(values.abs().max())


def _stack(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts) if parts else torch.zeros(0)


def mean_variance(values: Tensor) -> float:
    """Variance of the mean of independent values."""
    return float(values.var()) / len(values) if len(values) > 1 else 0.0


def sizes_of(rows: PerSampleGradients) -> list[int]:
    """Numbers of entries of the parameters, in order."""
    return [parameter.numel() for parameter in rows.problem.objective.parameters.values()]
