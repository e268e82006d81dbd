"""λ along the run, on a few samples, every so many measured steps."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from ..errors import GradNoiseError, first_line
from ..estimators.curvature.tracker import SharpnessTracker
from ..problem.losses.loss_fn import LossFn
from ..problem.optimizer_settings import read_optimizer

SAMPLES = 64


class Curvature:
    """The largest eigenvalue of the Hessian, followed by a `SharpnessTracker`.

    Args:
        model, loss_fn, data: as for `SharpnessTracker`; the first 64 samples that are drawn are
            kept.
        every: it is measured at every so many measurements of the noise.

    Attributes:
        value: λ in loss/parameter², in the metric of an adaptive optimizer, from when its second
            moments have settled; nan before it is known.
        is_fresh: whether it was measured at the last turn.
        reason: why it could not be measured; then it is not tried again.
    """

    def __init__(
        self, model: nn.Module, loss_fn: LossFn | nn.Module, data: Any, every: int
    ) -> None:
        self.value, self.reason, self.is_fresh = math.nan, "", False
        self._made = model, loss_fn, data
        self._every, self._turns = every, 0
        self._tracker: SharpnessTracker | None = None

    def turn(self, optimizer: Any = None) -> None:
        """After a measurement of the noise: measure λ if it is its turn.

        Args:
            optimizer: that trains now; its metric is that of λ.
        """
        self.is_fresh = False
        due = self._turns % self._every == 0
        if self.reason or (due and _is_early(optimizer)):
            return
        self._turns += 1
        if not due:
            return
        try:
            self.value, self.is_fresh = float(self._follow(optimizer).update().values), True
        except Exception as error:  # runs the user's code and needs memory, in training
            said = str(error) if isinstance(error, GradNoiseError) else first_line(error)
            self.value, self.reason = math.nan, f"the sharpness cannot be measured: {said}"

    def _follow(self, optimizer: Any) -> SharpnessTracker:
        if self._tracker is None:
            model, loss_fn, data = self._made
            self._tracker = SharpnessTracker(
                model, loss_fn, data, optimizer=optimizer, max_samples=SAMPLES
            )
        return self._tracker


def _is_early(optimizer: Any) -> bool:
    """Whether the metric of an optimizer is not yet the one that it trains with."""
    settings = read_optimizer(optimizer)
    if settings is None or settings.settled_after is None:
        return False
    return (settings.steps or 0) < settings.settled_after
