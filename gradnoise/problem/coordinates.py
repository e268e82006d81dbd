"""A model's losses as a function of z = P^½ w, in which an optimizer's step is gradient descent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..tensors.trees import Batch
from .objective import Objective, Watch
from .preconditioner import Preconditioner


class PreconditionedObjective(Objective):
    """ℓ_i + ½wᵀDw, differentiable in z: gradients P^-½(g_i + Dw), Hessians P^-½(H_i + D)P^-½.

    Args:
        plain: the objective in w; `parameters` are still w, and both have one guard.
        preconditioner: P and D.
    """

    preconditioner: Preconditioner

    def __init__(self, plain: Objective, preconditioner: Preconditioner) -> None:
        vars(self).update(vars(plain))
        self._plain, self.preconditioner = plain, preconditioner
        self._coupled = preconditioner.is_coupled

    @property
    def plain(self) -> Objective:
        return self._plain

    @contextmanager
    def guard(self, data: Any = None) -> Iterator[None]:
        """The guard of the objective in w."""
        with self._plain.guard(data):
            yield

    def losses(self, batch: Batch, watch: Watch | None = None) -> Tensor:
        """Per-sample losses with the penalty of a weight decay that the optimizer adds to g."""
        losses = self._plain.losses(batch, watch)
        return losses + self._penalty().to(losses) if self._coupled else losses

    def differentiate(
        self, outputs: Tensor, weights: Tensor | None = None, **options: bool
    ) -> list[Tensor]:
        """∇_z of outputs: P^-½ times ∇_w."""
        return self._scaled(self._plain.differentiate(outputs, weights, **options))

    def product(
        self, gradient: Sequence[Tensor], direction: Tensor, **options: bool
    ) -> list[Tensor]:
        """∇_z gᵀu."""
        return self._scaled(self._plain.product(gradient, direction, **options))

    def _scaled(self, gradient: list[Tensor]) -> list[Tensor]:
        roots = self.preconditioner.root.values()
        return [own * root for own, root in zip(gradient, roots, strict=True)]

    def decay(self) -> dict[str, Tensor] | None:
        """P^-½Dw by name, what weight decay adds to every gradient; None where there is none."""
        if not self._coupled:
            return None
        inside, root = self.preconditioner.inside, self.preconditioner.root
        return {n: root[n] * (inside[n] * p.detach()) for n, p in self.parameters.items()}

    def _penalty(self) -> Tensor:
        pairs = zip(self.preconditioner.inside.values(), self.parameters.values(), strict=True)
        terms = [decay / 2 * p.square().sum().to(self.device) for decay, p in pairs]
        return torch.stack([term.double() if not term.is_mps else term for term in terms]).sum()
