"""λ along the run, on a few samples, every so many measured steps."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from ..errors import GradNoiseError, first_line
from ..estimators.curvature.tracker import SharpnessTracker
from ..problem.losses.loss_fn import LossFn

SAMPLES = 64


class Curvature:
    """The largest eigenvalue of the Hessian, followed by a `SharpnessTracker`.

    Args:
        model, loss_fn, data, optimizer: as for `SharpnessTracker`; the first 64 samples that are
            drawn are kept.
        every: it is measured at every so many measurements of the noise.

    Attributes:
        value: λ in loss/parameter², in the metric of an adaptive optimizer; nan before it is known.
        reason: why it could not be measured; then it is not tried again.
    """

    def __init__(
        self, model: nn.Module, loss_fn: LossFn | nn.Module, data: Any, optimizer: Any, every: int
    ) -> None:
        self.value, self.reason = math.nan, ""
        self._made = model, loss_fn, data, optimizer
        self._every, self._turns = every, 0
        self._tracker: SharpnessTracker | None = None

    def turn(self) -> None:
        """After a measurement of the noise: measure λ if it is its turn."""
        due = self._turns % self._every == 0
        self._turns += 1
        if not due or self.reason:
            return
        try:
            self.value = float(self._follow().update().values)
        except Exception as error:  # runs the user's code and needs memory, in training
            said = str(error) if isinstance(error, GradNoiseError) else first_line(error)
            self.value, self.reason = math.nan, f"the sharpness cannot be measured: {said}"

    def _follow(self) -> SharpnessTracker:
        if self._tracker is None:
            model, loss_fn, data, optimizer = self._made
            self._tracker = SharpnessTracker(
                model, loss_fn, data, optimizer=optimizer, max_samples=SAMPLES
            )
        return self._tracker
