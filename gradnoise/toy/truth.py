"""The exact answers of an analytic problem."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Truth:
    """The exact values for the whole population.

    Args:
        loss: L.
        grad_sq_norm, trace_cov: |G|², trΣ, in loss²/parameter².
        sharpness: λ, in loss/parameter².
        grad_curvature, trace_hessian_cov: GᵀHG, tr(HΣ), in loss³/parameter⁴.
        curvature_noise_scale: B_curv = Var_i(vᵀH_iv)/λ², in samples.
    """

    loss: float
    grad_sq_norm: float
    trace_cov: float
    sharpness: float
    grad_curvature: float
    trace_hessian_cov: float
    curvature_noise_scale: float

    @property
    def simple_noise_scale(self) -> float:
        """B_simple = trΣ/|G|², ∞ where the gradient vanishes."""
        return _quotient(self.trace_cov, self.grad_sq_norm)

    @property
    def noise_scale(self) -> float:
        """B_noise = tr(HΣ)/GᵀHG, ∞ where the gradient vanishes."""
        return _quotient(self.trace_hessian_cov, self.grad_curvature)


def _quotient(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.inf


class Point(nn.Module):
    """A model with a parameter vector w, shape (d,), and no forward pass."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w.clone())
