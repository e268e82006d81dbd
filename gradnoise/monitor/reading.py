"""Squared norms of one training step, and what they say about trΣ and |G|²."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import said
from .ranks import ELSEWHERE, agreed, world_size

NO_SIZE = "no gradient came, or the batch size is not known: give it to step()"
ONE_PART = "the step has one micro-batch on one rank: nothing to compare its gradient with"
ONE_SAMPLE = "one sample a step: nothing to compare its gradient with"
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


@dataclass(frozen=True, eq=False)
class Own:
    """What one rank has.

    Args:
        norms: Σ_j ‖c_j‖², shape (parameters,).
        sizes, weights: b_j and w_j of its micro-batches.
        reason: why it has nothing; empty where it has.
    """

    norms: Tensor
    sizes: Sequence[float] = ()
    weights: Sequence[float] = ()
    reason: str = ""

    @classmethod
    def of(cls, find: Callable[[], Own], parameters: int) -> Own:
        """What is found; an error becomes a reason: the other ranks would wait for this one."""
        try:
            return find()
        except Exception as error:
            none = torch.zeros(parameters, dtype=torch.float64, device="cpu")
            return cls(none, reason=said(error))


def combined(
    rank: Own, total: Callable[[], Tensor], group: Any, *, each: bool
) -> tuple[Reading | None, str]:
    """The reading of all ranks; None, and a reason, where there is none.

    Args:
        rank: what this one has.
        total: ‖Σ_j c_j‖² of all ranks, shape (parameters,); is called where all of them go on.
        group: of ranks whose gradients are averaged.
        each: whether the parts are single samples, which share the weight of their micro-batch
            equally; else micro-batches.
    """
    own, sizes, weights, reason = [0.0] * 5, rank.sizes, rank.weights, rank.reason
    if not reason:
        spread = sum(w * w / b for w, b in zip(weights, sizes, strict=True))
        shares = spread if each else sum(w * w for w in weights)
        own = [shares, spread, sum(sizes), sum(sizes) if each else len(sizes), sum(weights)]
    both = agreed(own, rank.norms, reason, group)
    if both is None:
        return None, reason or ELSEWHERE
    shares, spread, samples, count, whole = both[:5].tolist()
    world = world_size(group)  # contributions are averaged over the ranks
    if count < 2:
        return None, ONE_SAMPLE if each else ONE_PART
    reason = refused_sum(whole, world)
    if reason:
        return None, reason
    square = world**2
    return Reading(both[5:] / square, total(), shares / square, spread / square, samples), ""
