"""Exact second moments of SGD with momentum on quadratic losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..learning_rate.second_moments import stability_limit, symmetric_basis
from ..learning_rate.update_rule import Momentum


@dataclass(frozen=True, eq=False)
class Dynamics:
    """v ← av + bg_B, w ← w - ε(cg_B + dv) where the gradients of the samples are linear in w.

    With δ = w - w* a batch's gradient has the mean Hδ and, given δ, the covariance
    (1/B - 1/N) Σ(δ), where Σ is quadratic in δ. So the second moment P of (δ, v, 1) follows a
    linear map, and all expectations below are exact. A new batch is drawn in every step.

    Args:
        hessian: H, shape (d, d).
        gradient_cov: Σ as a linear function of the second moment of (δ, 1), shape (d + 1, d + 1),
            to shape (d, d).
        population: N in samples.

    Example:
        >>> one = torch.ones(1, 1).double()
        >>> noisy = Dynamics(one, lambda second: one * second[-1, -1])
        >>> float(noisy.stationary(0.5, 1)[0, 0])  # εσ²/(Bh(2 - εh)), 0.5/1.5
        0.333...
    """

    hessian: Tensor
    gradient_cov: Callable[[Tensor], Tensor]
    population: float = math.inf

    def trajectory(
        self,
        offset: Tensor,
        steps: int,
        lr: float,
        batch_size: float,
        optimizer: str = "sgd",
        momentum: float = 0.0,
    ) -> Tensor:
        """E[δδᵀ] after 0, 1, ... steps from δ = offset and v = 0, shape (steps + 1, d, d)."""
        size = len(self.hessian)
        start = torch.cat([offset.double(), torch.zeros(size), torch.ones(1)]).double()
        moments = [torch.outer(start, start)]
        step = self._step(lr, batch_size, optimizer, momentum)
        for _ in range(steps):
            moments.append(step(moments[-1]))
        return torch.stack([moment[:size, :size] for moment in moments])

    def excess_loss(self, second: Tensor) -> Tensor:
        """E[L] - L(w*) = ½ tr(H E[δδᵀ]), for shapes (..., d, d)."""
        return 0.5 * (self.hessian * second).sum((-2, -1))

    def radius(
        self, lr: float, batch_size: float, optimizer: str = "sgd", momentum: float = 0.0
    ) -> float:
        """Spectral radius of the map of second moments: above 1 they grow without end."""
        matrix, _ = self._matrix(self._step(lr, batch_size, optimizer, momentum))
        return float(torch.linalg.eigvals(matrix).abs().max())

    def stationary(
        self, lr: float, batch_size: float, optimizer: str = "sgd", momentum: float = 0.0
    ) -> Tensor:
        """E[δδᵀ] after infinitely many steps, shape (d, d).

        Raises:
            ArgumentError: a learning rate at which second moments grow without end.
        """
        step = self._step(lr, batch_size, optimizer, momentum)
        matrix, basis = self._matrix(step)
        if float(torch.linalg.eigvals(matrix).abs().max()) >= 1:
            raise ArgumentError(
                f"`lr` = {lr} is not stable, second moments grow without end; choose one below "
                f"`mean_square_lr({batch_size}, ...)`"
            )
        constant = torch.zeros_like(basis[0])
        constant[-1, -1] = 1.0
        source = (basis * step(constant)).sum((1, 2))
        identity = torch.eye(len(basis), dtype=torch.float64)
        found = torch.einsum("s,sab->ab", torch.linalg.solve(identity - matrix, source), basis)
        return found[: len(self.hessian), : len(self.hessian)]

    def noise_floor(
        self, lr: float, batch_size: float, optimizer: str = "sgd", momentum: float = 0.0
    ) -> float:
        """E[L] - L(w*) after infinitely many steps.

        Raises:
            ArgumentError: a learning rate at which second moments grow without end.
        """
        return float(self.excess_loss(self.stationary(lr, batch_size, optimizer, momentum)))

    def mean_square_lr(
        self, batch_size: float, optimizer: str = "sgd", momentum: float = 0.0
    ) -> float:
        """The learning rate at which second moments begin to grow: where the radius crosses 1."""

        def radius(lr: float) -> float:
            return self.radius(lr, batch_size, optimizer, momentum)

        high = 1.0 / float(torch.linalg.eigvalsh(self.hessian)[-1])
        while radius(high) < 1:
            high *= 2
        return stability_limit(radius, high)

    def _population_factor(self, batch_size: float) -> float:
        if not 0 < batch_size <= self.population:
            raise ArgumentError(
                f"`batch_size` must be positive and at most N = {self.population:g}; "
                f"got {batch_size}"
            )
        return 1 / batch_size - 1 / self.population

    def _step(
        self, lr: float, batch_size: float, optimizer: str, momentum: float
    ) -> Callable[[Tensor], Tensor]:
        """The second moment of (δ, v, 1) after a step, as a function of that before it."""
        d = len(self.hessian)
        memory, gain = (
            torch.tensor(part, dtype=torch.float64)
            for part in Momentum.of(optimizer, momentum).linear_map(lr)
        )
        mean = torch.eye(2 * d + 1, dtype=torch.float64)
        mean[:-1, :-1] = torch.kron(memory, torch.eye(d, dtype=torch.float64))
        mean[:-1, :d] += torch.kron(gain[:, None], self.hessian)
        spread = self._population_factor(batch_size) * torch.outer(gain, gain)
        weights = torch.tensor([*range(d), 2 * d])  # where δ and 1 are

        def step(moment: Tensor) -> Tensor:
            noise = self.gradient_cov(moment[weights][:, weights]).contiguous()
            after = mean @ moment @ mean.T
            after[:-1, :-1] += torch.kron(spread, noise)
            return after

        return step

    def _matrix(self, step: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """A step on E[(δ, v)(δ, v)ᵀ] alone, in the basis of symmetric matrices given with it."""
        size = 2 * len(self.hessian)
        basis = torch.from_numpy(symmetric_basis(size).T.copy()).reshape(-1, size, size)
        basis = torch.nn.functional.pad(basis, (0, 1, 0, 1))
        after = torch.stack([step(moment) for moment in basis])
        return basis.flatten(1) @ after.flatten(1).T, basis


def stationary_covariance(
    hessian: Tensor, gradient_cov: Tensor, temperature: float, lr: float = 0.0
) -> Tensor:
    """The solution P of HP + PH - εHPH = TΣ: the covariance of SGD around a minimum, shape (d, d).

    With ε = 0 that of the stochastic differential equation dw = -Hw dt + √T Σ^½ dW. In one
    dimension Tσ²/(2h) for it, and εσ²/(Bh(2 - εh)) for SGD.

    Args:
        hessian, gradient_cov: H, positive definite, and Σ, shape (d, d).
        temperature: T = ε/B.
        lr: ε.

    Raises:
        ArgumentError: H is not positive definite, or ε is not in [0, 2/λ).

    Example:
        >>> float(stationary_covariance(torch.eye(1), torch.eye(1), 0.5))
        0.25
    """
    values, vectors = torch.linalg.eigh(hessian.double())
    if not bool((values > 0).all()) or not 0 <= lr * float(values[-1]) < 2:
        raise ArgumentError(
            f"`hessian` must be positive definite and `lr` in [0, 2/λ); got the eigenvalues "
            f"{values.tolist()} and `lr` = {lr}"
        )
    inner = vectors.T @ gradient_cov.double() @ vectors
    sums = values[:, None] + values - lr * values[:, None] * values
    found: Tensor = vectors @ (temperature * inner / sums) @ vectors.T
    return found


def diverging_lr(sharpness: float, optimizer: str = "sgd", momentum: float = 0.0) -> float:
    """The learning rate above which full-batch descent diverges on ½λw², from its update matrix.

    Args:
        sharpness: λ in loss/parameter².
        optimizer, momentum: as for `gn.stable_lr`.

    Returns:
        The learning rate in parameter²/loss, by a root of the spectral radius, no formula.

    Raises:
        ArgumentError: a sharpness that is not positive, or an unknown optimizer.

    Example:
        >>> round(diverging_lr(4.0, momentum=0.5), 9)  # 2(1 + m)/λ
        0.75
    """
    if not 0 < sharpness < math.inf:
        raise ArgumentError(f"`sharpness` must be a positive number; got {sharpness}")
    bowl = torch.full((1, 1), sharpness, dtype=torch.float64)
    still = Dynamics(bowl, lambda second: 0.0 * second[:1, :1])
    return still.mean_square_lr(1, optimizer, momentum)
