"""Random curvature: one direction whose curvature differs from sample to sample."""

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


class RandomCurvature(Toy):
    """ℓ_i(w) = ½h_iw² with h ~ N(a, s²).

    G = aw, Σ = s²w², B_curv = B_noise = s²/a². The mean square of SGD grows for learning rates
    above 2a/(a² + s²/B), with heavy ball where 1/ε < a/(2(1 + m)) + s²/(2aB(1 - m)).

    Args:
        mean, spread: a > 0 and s ≥ 0.
        w: where to measure.

    Raises:
        ArgumentError: a curvature that is not positive, or a negative spread.

    Example:
        >>> round(RandomCurvature(2.0, 4.0).mean_square_lr(4), 9)  # 2·2/(4 + 16/4)
        0.5
    """

    def __init__(self, mean: float, spread: float, w: float = 1.0) -> None:
        self.mean, self.spread, self.w = float(mean), float(spread), float(w)
        if not self.mean > 0 or not self.spread >= 0:
            raise ArgumentError(f"`mean` must be positive and `spread` not negative; got {self}")

    def loss_fn(self, model: nn.Module, batch: Batch) -> Tensor:
        """ℓ_i for curvatures of shape (n,)."""
        w: Any = model.w
        losses: Tensor = 0.5 * batch * w.square()
        return losses

    def sample(self, n: int, seed: int) -> Tensor:
        """n curvatures."""
        noise = torch.randn(n, generator=generator(seed), dtype=torch.float64)
        return self.mean + self.spread * noise

    def truth(self) -> Truth:
        """Exact answers for the distribution."""
        a, s, w = self.mean, self.spread, self.w
        return Truth(
            loss=0.5 * a * w**2,
            grad_sq_norm=(a * w) ** 2,
            trace_cov=(s * w) ** 2,
            sharpness=a,
            grad_curvature=a * (a * w) ** 2,
            trace_hessian_cov=a * (s * w) ** 2,
            curvature_noise_scale=(s / a) ** 2,
        )

    def dynamics(self) -> Dynamics:
        """Exact second moments of SGD."""
        bowl = torch.full((1, 1), self.mean, dtype=torch.float64)
        return Dynamics(bowl, lambda second: self.spread**2 * second[:1, :1])

    def __repr__(self) -> str:
        return f"RandomCurvature({self.mean}, {self.spread}, {self.w})"
