"""λ along the run, on a few samples, every so many measured steps."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from ..errors import said
from ..estimators.curvature.tracker import SharpnessTracker
from ..learning_rate.formulas import stable_lr
from ..problem.losses.loss_fn import LossFn
from ..problem.optimizer_settings import EARLY, OptimizerSettings, read_optimizer
from ..problem.preconditioner import Preconditioner, is_adaptive
from ..problem.state.wrappers import trainable
from ..tensors.trees import TensorDict, floats
from .gradients import sq_norm

SAMPLES = 64


class Curvature:
    """The largest eigenvalue of the Hessian, followed by a `SharpnessTracker`.

    Args:
        model, loss_fn, data: as for `SharpnessTracker`; the first 64 samples that are drawn are
            kept.
        every: it is measured at every so many measurements of the noise.

    Attributes:
        value: λ in loss/parameter², in the metric of an adaptive optimizer after its first 100
            steps; nan before it is known.
        reason: why it could not be measured; then it is not tried again.
    """

    def __init__(
        self, model: nn.Module, loss_fn: LossFn | nn.Module, data: Any, every: int
    ) -> None:
        self.value, self.reason = math.nan, ""
        self._made = model, loss_fn, data
        self._every, self._turns = every, 0
        self._tracker: SharpnessTracker | None = None

    def turn(self, optimizer: Any = None) -> dict[str, float]:
        """After a measurement of the noise, while `.grad` is there: measure λ if it is its turn.

        Args:
            optimizer: that trains now; its metric is that of λ.

        Returns:
            What was measured now: "sharpness" λ; of an optimizer that is known "momentum" m,
            "metric_factor" tr(P⁻¹Σ)/trΣ, and "stable_lr".
        """
        due = self._turns % self._every == 0
        settings = read_optimizer(optimizer)
        if self.reason or (due and _is_early(settings)):
            return {}
        self._turns += 1
        if not due:
            return {}
        try:
            self.value = float(self._follow(optimizer).update().values)
            return {"sharpness": self.value, **self._of_optimizer(optimizer, settings)}
        except Exception as error:  # runs the user's code and needs memory, in training
            self.value, self.reason = math.nan, f"the sharpness cannot be measured: {said(error)}"
            return {}

    def _of_optimizer(self, optimizer: Any, settings: OptimizerSettings | None) -> dict[str, float]:
        if settings is None:
            own = {"momentum": 0.0, "metric_factor": 1.0}
            return {**own, "stable_lr": stable_lr(self.value)}
        if not (settings.is_plain or is_adaptive(optimizer)):
            return {}  # λ of plain SGD says nothing about it
        own = {"momentum": settings.momentum, "metric_factor": 1.0}
        if settings.is_settled:
            own["stable_lr"] = stable_lr(self.value, settings.kind, settings.momentum)
        if is_adaptive(optimizer):
            own["metric_factor"] = _metric_factor(optimizer, {**trainable(self._made[0])})
        return own

    def _follow(self, optimizer: Any) -> SharpnessTracker:
        if self._tracker is None:
            model, loss_fn, data = self._made
            self._tracker = SharpnessTracker(
                model, loss_fn, data, optimizer=optimizer, max_samples=SAMPLES
            )
        return self._tracker


def _is_early(settings: OptimizerSettings | None) -> bool:
    """Whether the metric of an optimizer is from too few steps to say anything."""
    if settings is None or settings.settled_after is None:
        return False
    return (settings.steps or 0) < EARLY


def _metric_factor(optimizer: Any, parameters: TensorDict) -> float:
    """tr(P⁻¹Σ)/trΣ, taken as ‖P^-½ḡ‖²/‖ḡ‖² of the gradient ḡ of this step.

    E ḡ_j² = G_j² + Σ_jj/B: where noise dominates, the two are equal in expectation.
    """
    root = Preconditioner.of(optimizer, parameters).root
    found = [(p.grad.detach(), root[n]) for n, p in parameters.items() if p.grad is not None]
    both = floats(
        sum(norms) for norms in zip(*((sq_norm(g * r), sq_norm(g)) for g, r in found), strict=True)
    )
    return both[0] / both[1] if len(both) == 2 and both[1] > 0 else math.nan
