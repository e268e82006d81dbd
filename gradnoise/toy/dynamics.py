"""Exact second moments of SGD on quadratic bowls, with momentum: what training does on average."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..learning_rate.update_rule import Momentum


@dataclass(frozen=True, eq=False)
class Dynamics:
    """w ← w - ε(cg_B + dv), v ← av + bg_B on a bowl whose samples have linear gradients.

    With δ = w - w* a batch's gradient has the mean Hδ and, given δ, the covariance
    (1/B - 1/N) Σ(δ), where Σ is quadratic in δ. So the second moment P of (δ, v, 1) follows a
    linear map, and every average below is exact. Batches are drawn anew in every step.

    Args:
        hessian: H, shape (d, d).
        gradient_cov: Σ as a linear function of the second moment of (δ, 1), shape (d + 1, d + 1),
            to shape (d, d).
        population: N.

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
        """E[δδᵀ] after 0, 1, ... steps from δ = offset at rest, shape (steps + 1, d, d)."""
        size = len(self.hessian)
        start = torch.cat([offset.double(), torch.zeros(size), torch.ones(1)]).double()
        moments = [torch.outer(start, start)]
        rule, share = Momentum.of(optimizer, momentum), self._share(batch_size)
        for _ in range(steps):
            moments.append(self._step(moments[-1], lr, rule, share))
        return torch.stack([moment[:size, :size] for moment in moments])

    def excess_loss(self, second: Tensor) -> Tensor:
        """E[L] - L(w*) = ½ tr(H E[δδᵀ]), for shapes (..., d, d)."""
        return 0.5 * (self.hessian * second).sum((-2, -1))

    def radius(
        self, lr: float, batch_size: float, optimizer: str = "sgd", momentum: float = 0.0
    ) -> float:
        """Spectral radius of the map of second moments: above 1 they grow without end."""
        matrix = self._matrix(lr, Momentum.of(optimizer, momentum), self._share(batch_size))
        return float(torch.linalg.eigvals(matrix).abs().max())

    def stationary(
        self, lr: float, batch_size: float, optimizer: str = "sgd", momentum: float = 0.0
    ) -> Tensor:
        """E[δδᵀ] in the end, shape (d, d).

        Raises:
            ArgumentError: a learning rate at which there is no end.
        """
        if self.radius(lr, batch_size, optimizer, momentum) >= 1:
            raise ArgumentError(f"`lr` = {lr} is not stable, second moments grow without end")
        rule, share, size = Momentum.of(optimizer, momentum), self._share(batch_size), self._size
        constant = torch.zeros(size + 1, size + 1, dtype=torch.float64)
        constant[-1, -1] = 1.0
        source = self._step(constant, lr, rule, share)[:size, :size].reshape(-1)
        matrix = torch.eye(size * size, dtype=torch.float64) - self._matrix(lr, rule, share)
        half = len(self.hessian)
        found: Tensor = torch.linalg.solve(matrix, source).reshape(size, size)
        return found[:half, :half]

    def noise_floor(
        self, lr: float, batch_size: float, optimizer: str = "sgd", momentum: float = 0.0
    ) -> float:
        """E[L] - L(w*) in the end."""
        return float(self.excess_loss(self.stationary(lr, batch_size, optimizer, momentum)))

    def mean_square_lr(
        self, batch_size: float, optimizer: str = "sgd", momentum: float = 0.0
    ) -> float:
        """The learning rate at which second moments begin to grow, by bisection of the radius."""
        low, high = 0.0, 1.0 / float(torch.linalg.eigvalsh(self.hessian)[-1])
        while self.radius(high, batch_size, optimizer, momentum) < 1:
            low, high = high, 2 * high
        for _ in range(50):
            middle = (low + high) / 2
            stable = self.radius(middle, batch_size, optimizer, momentum) < 1
            low, high = (middle, high) if stable else (low, middle)
        return low

    @property
    def _size(self) -> int:
        return 2 * len(self.hessian)

    def _share(self, batch_size: float) -> float:
        if not 0 < batch_size <= self.population:
            raise ArgumentError(
                f"`batch_size` must be positive and at most N = {self.population:g}; "
                f"got {batch_size}"
            )
        return 1 / batch_size - 1 / self.population

    def _step(self, moment: Tensor, lr: float, rule: Momentum, share: float) -> Tensor:
        """P after a step from P of (δ, v, 1)."""
        d, size = len(self.hessian), self._size
        identity = torch.eye(d, dtype=torch.float64)
        reach = -lr * (rule.direct + rule.follow * rule.take)
        pull = torch.tensor([reach, rule.take], dtype=torch.float64)  # of a gradient on (w, v)
        step = torch.eye(size + 1, dtype=torch.float64)
        step[:d, d:size] = -lr * rule.follow * rule.keep * identity
        step[d:size, d:size] = rule.keep * identity
        step[:size, :d] += torch.kron(pull[:, None], self.hessian)
        seen = [*range(d), size]
        noise = share * self.gradient_cov(moment[seen][:, seen]).contiguous()
        after = step @ moment @ step.T
        after[:size, :size] += torch.kron(torch.outer(pull, pull), noise)
        return after

    def _matrix(self, lr: float, rule: Momentum, share: float) -> Tensor:
        """The map of E[(δ, v)(δ, v)ᵀ] alone, shape (4d², 4d²)."""
        size = self._size
        columns = []
        for entry in range(size * size):
            moment = torch.zeros(size + 1, size + 1, dtype=torch.float64)
            moment[entry // size, entry % size] = 1.0
            columns.append(self._step(moment, lr, rule, share)[:size, :size].reshape(-1))
        return torch.stack(columns, dim=1)


def stationary_covariance(
    hessian: Tensor, gradient_cov: Tensor, temperature: float, lr: float = 0.0
) -> Tensor:
    """T3: P of HP + PH - εHPH = TΣ, the spread of SGD around a minimum, shape (d, d).

    With ε = 0 that of the stochastic differential equation dw = -Hw dt + √T Σ^½ dW; in one
    dimension Tσ²/(2h), and εσ²/(Bh(2 - εh)) of SGD itself.

    Args:
        hessian, gradient_cov: H, positive definite, and Σ, shape (d, d).
        temperature: T = ε/B.
        lr: ε.

    Raises:
        ArgumentError: not positive definite, or a learning rate beyond 2/λ.

    Example:
        >>> float(stationary_covariance(torch.eye(1), torch.eye(1), 0.5))
        0.25
    """
    values, vectors = torch.linalg.eigh(hessian.double())
    if not bool((values > 0).all()) or not 0 <= lr * float(values[-1]) < 2:
        raise ArgumentError(
            f"`hessian` must be positive definite and `lr` below 2/λ; got eigenvalues "
            f"{values.tolist()} and {lr}"
        )
    inner = vectors.T @ gradient_cov.double() @ vectors
    sums = values[:, None] + values - lr * values[:, None] * values
    found: Tensor = vectors @ (temperature * inner / sums) @ vectors.T
    return found


def diverging_lr(sharpness: float, optimizer: str = "sgd", momentum: float = 0.0) -> float:
    """T13: the smallest learning rate at which full batches diverge on ½λw², by the step's matrix.

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
