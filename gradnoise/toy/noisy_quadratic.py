"""Noisy quadratic: a quadratic bowl whose centre differs from sample to sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from ..tensors.random import generator
from ..tensors.trees import Batch
from .dynamics import Dynamics
from .problem import Toy
from .truth import Truth


class NoisyQuadratic(Toy):
    """ℓ_i(w) = ½(w - c_i)ᵀH(w - c_i) with c_i ~ N(0, S).

    G = Hw, Σ = HSH, and every sample has the same Hessian H, so B_curv = 0.

    Args:
        hessian: H, symmetric, shape (d, d).
        w: where to measure, shape (d,).
        centre_cov: S, shape (d, d); default the identity.

    Raises:
        ArgumentError: shapes that do not fit, or an H that is not symmetric.

    Example:
        >>> toy = NoisyQuadratic(torch.diag(torch.tensor([2.0, 1.0])), torch.tensor([1.0, 0.0]))
        >>> toy.truth().simple_noise_scale  # trΣ = 4 + 1, |G|² = 4
        1.25
    """

    def __init__(self, hessian: Tensor, w: Tensor, centre_cov: Tensor | None = None) -> None:
        self.hessian, self.w = hessian.double(), w.double()
        size = len(self.w)
        self.centre_cov = torch.eye(size).double() if centre_cov is None else centre_cov.double()
        for name, matrix in (("hessian", self.hessian), ("centre_cov", self.centre_cov)):
            if matrix.shape != (size, size) or not torch.allclose(matrix, matrix.T):
                raise ArgumentError(
                    f"`{name}` must be symmetric of shape ({size}, {size}), the length of `w`; "
                    f"got shape {tuple(matrix.shape)}"
                )

    def loss_fn(self, model: nn.Module, batch: Batch) -> Tensor:
        """ℓ_i for centres of shape (n, d)."""
        gaps = model.w - batch
        losses: Tensor = 0.5 * ((gaps @ self.hessian.to(gaps)) * gaps).sum(-1)
        return losses

    def sample(self, n: int, seed: int) -> Tensor:
        """n centres, shape (n, d)."""
        noise = torch.randn(n, len(self.w), generator=generator(seed), dtype=torch.float64)
        values, vectors = torch.linalg.eigh(self.centre_cov)
        return torch.matmul(noise, (vectors * values.clamp(min=0).sqrt()).T)

    def truth(self) -> Truth:
        """Exact answers for the distribution."""
        h, s = self.hessian, self.centre_cov
        gradient, cov = h @ self.w, h @ s @ h
        return Truth(
            loss=float(0.5 * (self.w @ gradient + torch.trace(h @ s))),
            grad_sq_norm=float(gradient @ gradient),
            trace_cov=float(torch.trace(cov)),
            sharpness=float(torch.linalg.eigvalsh(h)[-1]),
            grad_curvature=float(gradient @ h @ gradient),
            trace_hessian_cov=float(torch.trace(h @ cov)),
            curvature_noise_scale=0.0,
        )

    def dynamics(self) -> Dynamics:
        """Exact second moments of SGD."""
        cov = self.hessian @ self.centre_cov @ self.hessian
        return Dynamics(self.hessian, lambda second: cov * second[-1, -1])
