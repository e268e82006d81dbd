"""How optimizers turn gradients into steps, and which steps a single direction bears.

Every rule here is v ← a·v + b·g, w ← w - ε(c·g + d·v) with its own numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ArgumentError


@dataclass(frozen=True)
class Momentum:
    """v ← a·v + b·g, w ← w - ε(c·g + d·v).

    Args:
        keep, take: a and b.
        direct, follow: c and d.
    """

    keep: float
    take: float
    direct: float
    follow: float

    @classmethod
    def of(cls, optimizer: str, momentum: float) -> Momentum:
        """The rule of an optimizer in its own metric, with m or β₁.

        "sgd" is heavy ball without dampening, "nesterov" torch's form of it; "adam" and "nadam"
        average the gradients, with the second moments held as they are.

        Raises:
            ArgumentError: another name.
        """
        m, rest = momentum, 1 - momentum
        rules = {
            "sgd": (m, 1.0, 0.0, 1.0),
            "nesterov": (m, 1.0, 1.0, m),
            "adam": (m, rest, 0.0, 1.0),
            "nadam": (m, rest, rest, m),
        }
        if optimizer not in rules:
            names = ", ".join(rules)
            raise ArgumentError(f"`optimizer` must be one of {names}; got {optimizer!r}")
        return cls(*rules[optimizer])

    @property
    def drift(self) -> float:
        """How far the weights go in the end for one gradient, in ε: b·d/(1 - a) + c."""
        return self.take * self.follow / (1 - self.keep) + self.direct

    def stable_step(self, noise: float = 0.0) -> float:
        """The largest x = εh at which the mean square of one direction stays bounded.

        Of curvature h that varies from step to step with variance q·h²: the positive root of
        det(1 - E[A⊗A]) = 0 for A the step of (w, v), a quadratic in x. Without momentum
        2/(1 + q); of heavy ball 2(1 - m²)/(1 - m + (1 + m)q).

        Args:
            noise: q; ∞ allowed.

        Example:
            >>> Momentum.of("sgd", 0.5).stable_step(noise=1.0)
            0.75
        """
        if math.isinf(noise):
            return 0.0
        a, c, bd = self.keep, self.direct, self.take * self.follow
        square = a * c * (1 + noise) * (a * c + bd + c)
        linear = (1 + a) * (bd + c - a * c) * noise + (1 - a) * bd + c * (1 - 2 * a - 3 * a * a)
        constant = 2 * (1 - a * a)
        root = math.sqrt(linear * linear + 4 * square * constant)
        if linear > 0:
            return 2 * constant / (linear + root)
        return (root - linear) / (2 * square)
