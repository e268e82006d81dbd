"""Linear regression on Gaussian or heavy-tailed inputs."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from ..tensors.random import generator
from ..tensors.trees import Batch
from .dynamics import Dynamics
from .problem import Toy
from .truth import Point, Truth


class LinearRegression(Toy):
    """ℓ_i(w) = ½(x_iᵀw - y_i)², x ~ N(0, C), y = xᵀw* + e, e ~ N(0, s²).

    With δ = w - w* and q = δᵀCδ: G = Cδ, H = C, Σ = C(q + s²) + CδδᵀC (Isserlis), and
    B_noise = tr(C²)(q + s²)/(δᵀC³δ) + 1. For Gaussian x, Var(vᵀH_iv) = 2λ², so B_curv = 2.

    Heavy tails: coordinates x_a = √c_a t_a with t_a independent, of Student's t with ν degrees of
    freedom and unit variance. They have excess kurtosis κ = 6/(ν - 4); then Σ is larger by
    κ·diag(c_a²δ_a²), both noise scales by κ, and B_curv = 2 + κ where λ is a single eigenvalue. The
    variance of these estimates needs eighth moments, ν > 8.

    Args:
        spectrum: eigenvalues of C, positive, shape (d,); C is diagonal.
        offset: δ, shape (d,); w* is zero.
        noise: s, standard deviation of the labels.
        freedom: ν > 4; ∞ for Gaussian inputs.

    Raises:
        ArgumentError: shapes that do not fit, an eigenvalue that is not positive, a negative
            noise, or ν ≤ 4, for which Σ does not exist.

    Example:
        >>> toy = LinearRegression(torch.ones(4), torch.tensor([1.0, 0, 0, 0]), noise=0.0)
        >>> toy.truth().noise_scale  # d + 1 for isotropic inputs without label noise
        5.0
    """

    def __init__(
        self, spectrum: Tensor, offset: Tensor, noise: float = 1.0, *, freedom: float = math.inf
    ) -> None:
        self.spectrum, self.offset, self.noise = spectrum.double(), offset.double(), float(noise)
        self.freedom = float(freedom)
        if self.spectrum.shape != self.offset.shape or self.spectrum.ndim != 1:
            raise ArgumentError(
                f"`spectrum` and `offset` must be vectors of one length; got shapes "
                f"{tuple(self.spectrum.shape)} and {tuple(self.offset.shape)}"
            )
        if not (self.spectrum > 0).all() or self.noise < 0:
            raise ArgumentError(
                f"`spectrum` must be positive and `noise` not negative; got "
                f"{self.spectrum.tolist()} and {noise}"
            )
        if not self.freedom > 4:
            raise ArgumentError(f"`freedom` must be above 4, or Σ is infinite; got {freedom}")

    def model(self) -> nn.Module:
        """A model with the parameter w* + δ."""
        return Point(self.offset)

    def loss_fn(self, model: nn.Module, batch: Batch) -> Tensor:
        """ℓ_i for batches (x, y) of shapes (n, d) and (n,)."""
        inputs, targets = batch
        return 0.5 * (inputs @ model.w - targets) ** 2  # type: ignore[no-any-return]

    def sample(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """n samples (x, y)."""
        source = generator(seed)
        if math.isinf(self.freedom):
            inputs = torch.randn(n, len(self.offset), generator=source, dtype=torch.float64)
        else:
            draws = np.random.default_rng(seed).standard_t(self.freedom, (n, len(self.offset)))
            inputs = torch.from_numpy(draws * math.sqrt(1 - 2 / self.freedom))
        labels = self.noise * torch.randn(n, generator=source, dtype=torch.float64)
        return inputs * self.spectrum.sqrt(), labels

    def truth(self) -> Truth:
        """Exact answers for the distribution."""
        c, d = self.spectrum, self.offset
        residual = float(c @ d**2) + self.noise**2
        grad_sq, curvature = float(c**2 @ d**2), float(c**3 @ d**2)
        tails = 6 / (self.freedom - 4)
        return Truth(
            loss=0.5 * residual,
            grad_sq_norm=grad_sq,
            trace_cov=float(c.sum()) * residual + (1 + tails) * grad_sq,
            sharpness=float(c.max()),
            grad_curvature=curvature,
            trace_hessian_cov=float(c @ c) * residual + (1 + tails) * curvature,
            curvature_noise_scale=2.0 + tails,
        )

    def dynamics(self) -> Dynamics:
        """Exact second moments of SGD; Σ(δ) = C(δᵀCδ + s²) + CδδᵀC + κ·diag(c_a²δ_a²)."""
        spectrum = torch.diag(self.spectrum)
        tails = 6 / (self.freedom - 4)

        def gradient_cov(second: Tensor) -> Tensor:
            offsets = second[:-1, :-1]
            residual = (spectrum * offsets).sum() + self.noise**2 * second[-1, -1]
            heavy = tails * torch.diag(self.spectrum**2 * offsets.diagonal())
            return spectrum * residual + spectrum @ offsets @ spectrum + heavy

        return Dynamics(spectrum, gradient_cov)
