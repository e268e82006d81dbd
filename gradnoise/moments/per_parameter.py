"""Moments by parameter, so that every set of parameters has intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..tensors.random import is_complete
from ..tensors.trees import TensorDict


@dataclass(frozen=True, eq=False)
class PerParameter:
    """Per-sample numbers of every parameter, and inner products of a few noises.

    With signs s_k of the samples, u_k = Σ_i s_ki (g_i - ḡ)/√(n - 1) restricted to a parameter.
    Norms, slopes and inner products of a set of parameters are sums of those of its members.

    Args:
        sq_norms: ‖g_i‖² by name, each (n,).
        slopes: g_iᵀḡ by name, each (n,); empty when the intervals were not measured.
        signs: s, shape (K, n); None when not measured.
        grams: u_kᵀu_m by name, each (K, K).
        gap_sq_norms: ‖g_i - ḡ‖² by name, each (n,), where measured from centred gradients.

    Example:
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> parts = PerParameter({"a": rows[0], "b": rows[1]})
        >>> parts.norms_of(["a", "b"])
        tensor([4., 6.])
    """

    sq_norms: TensorDict
    slopes: TensorDict = field(default_factory=dict)
    signs: Tensor | None = None
    grams: TensorDict = field(default_factory=dict)
    gap_sq_norms: TensorDict = field(default_factory=dict)

    def merge(self, other: PerParameter) -> PerParameter:
        """Norms of both sets of samples; slopes and noises are about the old means and dropped."""
        return PerParameter(
            {n: torch.cat([own, other.sq_norms[n]]) for n, own in self.sq_norms.items()}
        )

    def restrict(self, names: Iterable[str]) -> PerParameter:
        """The numbers of some parameters."""
        names = list(names)
        return PerParameter(
            {name: self.sq_norms[name] for name in names},
            {name: self.slopes[name] for name in names} if self.slopes else {},
            self.signs,
            {name: self.grams[name] for name in names} if self.grams else {},
            {name: self.gap_sq_norms[name] for name in names} if self.gap_sq_norms else {},
        )

    def norms_of(self, names: Iterable[str]) -> Tensor:
        """‖g_i‖² of some parameters together, shape (n,)."""
        return _total(self.sq_norms[name] for name in names)

    @property
    def gaps(self) -> Tensor | None:
        """‖g_i - ḡ‖² of all parameters here, shape (n,); None where not measured."""
        return _total(self.gap_sq_norms.values()) if self.gap_sq_norms else None

    @property
    def slope(self) -> Tensor | None:
        """g_iᵀḡ of all parameters here, shape (n,)."""
        return _total(self.slopes.values()) if self.slopes else None

    def trace_cov_sq(self, trace: float, size: int) -> float:
        """tr(Σ²) of all parameters here, E (u_kᵀu_m)² for independent signs: (trΣ)²/P at least."""
        if self.signs is None or not self.grams:
            return math.nan
        squares = _total(self.grams.values()).square()
        return max(float(squares.flatten() @ self._pairs(self.signs).flatten()), trace**2 / size)

    def influence_products(self, influences: Tensor, mean_sq: float) -> Tensor | None:
        """u_aᵀu_b of u_a = Cov(e_a, g), shape (2, 2), for influences e of shape (2, n).

        With x_k = Σ_i s_ki e_i/√(n - 1), E[x_k u_k] = Cov(e, g): products of independent signs are
        unbiased; the vectors themselves would take two backward passes for each set. The part
        along ḡ follows exactly from the slopes, so only the remainder is estimated by products.

        Args:
            influences: e.
            mean_sq: ‖ḡ‖² of all parameters here.
        """
        if self.slope is None or self.signs is None or not self.grams:
            return None
        gram, root = _total(self.grams.values()), math.sqrt(influences.shape[1] - 1)
        length = math.sqrt(mean_sq) or math.inf
        along = ((self.slope - self.slope.mean()) / (length * root)).to(gram)  # c_iᵀḡ/‖ḡ‖√(n - 1)
        gaps = (influences - influences.mean(1, keepdim=True)).to(gram) / root
        signs = self.signs.to(gram)
        known, seen, noise = gaps @ along, gaps @ signs.T, signs @ along  # [2], [2, K], [K]
        rest = (gram - torch.outer(noise, noise)) * self._pairs(signs)
        return torch.outer(known, known) + seen @ rest @ seen.T

    def _pairs(self, signs: Tensor) -> Tensor:
        """Weights (K, K) of the mean over independent signs."""
        count, gram = len(signs), _total(self.grams.values())
        if is_complete(*signs.shape):  # all sign vectors: pairs of equal ones count too
            return torch.full_like(gram, 1 / count**2)
        return (1 - torch.eye(count).to(gram)) / (count * (count - 1))


def _total(parts: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(0)
