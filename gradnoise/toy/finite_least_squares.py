"""Least squares on a finite data set."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from ..tensors.random import generator
from ..tensors.trees import Batch
from .dynamics import Dynamics
from .problem import Toy
from .truth import Truth


class FiniteLeastSquares(Toy):
    """ℓ_i(w) = ½(x_iᵀw - y_i)² over N given samples, which are the whole population.

    H_i = x_ix_iᵀ. With batches without replacement the second moments of SGD grow for learning
    rates above 2/λ_max(C†D) (arXiv:2306.07850).

    Args:
        inputs: x, shape (N, d), N at least 2.
        targets: y, shape (N,).
        w: where to measure, shape (d,).

    Raises:
        ArgumentError: shapes that do not fit.

    Example:
        >>> inputs = torch.tensor([[1.0], [3.0]])
        >>> toy = FiniteLeastSquares(inputs, torch.zeros(2), torch.ones(1))
        >>> toy.truth().sharpness, round(toy.mean_square_lr(1), 9)  # (1 + 9)/2; 2·5/(5² + 4²)
        (5.0, 0.243902439)
    """

    def __init__(self, inputs: Tensor, targets: Tensor, w: Tensor) -> None:
        self.inputs, self.targets, self.w = inputs.double(), targets.double(), w.double()
        count = len(inputs)
        if inputs.shape != (count, len(w)) or targets.shape != (count,) or count < 2:
            raise ArgumentError(
                f"`inputs` (N, d), `targets` (N,) and `w` (d,) must fit, N at least 2; got shapes "
                f"{tuple(inputs.shape)}, {tuple(targets.shape)} and {tuple(w.shape)}"
            )

    def loss_fn(self, model: nn.Module, batch: Batch) -> Tensor:
        """ℓ_i for batches (x, y)."""
        inputs, targets = batch
        return 0.5 * (inputs @ model.w - targets) ** 2  # type: ignore[no-any-return]

    def sample(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """n of the N samples, without replacement; all of them in order where n = N.

        Raises:
            ArgumentError: more than there are.
        """
        if n > len(self.inputs):
            raise ArgumentError(f"there are {len(self.inputs)} samples; got n = {n}")
        if n == len(self.inputs):
            return self.inputs, self.targets
        chosen = torch.randperm(len(self.inputs), generator=generator(seed))[:n]
        return self.inputs[chosen], self.targets[chosen]

    def truth(self) -> Truth:
        """Exact answers for the data set."""
        x, residuals = self.inputs, self.inputs @ self.w - self.targets
        gradients = x * residuals[:, None]
        hessian, mean = self._hessian, gradients.mean(0)
        cov = torch.cov(gradients.T).reshape(len(self.w), -1)
        values, vectors = torch.linalg.eigh(hessian)
        curvatures = (x @ vectors[:, -1]).square()
        return Truth(
            loss=float(0.5 * residuals.square().mean()),
            grad_sq_norm=float(mean @ mean),
            trace_cov=float(cov.trace()),
            sharpness=float(values[-1]),
            grad_curvature=float(mean @ hessian @ mean),
            trace_hessian_cov=float((hessian * cov).sum()),
            curvature_noise_scale=float(curvatures.var() / values[-1] ** 2),
        )

    def dynamics(self) -> Dynamics:
        """Exact second moments of SGD, around a minimum."""
        best = torch.linalg.lstsq(self.inputs, self.targets[:, None], driver="gelsd").solution[:, 0]
        residuals = self.inputs @ best - self.targets
        outer = self.inputs[:, :, None] * self.inputs[:, None, :]
        slopes = torch.cat([outer, (self.inputs * residuals[:, None])[:, :, None]], dim=2)
        gaps = slopes - slopes.mean(0)  # of the gradient as a function of (δ, 1), (N, d, d + 1)
        count = len(gaps)

        def gradient_cov(second: Tensor) -> Tensor:
            return torch.einsum("nab,bc,ndc->ad", gaps, second, gaps) / (count - 1)

        return Dynamics(self._hessian, gradient_cov, float(count))

    @property
    def _hessian(self) -> Tensor:
        return self.inputs.T @ self.inputs / len(self.inputs)
