"""Options of an eigenvalue solver as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .iteration import Eigenpairs
from .lanczos import lanczos
from .operator import MEMORY_BUDGET


@dataclass(frozen=True, kw_only=True)
class EigenOptions:
    """Which eigenpairs are wanted and what they may cost; as for `lanczos`, which checks them."""

    k: int = 1
    which: str = "LA"
    tol: float = 1e-3
    max_iterations: int | None = None
    repeats: bool = True
    seed: int = 0
    memory_budget: int = MEMORY_BUDGET

    def find(self, operator: Any, v0: Tensor | None = None) -> Eigenpairs:
        """The eigenpairs of an operator, from a start `v0` or a random one."""
        return lanczos(operator, v0=v0, **vars(self))
