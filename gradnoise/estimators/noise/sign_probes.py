"""Random signs, and the sums over samples in B_noise and its parts estimated with them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...linalg.deflation import LowRank
from ...operators.gradients import PerSampleGradients
from ...operators.hessian import Hessian
from ...problem.directional import curvatures_of_each
from ...problem.sums import TOGETHER, sign_sums
from ...tensors.space import Space
from ...tensors.trees import widen

ROUNDING, SINGLE = 64, 1e-6  # of products, in units of a resolution that is at most SINGLE
AGREEMENT = 1e-14  # of probes, relative, that is nothing but rounding
SAMPLING_PROBES = 8  # at least; they also measure what sampling adds: bias and standard error


@dataclass(frozen=True, eq=False)
class Probed:
    """The results of random signs.

    Args:
        traces: uᵀ(H - M)u + tr(MΣ) per probe, shape (K,).
        third: the unbiased K3 per pair of sampling probes, empty when nothing is sampled.
        mixed: C per sampling probe.
        influences: of each sample on tr(HΣ), per sampling probe, shape (K', n).
        lengths: ‖(H - M)u‖ per probe, and 1 for a probe that happened to be zero itself.
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

    @classmethod
    def of_signs(cls, traces: Tensor, parts: Tensor, lengths: Tensor) -> Probed:
        """Of values that look at no single samples."""
        none = torch.zeros(0)
        return cls(traces, none, none, none, lengths, none, parts)


def probe(
    hessian: Hessian,
    rows: PerSampleGradients,
    mean: Tensor,
    signs: Tensor,
    sampled: int,
    known: Known | None,
    accuracy: float,
    tick: Any,
) -> Probed:
    """The probes; the first `sampled` of them also measure single samples."""
    signs, space = signs.to(mean), hessian.space
    certain = max(sampled, SAMPLING_PROBES)  # probes that are taken in any case
    first = list(sign_sums(rows.problem, signs[:certain]))
    seen = _look_closer(rows, mean, signs[:sampled], first[:sampled], known)
    later = sign_sums(rows.problem, signs[certain:], together=1 if accuracy else TOGETHER)
    traces: list[Tensor] = []
    parts: list[Tensor] = []
    lengths: list[Tensor] = []
    products: list[Tensor] = []
    previous: Tensor | None = None
    for k, direction in enumerate(chain(first, later)):
        image = seen.images[k] if k < sampled else widen(hessian @ direction)
        rest = image if known is None else known.rest(direction, image, hessian.resolution)
        own = space.by_parameter(direction, rest)
        traces.append(own.sum() + (known.trace if known else 0.0))
        parts.append(own + (known.parts if known else 0.0))
        others = [rest] if previous is None else [rest, previous]
        size, square, *crossed = space.over(
            torch.stack([direction @ direction, *(other @ rest for other in others)])
        )
        lengths.append(square.sqrt() if size else torch.ones_like(square))
        products += crossed
        previous = direction
        if tick is not None:
            tick(1)
        if k + 1 >= certain and _suffice(traces, products, lengths, accuracy):
            break
    n = signs.shape[1]
    return Probed(
        traces=torch.stack(traces),
        third=_stack(seen.third) * (n / (n - 2) if n > 2 else 0.0),
        mixed=_stack(seen.mixed),
        influences=_stack(seen.influences),
        lengths=_stack(lengths),
        squares=_stack(seen.squares),
        parts=torch.stack(parts),
    )


class _Sampling(NamedTuple):
    """`Probed` of the sampling probes, `third` before its factor n/(n - 2); and Hu of each."""

    images: list[Tensor]
    third: list[Tensor]
    mixed: list[Tensor]
    influences: list[Tensor]
    squares: list[Tensor]


def _look_closer(
    rows: PerSampleGradients,
    mean: Tensor,
    signs: Tensor,
    noises: list[Tensor],
    known: Known | None,
) -> _Sampling:
    """Hu, and from the same passes what single samples do to it.

    With u_s and u_t of two sign vectors: E Σ s_i t_i u_sᵀh_iu_t = Σ c_iᵀh_ic_i/(n - 1), and
    E Σ s_i ḡᵀh_iu_s = Σ ḡᵀh_ic_i/√(n - 1). Sample i's own part of uᵀHu is √(n - 1) s_i c_iᵀHu,
    of which c_iᵀMc_i is known. Every probe is paired with the one before, the last with the first
    as well.
    """
    seen = _Sampling([], [], [], [], [])
    if not noises:
        return seen
    space, last, root = rows.space, len(noises) - 1, math.sqrt(signs.shape[1] - 1)
    partners = [[k - 1] * (k > 0) + [0] * (k == last) for k in range(len(noises))]
    asked = [(u, [u, mean, *(noises[t] for t in partners[k])]) for k, u in enumerate(noises)]
    rests = []
    for k, found in enumerate(curvatures_of_each(rows.problem, asked)):
        direction, others = asked[k]
        image = found.product
        along = space.over(torch.stack([image @ other for other in others]))
        centred = found.values - along  # [n, k], of h_i
        rests.append(image if known is None else known.rest(direction, image, 0.0))
        seen.images.append(image)
        seen.squares.extend(along[2:].square())
        seen.third.extend(
            (signs[k] * signs[t]) @ column
            for t, column in zip(partners[k], centred.T[2:], strict=True)
        )
        seen.mixed.append(signs[k] @ centred[:, 1] / root)
        seen.influences.append(centred[:, 0])
    block = torch.stack(rests, dim=1)
    slopes = rows.along(block) - space.over(mean @ block)
    for k, slope in enumerate(slopes.T):
        own = root * signs[k] * slope + (known.own if known else 0.0)
        seen.influences[k] = own - own.mean() + seen.influences[k]
    return seen


@dataclass(frozen=True, eq=False)
class Known:
    """The part M of H that is exact, without probes.

    Args:
        deflation: M.
        own: c_iᵀMc_i, shape (n,).
        trace: tr(MΣ).
        parts: the same by parameter, shape (p,).
        space: of the directions of M.
    """

    deflation: LowRank
    own: Tensor
    trace: float
    parts: Tensor
    space: Space

    @classmethod
    def of(cls, deflation: LowRank, rows: PerSampleGradients, mean: Tensor) -> Known:
        """From the slopes of every sample along the directions of M."""
        centre = rows.space.overlaps_by_parameter(deflation.directions, mean)  # [k, p]
        along, parts = [centre.T.new_zeros(0, len(centre))], torch.zeros_like(centre[0])
        for batch in rows.along_by_parameter(deflation.directions.T):
            gaps = batch - centre
            along.append(batch.sum(2))
            parts += torch.einsum("ikp,ik->p", gaps, gaps.sum(2) @ deflation.kernel)
        problem = rows.problem
        whole, parts = problem.rows(torch.cat(along)), problem.objective.ranks.sum(parts)
        whole = whole - whole.mean(0)
        own = deflation.form(whole, whole)
        trace = float(own.sum()) / (len(own) - 1)
        return cls(deflation, own, trace, parts / (len(own) - 1), rows.space)

    def form(self, direction: Tensor) -> Tensor:
        """uᵀMu by parameter, shape (p,)."""
        along = self.space.overlaps_by_parameter(self.deflation.directions, direction)
        return (self.deflation.kernel @ along.sum(1)) @ along

    def rest(self, direction: Tensor, image: Tensor, resolution: float) -> Tensor:
        """(H - M)u from Hu; zero where it is only rounding."""
        rest = image - self.deflation.image(self.deflation.coordinates(direction))
        unit = float(self.space.largest(image)) or 1.0  # so that no square overflows
        left, whole = (self.space.norm(vector / unit) for vector in (rest, image))
        if left <= rounding(resolution) * whole:
            return torch.zeros_like(rest)
        return rest


def rounding(resolution: float) -> float:
    """What is left of a product, relative, that is nothing but rounding of what is known of it.

    In half precision that cannot be told from a part of H that is not known.
    """
    return ROUNDING * resolution if resolution <= SINGLE else 0.0


def _suffice(
    traces: list[Tensor], products: list[Tensor], lengths: list[Tensor], accuracy: float
) -> bool:
    """Whether the mean of the probes is as accurate as is asked for.

    By the spread of the probes, and by what it may be at most: with R = H - M and K_ij =
    c_iᵀRc_j/(n - 1) it is Var(uᵀRu) = 2(‖K‖_F² - ΣK_ii²) <= 2‖K‖_F² = 2 E(u_sᵀRu_t)². Where a few
    samples make up R's part of the trace, a few probes can agree by chance; their products do not.
    """
    values = torch.stack(traces)
    if agree(values) and bool(torch.stack(lengths).any()):
        return False
    most = 2 * float(torch.stack(products).square().mean()) / len(values)
    stderr = math.sqrt(max(mean_variance(values), most))
    return bool(accuracy) and stderr <= accuracy * abs(float(values.mean()))


def agree(values: Tensor) -> bool:
    """Whether all are the same number up to rounding."""
    return float(values.max() - values.min()) <= AGREEMENT * float(values.abs().max())


def _stack(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts) if parts else torch.zeros(0)


def mean_variance(values: Tensor) -> float:
    """Variance of the mean of independent values."""
    return float(values.var()) / len(values) if len(values) > 1 else 0.0
