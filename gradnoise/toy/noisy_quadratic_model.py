"""Noisy quadratic model: directions of curvature 1/a, with noise variance equal to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from ..tensors.random import generator
from ..tensors.trees import Batch
from .dynamics import Dynamics
from .problem import Toy
from .truth import Truth


class NoisyQuadraticModel(Toy):
    """ℓ_i(w) = ½Σ_a h_a w_a² + ξ_iᵀw with ξ ~ N(0, diag(h)) and h_a = 1/a (arXiv:1907.04164).

    G = Hw, Σ = H at every w, and all samples have the Hessian H. Under SGD the second moment of a
    direction follows s ← (1 - εh)²s + ε²h/B, with the fixed point s = ε/(B(2 - εh)).

    Args:
        w: where to measure, shape (d,).
        spectrum: h, positive, shape (d,); default 1/a.

    Raises:
        ArgumentError: shapes that do not fit, or a curvature that is not positive.

    Example:
        >>> NoisyQuadraticModel(torch.ones(2)).truth().noise_scale  # (1 + 1/4)/(1 + 1/8)
        1.111...
    """

    def __init__(self, w: Tensor, spectrum: Tensor | None = None) -> None:
        self.w = w.double()
        inverse = 1 / torch.arange(1, len(self.w) + 1, dtype=torch.float64)
        self.spectrum = inverse if spectrum is None else spectrum.double()
        if self.spectrum.shape != self.w.shape or not bool((self.spectrum > 0).all()):
            raise ArgumentError(
                f"`spectrum` must be positive, of the shape of `w`; got shapes "
                f"{tuple(self.spectrum.shape)} and {tuple(self.w.shape)}"
            )

    def loss_fn(self, model: nn.Module, batch: Batch) -> Tensor:
        """ℓ_i for noises of shape (n, d)."""
        w: Any = model.w
        losses: Tensor = 0.5 * (self.spectrum.to(batch) * w.square()).sum() + batch @ w
        return losses

    def sample(self, n: int, seed: int) -> Tensor:
        """n noises ξ, shape (n, d)."""
        noise = torch.randn(n, len(self.w), generator=generator(seed), dtype=torch.float64)
        return noise * self.spectrum.sqrt()

    def truth(self) -> Truth:
        """Exact answers for the distribution."""
        h, w = self.spectrum, self.w
        return Truth(
            loss=float(0.5 * (h @ w**2)),
            grad_sq_norm=float(h**2 @ w**2),
            trace_cov=float(h.sum()),
            sharpness=float(h.max()),
            grad_curvature=float(h**3 @ w**2),
            trace_hessian_cov=float(h @ h),
            curvature_noise_scale=0.0,
        )

    def dynamics(self) -> Dynamics:
        """Exact second moments of SGD."""
        noise = torch.diag(self.spectrum)
        return Dynamics(noise, lambda second: noise * second[-1, -1])
