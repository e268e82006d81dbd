"""What all analytic problems have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..tensors.trees import Batch
from .dynamics import Dynamics
from .truth import Truth


@dataclass(frozen=True)
class ToyLimits:
    """The three limits of the learning rate at one batch size, exact.

    Args:
        noise_scale_rule: (2/λ)/(1 + B_noise/B).
        one_step: 2ε_opt(B); nan where the gradient vanishes.
        mean_square: where second moments begin to grow.
    """

    noise_scale_rule: float
    one_step: float
    mean_square: float


class Toy(ABC):
    """A model and data whose exact answers are known."""

    @abstractmethod
    def model(self) -> nn.Module:
        """Where to measure."""

    @abstractmethod
    def loss_fn(self, model: nn.Module, batch: Batch) -> Tensor:
        """ℓ_i, shape (n,)."""

    @abstractmethod
    def sample(self, n: int, seed: int) -> Any:
        """n samples as one batch."""

    @abstractmethod
    def truth(self) -> Truth:
        """What a perfect measurement would find."""

    def dynamics(self) -> Dynamics | None:
        """Exact second moments of training; None where the bowl is not quadratic."""
        return None

    def mean_square_lr(
        self, batch_size: float, optimizer: str = "sgd", momentum: float = 0.0
    ) -> float:
        """Where second moments begin to grow, exact; along the sharpest direction at least.

        Where the bowl is not quadratic, of the bowl that it is at this point, along its sharpest
        direction alone and without momentum: (2/λ)/(1 + B_curv/B).
        """
        exact = self.dynamics()
        if exact is not None:
            return exact.mean_square_lr(batch_size, optimizer, momentum)
        truth = self.truth()
        return 2 / truth.sharpness / (1 + truth.curvature_noise_scale / batch_size)

    def limits(self, batch_size: float) -> ToyLimits:
        """The three limits of plain SGD."""
        truth = self.truth()
        bend = truth.grad_curvature + truth.trace_hessian_cov / batch_size
        return ToyLimits(
            2 / truth.sharpness / (1 + truth.noise_scale / batch_size),
            2 * truth.grad_sq_norm / bend,
            self.mean_square_lr(batch_size),
        )
