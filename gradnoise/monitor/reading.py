"""Squared norms of one training step, and what they say about trΣ and |G|²."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

NO_SIZE = "no gradient came, or the batch size is not known: give it to step()"
ROUNDING = 1e-3  # of shares that are computed in single precision


@dataclass(frozen=True, eq=False)
class Reading:
    """Squared gradient norms of one step and of its parts, one number for every parameter.

    The gradient of a step is the sum of contributions c_j of its parts: samples, micro-batches, or
    micro-batches of several ranks. Part j has b_j samples and the share w_j of the objective,
    Σw_j = 1, so that c_j = w_j (G + noise of b_j samples).

    Args:
        parts: Σ_j ‖c_j‖², shape (parameters,), float64 on the CPU.
        total: ‖Σ_j c_j‖², likewise.
        shares: Σ_j w_j².
        spread: Σ_j w_j²/b_j.
        samples: B of the step.
    """

    parts: Tensor
    total: Tensor
    shares: float
    spread: float
    samples: float

    def moments(self) -> tuple[Tensor, Tensor]:
        """trΣ and |G|² of every parameter, unbiased, in loss²/parameter².

        From E‖Σc_j‖² = |G|² + trΣ Σw_j²/b_j and E Σ‖c_j‖² = |G|² Σw_j² + trΣ Σw_j²/b_j. For equal
        parts these are the formulas of McCandlish et al. 2018 (arXiv:1812.06162), App. A.1.
        """
        signal = (self.total - self.parts) / (1 - self.shares)
        return (self.parts - signal * self.shares) / self.spread, signal


def equal_shares(sizes: Sequence[float]) -> list[float]:
    """w_j of micro-batches that weigh the same."""
    return [1 / len(sizes) for _ in sizes]


def refused(sizes: Sequence[float], weights: Sequence[float]) -> str:
    """Why parts of these sizes and shares of a rank say nothing; empty where they may."""
    if not sizes:
        return NO_SIZE
    if len(weights) != len(sizes):
        return f"{len(weights)} shares for {len(sizes)} micro-batches"
    if min(sizes) <= 0:
        return "a micro-batch without samples"
    return "a share below zero" if min(weights) < 0 else ""


def refused_sum(total: float, ranks: int) -> str:
    """Why shares with this sum over all ranks say nothing: their mean over the ranks is not 1."""
    if abs(total / ranks - 1) <= ROUNDING:
        return ""
    return f"the shares of the micro-batches have to add up to 1; got a sum of {total / ranks:.4g}"
