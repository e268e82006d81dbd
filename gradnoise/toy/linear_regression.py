"""T4: linear regression on Gaussian inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from ..probes import generator
from ..trees import Batch
from .truth import Point, Truth


class LinearRegression:
    """ℓ_i(w) = ½(x_iᵀw - y_i)², x ~ N(0, C), y = xᵀw* + e, e ~ N(0, s²).

    With δ = w - w* and q = δᵀCδ: G = Cδ, H = C, Σ = C(q + s²) + CδδᵀC (Isserlis), and
    B_noise = tr(C²)(q + s²)/(δᵀC³δ) + 1. For Gaussian x, Var(vᵀH_iv) = 2λ², so B_curv = 2.

    Args:
        spectrum: eigenvalues of C, positive, shape (d,); C is diagonal.
        offset: δ, shape (d,); w* is zero.
        noise: s, standard deviation of the labels.

    Raises:
        ArgumentError: shapes that do not fit, or an eigenvalue that is not positive.

    Example:
        >>> toy = LinearRegression(torch.ones(4), torch.tensor([1.0, 0, 0, 0]), noise=0.0)
        >>> toy.truth().noise_scale  # d + 1 for isotropic inputs without label noise
        5.0
    """

    def __init__(self, spectrum: Tensor, offset: Tensor, noise: float = 1.0) -> None:
        self.spectrum, self.offset, self.noise = spectrum.double(), offset.double(), float(noise)
        if self.spectrum.shape != self.offset.shape or self.spectrum.ndim != 1:
            raise ArgumentError(
                f"`spectrum` and `offset` must be vectors of one length; got shapes "
                f"{tuple(self.spectrum.shape)} and {tuple(self.offset.shape)}"
            )
        if not (self.spectrum > 0).all() or self.noise < 0:
            raise ArgumentError("`spectrum` must be positive and `noise` not negative")

    def model(self) -> nn.Module:
        """The point w* + δ."""
        return Point(self.offset)

    def loss_fn(self, model: nn.Module, batch: Batch) -> Tensor:
        """ℓ_i for batches (x, y) of shapes (n, d) and (n,)."""
        inputs, targets = batch
        return 0.5 * (inputs @ model.get_parameter("w") - targets) ** 2  # type: ignore[no-any-return]

    def sample(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """n samples (x, y)."""
        source = generator(seed)
        inputs = torch.randn(n, len(self.offset), generator=source, dtype=torch.float64)
        labels = self.noise * torch.randn(n, generator=source, dtype=torch.float64)
        return inputs * self.spectrum.sqrt(), labels

    def truth(self) -> Truth:
        """Exact answers for the distribution."""
        c, d = self.spectrum, self.offset
        residual = float(c @ d**2) + self.noise**2
        slope, bend = float(c**2 @ d**2), float(c**3 @ d**2)
        return Truth(
            loss=0.5 * residual,
            grad_sq_norm=slope,
            trace_cov=float(c.sum()) * residual + slope,
            sharpness=float(c.max()),
            grad_curvature=bend,
            trace_hessian_cov=float(c @ c) * residual + bend,
            curvature_noise_scale=2.0,
        )
