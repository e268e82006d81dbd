"""The interface of all analytic problems."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..tensors.trees import Batch
from .dynamics import Dynamics
from .truth import Point, Truth


@dataclass(frozen=True)
class ToyLimits:
    """The three limits of the learning rate at one batch size, exact.

    Args:
        noise_scale_rule: (2/λ)/(1 + B_noise/B), in parameter²/loss.
        one_step: 2ε_opt(B); zero where the gradient vanishes, nan where tr(HΣ) does as well.
        mean_square: where second moments begin to grow.
    """

    noise_scale_rule: float
    one_step: float
    mean_square: float


class Toy(ABC):
    """A model and data whose exact answers are known."""

    w: Any  # where to measure; a toy with another model overrides `model`

    def model(self) -> nn.Module:
        """The model at the parameters where to measure."""
        return Point(torch.as_tensor(self.w, dtype=torch.float64).reshape(-1))

    @abstractmethod
    def loss_fn(self, model: nn.Module, batch: Batch) -> Tensor:
        """ℓ_i, shape (n,)."""

    @abstractmethod
    def sample(self, n: int, seed: int) -> Any:
        """n samples as one batch, drawn with `seed`."""

    @abstractmethod
    def truth(self) -> Truth:
        """The exact values of everything that is measured."""

    def dynamics(self) -> Dynamics | None:
        """Exact second moments of SGD; None where the loss is not quadratic."""
        return None

    def mean_square_lr(
        self, batch_size: float, optimizer: str = "sgd", momentum: float = 0.0
    ) -> float:
        """The learning rate at which second moments begin to grow, in parameter²/loss.

        Exact where the loss is quadratic. Elsewhere that of its quadratic approximation in the
        sharpest direction, without momentum: (2/λ)/(1 + B_curv/B).
        """
        exact = self.dynamics()
        if exact is not None:
            return exact.mean_square_lr(batch_size, optimizer, momentum)
        truth = self.truth()
        return 2 / truth.sharpness / (1 + truth.curvature_noise_scale / batch_size)

    def limits(self, batch_size: float) -> ToyLimits:
        """The three limits of SGD without momentum."""
        truth = self.truth()
        curvature = truth.grad_curvature + truth.trace_hessian_cov / batch_size
        return ToyLimits(
            2 / truth.sharpness / (1 + truth.noise_scale / batch_size),
            2 * truth.grad_sq_norm / curvature if curvature else math.nan,
            self.mean_square_lr(batch_size),
        )
