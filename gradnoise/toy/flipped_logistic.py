"""Flipped logistic: logistic regression with one parameter and flipped labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from ..tensors.random import generator
from ..tensors.trees import Batch
from .problem import Toy
from .truth import Truth


class FlippedLogistic(Toy):
    """ℓ_i(w) = log(1 + exp(-y_i w)), y = 1, except a share q of flipped labels, y = -1.

    g_i is -σ(-w), and 1 - σ(-w) where the label is flipped: G = q - σ(-w), Σ = q(1 - q) at every w,
    H_i = σ(w)σ(-w) for all samples, and B_noise = B_simple = q(1 - q)/(q - σ(-w))². The minimum is
    where σ(-w) = q. Every estimate is a function of the number of flipped labels, so that the
    coverage of an interval can be enumerated.

    Args:
        flip: q, between 0 and 1.
        w: where to measure.

    Raises:
        ArgumentError: a share that is not between 0 and 1.

    Example:
        >>> FlippedLogistic(0.25).truth().noise_scale  # (3/16)/(1/4 - 1/2)²
        3.0
    """

    def __init__(self, flip: float, w: float = 0.0) -> None:
        self.flip, self.w = float(flip), float(w)
        if not 0 < self.flip < 1:
            raise ArgumentError(f"`flip` must be a share between 0 and 1; got {flip}")

    def loss_fn(self, model: nn.Module, batch: Batch) -> Tensor:
        """ℓ_i for labels ±1 of shape (n,)."""
        return nn.functional.softplus(-batch * model.w)

    def sample(self, n: int, seed: int) -> Tensor:
        """n labels."""
        flipped = torch.rand(n, generator=generator(seed), dtype=torch.float64) < self.flip
        return 1 - 2 * flipped.double()

    def truth(self) -> Truth:
        """Exact answers for the distribution."""
        wrong = 1 / (1 + math.exp(self.w))  # σ(-w)
        gradient, cov, curvature = self.flip - wrong, self.flip * (1 - self.flip), wrong - wrong**2
        return Truth(
            loss=self.flip * self.w - math.log1p(-wrong),
            grad_sq_norm=gradient**2,
            trace_cov=cov,
            sharpness=curvature,
            grad_curvature=curvature * gradient**2,
            trace_hessian_cov=curvature * cov,
            curvature_noise_scale=0.0,
        )
