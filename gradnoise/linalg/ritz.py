"""Ritz pairs of one or of several Krylov spaces, with what the products have outside of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy
import torch
from torch import Tensor

from ..tensors.space import Space
from .krylov import Krylov, breakdown


@dataclass(frozen=True, eq=False)
class RitzPairs:
    """AY = YΘ + BC with orthonormal Y, and B orthogonal to Y with a column for each Krylov space.

    Args:
        values: the diagonal of Θ, shape (k,).
        vectors: Y, shape (P, k).
        outside: B, shape (P, r).
        space: of the vectors.
        weights: C, shape (r, k).
        scale: of the spectrum, as far as any product has shown it.
        resolution: relative error of a product.
        matvecs: products spent.
        done: whether what was asked for is there, before the products ran out.
    """

    values: np.ndarray
    vectors: Tensor
    outside: Tensor
    space: Space
    weights: np.ndarray
    scale: float
    resolution: float
    matvecs: int
    done: bool

    @classmethod
    def of(cls, krylov: Krylov, order: np.ndarray, done: bool) -> RitzPairs:
        """These Ritz pairs of one space."""
        values, coordinates, _ = krylov.ritz
        return cls(
            values=values[order],
            vectors=krylov.combined(coordinates[:, order]),
            outside=krylov.next[:, None],
            space=krylov.space,
            weights=(krylov.coupling @ coordinates[:, order])[None],
            scale=krylov.scale,
            resolution=krylov.matrix.resolution,
            matvecs=krylov.matvecs,
            done=done,
        )

    @property
    def zero(self) -> float:
        """Size below which everything is rounding."""
        return breakdown(self.resolution) * self.scale

    @property
    def residuals(self) -> np.ndarray:
        """‖Ay - θy‖ of each, rounding included, shape (k,)."""
        gram = _wide(self.space.over(self.outside.T @ self.outside))
        squares = ((gram @ self.weights) * self.weights).sum(0)
        residuals: np.ndarray = np.sqrt(np.maximum(squares, 0)) + self.resolution * self.scale
        return residuals

    def joined(self, more: RitzPairs) -> RitzPairs:
        """The Ritz pairs of the sum of both spaces, where `more` was sought orthogonal to these.

        YᵀAZ, which the search for Z did not see, is CᵀBᵀZ: it takes no product.
        """
        overlap = self.space.over(self.outside.T @ more.vectors)
        cross = self.weights.T @ _wide(overlap)
        small = np.block([[np.diag(self.values), cross], [cross.T, np.diag(more.values)]])
        values, turn = np.linalg.eigh(small)
        vectors = torch.cat([self.vectors, more.vectors], dim=1)
        return RitzPairs(
            values=values,
            vectors=vectors @ torch.as_tensor(turn).to(vectors),
            outside=torch.cat([self.outside - more.vectors @ overlap.T, more.outside], dim=1),
            space=self.space,
            weights=scipy.linalg.block_diag(self.weights, more.weights) @ turn,
            scale=max(self.scale, more.scale),
            resolution=self.resolution,
            matvecs=self.matvecs + more.matvecs,
            done=self.done and more.done,
        )

    def taken(self, order: np.ndarray) -> RitzPairs:
        """These pairs alone, in this order."""
        return replace(
            self,
            values=self.values[order],
            vectors=self.vectors[:, torch.as_tensor(order.copy()).to(self.vectors.device)],
            weights=self.weights[:, order],
        )


def _wide(small: Tensor) -> np.ndarray:
    return small.double().cpu().numpy()
