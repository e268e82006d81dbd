"""The share of each layer in λ, GᵀHG and tr(HΣ)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...linalg.deflation import CUT, Deflation
from ...linalg.iteration import Eigenpairs
from ...moments.layer import Layer
from ...moments.moments import GradientMoments
from ...statistics.estimate import Estimate, Status
from ...statistics.interval import symmetric
from ...tensors.trees import widen
from ..curvature.extreme_eigenvalue import Halves
from .sums import NoiseScale, Parts

CROWDED = 0.5  # bound on the angle to the sharpest direction beyond which it is not identified


@dataclass(frozen=True, eq=False)
class Shares:
    """Curvature by parameter, to be summed over layers.

    The share of a layer in a quadratic form uᵀHu is u_lᵀ(Hu)_l/uᵀHu: it includes the curvature
    between the layer and the others, needs no additional product, and shares add up to 1. They are
    those of the measured samples; where these are a part of the population, an error would need a
    product per layer, and shares have no interval.

    Args:
        names: of the parameters.
        sharpest: ‖v_p‖² of the eigenvector v of λ, shape (p,).
        halves: the same for the eigenvectors of split halves of the samples, shape (2, p); or
            (0, p).
        angle: bound on the sine of the angle between v and the exact eigenvector: residual over gap
            (Davis and Kahan 1970). No share has a larger error.
        sharpness, grad_curvature, trace_hessian_cov: λ, GᵀHG and tr(HΣ) of the whole model.
        parts: the last two by parameter.
        sampled: whether only a part of the population was measured.
    """

    names: Sequence[str]
    sharpest: Tensor
    halves: Tensor
    angle: float
    sharpness: Estimate
    grad_curvature: Estimate
    trace_hessian_cov: Estimate
    parts: Parts
    sampled: bool

    def give(self, layers: dict[str, Layer]) -> dict[str, Layer]:
        """The layers with their shares, and the one that limits the learning rate marked."""
        index = {
            key: [self.names.index(name) for name in layer.parameters]
            for key, layer in layers.items()
        }
        limiting = self._limiting(index)
        return {
            key: replace(
                layer,
                sharpness_share=self._of_sharpness(index[key]),
                curvature_share=self._of_curvature(index[key]),
                curvature_noise_share=self._of_noise(index[key]),
                limits_lr=key == limiting,
            )
            for key, layer in layers.items()
        }

    def _limiting(self, index: dict[str, list[int]]) -> str | None:
        """The layer with most of the sharpest direction, if v and both halves agree on it."""
        if not index or self.angle > CROWDED or not float(self.sharpness) > 0:
            return None
        votes = [self.sharpest, *self.halves]
        most = {max(index, key=lambda key: float(masses[index[key]].sum())) for masses in votes}
        return most.pop() if len(most) == 1 else None

    def _of_sharpness(self, members: list[int]) -> Estimate:
        part, total = float(self.sharpest[members].sum()), float(self.sharpest.sum())
        found = self._share(part, total if float(self.sharpness) > 0 else 0.0, self.sharpness, 0.0)
        if math.isnan(found.value):
            return found
        if self.angle > CROWDED:
            found = replace(found, status=Status.NOT_SEPARATED)
        if self.sampled:
            return found
        low, high = max(found.value - self.angle, 0.0), min(found.value + self.angle, 1.0)
        return replace(found, low=low, high=high)

    def _of_curvature(self, members: list[int]) -> Estimate:
        curvature = self.parts.curvature
        return self._share(
            float(curvature[members].sum()), float(curvature.sum()), self.grad_curvature, 0.0
        )

    def _of_noise(self, members: list[int]) -> Estimate:
        parts, totals = self.parts.traces[:, members].sum(1), self.parts.traces.sum(1)
        part, total, count = float(parts.mean()), float(totals.mean()), len(parts)
        if self.parts.complete or count < 2 or not total > 0:
            return self._share(part, total, self.trace_hessian_cov, 0.0)
        errors = (parts - part / total * totals) / total
        variance = float(errors.var()) / count
        return self._share(part, total, self.trace_hessian_cov, variance, freedom=count - 1)

    def _share(
        self, part: float, total: float, whole: Estimate, variance: float, freedom: float = math.inf
    ) -> Estimate:
        """part/total with its interval; no value where the total is not positive or resolved."""
        level, n = whole.level, whole.samples
        unresolved = whole.status in (Status.SIGNAL_BELOW_NOISE, Status.NOISE_BELOW_ERROR)
        if unresolved or not total > 0:
            status = whole.status if unresolved else Status.NEGATIVE_CURVATURE
            return Estimate(math.nan, -math.inf, math.inf, level, math.nan, n, status)
        error = math.nan if self.sampled else variance
        return symmetric(part / total, error, level=level, samples=n, freedom=freedom)


def shares_of(
    moments: GradientMoments,
    pairs: Eigenpairs,
    deflation: Deflation,
    halves: Halves | None,
    sharpness: Estimate,
    scale: NoiseScale,
) -> Shares | None:
    """The shares from the results of the other measurements; see `Shares`."""
    if scale.parts is None:
        return None
    space = deflation.space
    top = widen(pairs.vectors[:, 0])
    others = () if halves is None or halves.vectors is None else halves.vectors
    found = [space.by_parameter(v, v) for v in map(widen, others)]
    return Shares(
        names=list(moments.mean),
        sharpest=space.by_parameter(top, top),
        halves=torch.stack(found) if found else top.new_zeros(0, len(space.sizes)),
        angle=_angle(pairs, deflation.kernel.diagonal()[:-1]),
        sharpness=sharpness,
        grad_curvature=scale.grad_curvature,
        trace_hessian_cov=scale.trace_hessian_cov,
        parts=scale.parts,
        sampled=moments.spread_factor > 0,
    )


def _angle(pairs: Eigenpairs, ritz: Tensor) -> float:
    """sin ∠(v, eigenvector of λ) ≤ ‖Hv - ρv‖/(ρ - λ₂), ρ = vᵀHv, λ₂ the second of the Ritz values.

    With the largest Ritz value in place of ρ it would not hold: v may lie near the second vector.
    """
    ranked = ritz.sort(descending=True).values
    smallest = CUT * float(ritz.abs().max())  # smaller Ritz values were not kept
    second = max([smallest, *ranked[1:].tolist()])
    gap = float(pairs.values[0]) - second
    return min(float(pairs.residuals[0]) / gap, 1.0) if gap > 0 else 1.0
