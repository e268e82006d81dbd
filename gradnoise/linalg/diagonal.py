"""The diagonal of a symmetric matrix from its products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..statistics.estimate import check_level
from ..statistics.quantile import quantile
from ..tensors.random import random_signs
from ..tensors.sums import without_autocast
from .leave_one_out import LeaveOneOut
from .operator import MEMORY_BUDGET
from .products import Products, products_within

LEAST = 12  # products: with fewer than 6 probes the signs of an entry are too often all equal
HELD = 7.0  # vectors of length P for each product
PAIRS_AMONG = 8  # 28 pairs; each estimates the covariance from P entries


@dataclass(frozen=True, eq=False)
class Diagonal:
    """An estimated diagonal, entry by entry, in the unit of the matrix; source: as for `diagonal`.

    Args:
        values: shape (P,).
        stderr: standard error of each, shape (P,); zero when the answer is exact.
        level: nominal coverage of each entry's interval.
        samples: number of probes.

    Example:
        >>> exact = diagonal(torch.diag(torch.tensor([1.0, 2.0])))
        >>> exact.low, exact.high
        (tensor([1., 2.], dtype=torch.float64), tensor([1., 2.], dtype=torch.float64))
    """

    values: Tensor
    stderr: Tensor
    level: float
    samples: int

    @property
    def reach(self) -> Tensor:
        """Half the width of the intervals, by Student's t."""
        return quantile(self.level, max(self.samples - 1, 1)) * self.stderr

    @property
    def low(self) -> Tensor:
        """Lower end of each interval."""
        return self.values - self.reach

    @property
    def high(self) -> Tensor:
        """Upper end of each interval."""
        return self.values + self.reach


@without_autocast
def diagonal(
    operator: Any,
    *,
    products: int | None = None,
    level: float = 0.95,
    seed: int = 0,
    memory_budget: int = MEMORY_BUDGET,
) -> Diagonal:
    """diag A of a symmetric A from products with random signs, with standard errors.

    For signs ω_i, ω_i∘Aω_i is unbiased (Bekas, Kokiopoulou and Saad 2007), and so is

        diag(A - R_i) + ω_i∘R_iω_i,   R_i = (I - Q_iQ_iᵀ)A(I - Q_iQ_iᵀ)

    with Q_i an orthonormal basis of the range without ω_i (XDiag of arXiv:2301.07825, here with
    both sides projected: A - R_i = Q_iQ_iᵀA + AQ_iQ_iᵀ - Q_iQ_iᵀAQ_iQ_iᵀ follows from AQ). The
    first is better on flat spectra, the second on decaying ones. The two are mixed with one weight,
    which minimises the variance summed over all entries. The errors of different i are correlated:
    one factor for all entries, from pairs as in `LeaveOneOut.estimates`, adds the mean covariance
    to the variances.

    Args:
        operator: anything symmetric with `shape` (P, P) and `@` on blocks of vectors (P, k).
        products: m, products with the operator, at most, and at least 12: where one large element
            dominates, the estimates of an entry take two values, and k probes give k equal ones
            with probability 2^(1-k). Half of the products are probes. From P on the answer is
            exact. None: 64, or as many as the budget holds.
        level: nominal coverage of the interval of each entry.
        seed: of the random signs.
        memory_budget: bytes of the vectors held, about seven of length P for each product.

    Returns:
        Diagonal, in the unit of A's entries.

    Raises:
        ArgumentError: products or level out of range; more products than the budget holds.
        OperatorError: the operator is empty, not square, or a product is not finite.

    Example:
        >>> diagonal(torch.tensor([[1.0, 5.0], [5.0, 2.0]])).values
        tensor([1., 2.], dtype=torch.float64)
    """
    check_level(level)
    known = Products(operator)
    products = products_within(known, products, LEAST, HELD, memory_budget)
    if products >= known.size:
        values = known.dense().diagonal().clone()
        return Diagonal(values, torch.zeros_like(values), level, known.size)
    signs = random_signs(products // 2, known.size, seed).T
    sketch = LeaveOneOut(known, signs)
    deflated = _Deflated(sketch)
    values, variance = deflated.known, torch.zeros_like(deflated.known)
    if not sketch.is_captured:
        values, variance = _mixed(sketch, deflated)
    rounding = known.resolution * sketch.norm
    return Diagonal(values, (variance + rounding**2).sqrt(), level, sketch.count)


class _Deflated:
    """diag(A - R) + ω∘Rω with the directions B removed from Q."""

    def __init__(self, sketch: LeaveOneOut) -> None:
        self.sketch = sketch
        basis, images = sketch.basis, sketch.basis_images
        self.core = basis @ sketch.inner  # QQᵀAQ
        self.known = ((2 * images - self.core) * basis).sum(1)

    def __call__(self, removed: Tensor, probe: Tensor) -> Tensor:
        """One estimate, shape (P,), from removed directions (k, d) and the probe's position."""
        sketch, q = self.sketch, self.sketch.basis @ removed
        inner = removed.T @ sketch.inner @ removed
        images = (sketch.basis_images - self.core) @ removed  # (I - QQᵀ)AQB
        lost = (q * (2 * images + q @ inner)).sum(1)
        back = sketch.returned(removed, probe)
        image = sketch.outside_images[:, probe] + sketch.basis_images @ back
        inside = sketch.basis.T @ image
        rest = image - sketch.basis @ (inside - removed @ (removed.T @ inside))
        value: Tensor = self.known - lost + sketch.tests[:, probe] * rest
        return value


def _mixed(sketch: LeaveOneOut, deflated: _Deflated) -> tuple[Tensor, Tensor]:
    """The mean over the probes of both estimates mixed, and its variance; shapes (P,)."""
    indices = torch.arange(sketch.count, device=sketch.tests.device)
    second = torch.stack([deflated(sketch.dropped[i].unsqueeze(1), i) for i in indices], dim=1)
    mixed = sketch.tests * sketch.images  # ω∘Aω, [P, k]
    gain = mixed - second
    weight = _slope(mixed, gain)
    mixed = mixed - weight * gain
    variance = mixed.var(dim=1) / sketch.count
    shared = [
        (second[:, i] - deflated(plane, i)).dot(second[:, j] - deflated(plane, j))
        for i, j, plane in zip(*sketch.pairs(PAIRS_AMONG), strict=True)
    ]
    own, covariance = float(variance.sum()), weight**2 * float(sum(shared)) / max(len(shared), 1)
    return mixed.mean(dim=1), variance * (1 + max(covariance, 0.0) / own if own > 0 else 1.0)


def _slope(values: Tensor, control: Tensor) -> float:
    """The multiple of the control, from 0 to 1, whose removal leaves the least variance."""
    control = control - control.mean(dim=1, keepdim=True)
    own = float(control.square().sum())
    return min(max(float((values * control).sum()) / own, 0.0), 1.0) if own > 0 else 0.0
