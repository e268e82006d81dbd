"""Softmax regression at zero weights, before its first step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from ..tensors.random import generator
from ..tensors.trees import Batch
from .problem import Toy
from .truth import Truth


class SoftmaxRegression(Toy):
    """Cross entropy of K classes at W = 0, where every class has probability 1/K.

    Labels y are uniform and x ~ N(μ_y, C). With p = 1/K and e_y the unit vector of the label, the
    gradient of a sample is (p - e_y)xᵀ and its Hessian (1/K)(I - 11ᵀ/K) ⊗ xxᵀ. With μ̄ the mean of
    the μ_k and M = E[xxᵀ] = C + (1/K)Σ μ_kμ_kᵀ:

        G_k = (μ̄ - μ_k)/K,            H = (1/K)(I - 11ᵀ/K) ⊗ M,        λ = λ_max(M)/K
        trΣ = (1 - 1/K) trM - |G|²,    tr(HΣ) = (1/K)(1 - 1/K) tr(M²) - GᵀHG

    λ has K - 1 eigenvectors. Along each of them vᵀH_iv = (aᵀx)²/K, with a the top eigenvector of M,
    whose variance follows from the fourth moments of Gaussians.

    Args:
        means: μ_k, shape (K, d).
        spectrum: diagonal of C, not negative, shape (d,); default ones.

    Raises:
        ArgumentError: shapes that do not fit, fewer than two classes, a negative variance.

    Example:
        >>> truth = SoftmaxRegression(torch.tensor([[1.0], [-1.0]])).truth()
        >>> truth.grad_sq_norm, truth.trace_cov  # G = (-½, ½), trM = 2
        (0.5, 0.5)
    """

    def __init__(self, means: Tensor, spectrum: Tensor | None = None) -> None:
        self.means = means.double()
        if self.means.ndim != 2 or len(self.means) < 2:
            raise ArgumentError(
                f"`means` must have shape (K, d) with K > 1 classes; got {tuple(means.shape)}"
            )
        size = self.means.shape[1]
        self.spectrum = torch.ones(size).double() if spectrum is None else spectrum.double()
        if self.spectrum.shape != (size,) or (self.spectrum < 0).any():
            raise ArgumentError(
                f"`spectrum` must be {size} numbers, none of them negative; got "
                f"{self.spectrum.tolist()}"
            )

    def model(self) -> nn.Module:
        """A linear layer without bias, with zero weights."""
        layer = nn.Linear(self.means.shape[1], len(self.means), bias=False).double()
        nn.init.zeros_(layer.weight)
        return layer

    def loss_fn(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross entropies for batches (x, y) of shapes (n, d) and (n,)."""
        inputs, labels = batch
        return nn.functional.cross_entropy(model(inputs), labels, reduction="none")

    def sample(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """n samples (x, y)."""
        source = generator(seed)
        labels = torch.randint(len(self.means), (n,), generator=source)
        noise = torch.randn(n, self.means.shape[1], generator=source, dtype=torch.float64)
        return self.means[labels] + noise * self.spectrum.sqrt(), labels

    def truth(self) -> Truth:
        """Exact answers for the distribution."""
        classes = len(self.means)
        gradient = (self.means.mean(0) - self.means) / classes  # [K, d], its rows add up to zero
        second = torch.diag(self.spectrum) + self.means.T @ self.means / classes
        grad_sq = float(gradient.square().sum())
        curvature = float((gradient @ second * gradient).sum()) / classes
        spread = (1 - 1 / classes) / classes
        values, vectors = torch.linalg.eigh(second)
        return Truth(
            loss=math.log(classes),
            grad_sq_norm=grad_sq,
            trace_cov=spread * classes * float(second.trace()) - grad_sq,
            sharpness=float(values[-1]) / classes,
            grad_curvature=curvature,
            trace_hessian_cov=spread * float(second.square().sum()) - curvature,
            curvature_noise_scale=self._fourth(vectors[:, -1]) / float(values[-1]) ** 2 - 1,
        )

    def _fourth(self, direction: Tensor) -> float:
        """E[(aᵀx)⁴]."""
        mean, variance = self.means @ direction, float(self.spectrum @ direction**2)
        return float((mean**4 + 6 * mean**2 * variance + 3 * variance**2).mean())
