"""λ along the run, on a few samples, every so many measured steps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from ..errors import said
from ..estimators.curvature.tracker import SharpnessTracker
from ..learning_rate.formulas import stable_lr
from ..problem.losses.loss_fn import LossFn
from ..problem.optimizer_settings import EARLY, OptimizerSettings, read_optimizer
from ..problem.preconditioner import Preconditioner, is_adaptive
from ..problem.state.wrappers import bare_optimizer, trainable
from ..tensors.trees import TensorDict, floats, widen
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

    def forget(self) -> None:
        """Of a model whose parameters are others now."""
        self.reason, self._tracker = "", None

    def turn(self, optimizer: Any = None) -> dict[str, float]:
        """After a measurement of the noise, while `.grad` is there: measure λ if it is its turn.

        Args:
            optimizer: that trains now; its metric is that of λ.

        Returns:
            What was measured now: "sharpness" λ; of an optimizer that is known "momentum" m,
            "metric_factor" tr(P⁻¹Σ)/trΣ, and "stable_lr".
        """
        optimizer = bare_optimizer(optimizer)
        due = self._turns % self._every == 0
        if self.reason:
            return {}
        try:
            if due and is_adaptive(optimizer) and _steps(optimizer) < EARLY:
                self._follow(optimizer)  # what cannot be measured is told at once
                return {}
            self._turns += 1
            if not due:
                return {}
            settings = read_optimizer(optimizer)
            self.value = float(self._follow(optimizer).update().values)
            return {"sharpness": self.value, **self._of_optimizer(optimizer, settings)}
        except Exception as error:  # runs the user's code and needs memory, in training
            self.value, self.reason = math.nan, f"the sharpness cannot be measured: {said(error)}"
            return {}

    def _of_optimizer(self, optimizer: Any, settings: OptimizerSettings | None) -> dict[str, float]:
        if settings is None or not (_is_plain(optimizer, settings) or is_adaptive(optimizer)):
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


def _is_plain(optimizer: torch.optim.Optimizer, settings: OptimizerSettings) -> bool:
    """Whether it is SGD with one learning rate and momentum, and without dampening."""
    groups = {(g.get("lr"), g.get("momentum"), g.get("dampening")) for g in optimizer.param_groups}
    return settings.is_plain and len(groups) == 1 and not groups.pop()[-1]


def _steps(optimizer: torch.optim.Optimizer) -> float:
    """Steps that its state is from; 0 before there is one."""
    return min((float(own["step"]) for own in optimizer.state.values() if "step" in own), default=0)


def _metric_factor(optimizer: torch.optim.Optimizer, parameters: TensorDict) -> float:
    """tr(P⁻¹Σ)/trΣ, taken as ‖P^-½(ḡ - m)‖²/‖ḡ - m‖² of the gradient ḡ of this step.

    m is the running mean of gradients, where the optimizer has one: what is left is noise of the
    covariance Σ/B, mostly.
    """
    root = Preconditioner.of(optimizer, parameters).root
    pairs = []
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            mean = optimizer.state.get(parameter, {}).get("exp_avg", 0.0)
            noise = parameter.grad.detach() - mean
            pairs.append((widen(sq_norm(noise * root[name])), widen(sq_norm(noise))))
    both = floats(sum(norms) for norms in zip(*pairs, strict=True))
    return both[0] / both[1] if len(both) == 2 and both[1] > 0 else math.nan
