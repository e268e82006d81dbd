"""Update rules of optimizers with momentum, and their stable step in one direction."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ArgumentError


@dataclass(frozen=True)
class Momentum:
    """The update v ← a·v + b·g, w ← w - ε(c·g + d·v) of a gradient g.

    Args:
        velocity_decay, velocity_gain: a and b.
        gradient_weight, velocity_weight: c and d.
    """

    velocity_decay: float
    velocity_gain: float
    gradient_weight: float
    velocity_weight: float

    @classmethod
    def of(cls, optimizer: str, momentum: float) -> Momentum:
        """The update of an optimizer in its metric.

        "sgd" is heavy ball without dampening, "nesterov" torch's variant of Nesterov's; "adam" and
        "nadam" average the gradients, here with their second moments held fixed.

        Args:
            optimizer: "sgd", "nesterov", "adam" or "nadam".
            momentum: m, or β₁.

        Raises:
            ArgumentError: another name.
        """
        m = momentum
        rules = {
            "sgd": (m, 1.0, 0.0, 1.0),
            "nesterov": (m, 1.0, 1.0, m),
            "adam": (m, 1 - m, 0.0, 1.0),
            "nadam": (m, 1 - m, 1 - m, m),
        }
        if optimizer not in rules:
            names = ", ".join(rules)
            raise ArgumentError(f"`optimizer` must be one of {names}; got {optimizer!r}")
        return cls(*rules[optimizer])

    @property
    def drift(self) -> float:
        """The total step for one gradient over all later updates, in units of ε: bd/(1 - a) + c."""
        later = self.velocity_gain * self.velocity_weight / (1 - self.velocity_decay)
        return later + self.gradient_weight

    def linear_map(self, lr: float) -> tuple[list[list[float]], list[float]]:
        """M and k of the update (w, v) ← M(w, v) + k·g: [[1, -εda], [0, a]] and (-ε(c + db), b)."""
        a, b = self.velocity_decay, self.velocity_gain
        c, d = self.gradient_weight, self.velocity_weight
        return [[1.0, -lr * d * a], [0.0, a]], [-lr * (c + d * b), b]

    def stable_step(self, noise: float = 0.0) -> float:
        """The largest x = εh at which the mean square of w stays bounded, in one direction.

        For a curvature h drawn anew in every step, with mean h and variance q·h²: the positive root
        of det(1 - E[A⊗A]) = 0, A the update of (w, v), a quadratic in x. Without momentum
        2/(1 + q); for heavy ball 2(1 - m²)/(1 - m + (1 + m)q).

        Args:
            noise: q; ∞ allowed.

        Example:
            >>> Momentum.of("sgd", 0.5).stable_step(noise=1.0)
            0.75
        """
        if math.isinf(noise):
            return 0.0
        a, c = self.velocity_decay, self.gradient_weight
        bd = self.velocity_gain * self.velocity_weight
        square = a * c * (1 + noise) * (a * c + bd + c)
        linear = (1 + a) * (bd + c - a * c) * noise + (1 - a) * bd + c * (1 - 2 * a - 3 * a * a)
        constant = 2 * (1 - a * a)
        root = math.sqrt(linear * linear + 4 * square * constant)
        if linear > 0:
            return 2 * constant / (linear + root)
        return (root - linear) / (2 * square)
