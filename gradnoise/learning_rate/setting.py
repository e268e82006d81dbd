"""How a model is trained now."""

from __future__ import annotations

from dataclasses import dataclass

from .update_rule import Momentum


@dataclass(frozen=True)
class Setting:
    """How a model is trained now; None for a setting that is not known.

    Args:
        batch_size: B in samples.
        lr: ε in parameter²/loss.
        momentum: m, or β₁.
        optimizer: whose formulas the limits follow, as for `gn.stable_lr`.
        rescales: name of the optimizer in whose metric the numbers are, if the metric changes
            during training; else None.
        no_rate: why no learning rate can be told for the optimizer in use; empty where it can.
    """

    batch_size: float | None = None
    lr: float | None = None
    momentum: float = 0.0
    optimizer: str = "sgd"
    rescales: str | None = None
    no_rate: str = ""

    @property
    def effective_lr(self) -> float | None:
        """ε/(1 - m), or ε where the velocity is an average of gradients (Adam)."""
        return self.lr and self.lr * Momentum.of(self.optimizer, self.momentum).drift

    @property
    def scaling(self) -> str:
        """The rule of `gn.scale_lr` for this optimizer below the noise scale."""
        return "linear" if self.rescales is None else "sqrt"

    @property
    def with_momentum(self) -> str:
        """The words after the optimizer or the learning rate: empty without momentum."""
        return f" with momentum {self.momentum:g}" if self.momentum else ""

    @property
    def who(self) -> str:
        """The optimizer that learning rates are for."""
        return (self.rescales or "SGD") + self.with_momentum
