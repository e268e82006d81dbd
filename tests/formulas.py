"""Short formulas, written out."""

from __future__ import annotations

from typing import Any

import torch

from gradnoise.learning_rate.update_rule import Momentum
from gradnoise.statistics.skew import Skew


def update(rule: Momentum, lr: float, gradient: Any, w: Any, v: Any) -> tuple[Any, Any]:
    """v ← av + bg, w ← w - ε(cg + dv), of numbers or of matrices that act on a state."""
    v = rule.velocity_decay * v + rule.velocity_gain * gradient
    return w - lr * (rule.gradient_weight * gradient + rule.velocity_weight * v), v


def skew_of(third: float, coupling: float | None = None, quadratic: float = 0.0) -> Skew:
    """The cumulants of a single estimate."""
    numbers = (third, third if coupling is None else coupling, quadratic)
    return Skew(*(torch.full((1, 1, 1), x, dtype=torch.float64) for x in numbers))
