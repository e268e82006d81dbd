"""What "diverged" means: which runs are stopped, and which did not recover."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

KEPT = 0.9  # a run that ends above this factor times its loss at the start was not trained
RISE = 2**0.5  # of the loss of a run that goes on from a trained model


class DivergenceMonitor:
    """Which of several runs diverge.

    A run is given up once its batch loss is not finite, or its running mean (over ten steps) is
    10⁴ times the loss at the start (3 times, where spikes are not tolerated). At the end a run has
    diverged if its loss is above that at the start, or above 0.9 of it after a running mean above
    1.5 of it: the loss rose and did not recover. A run that goes on from a trained model may end a
    little higher (a larger learning rate has more noise): it has diverged above √2 of its start.

    Args:
        start: the losses at the start, shape (R,).
        tolerates_spikes: whether a loss that rises gets the time to fall again.
        goes_on: whether the runs go on from a trained model.
    """

    def __init__(self, start: Tensor, tolerates_spikes: bool, goes_on: bool = False) -> None:
        self._goes_on = goes_on
        self.start = start.double().cpu()
        self.mean = self.start.clone()
        self.peak = self.start.clone()
        self.total = torch.zeros_like(self.start)  # of the losses of all steps
        self._limit = (1e4 if tolerates_spikes else 3.0) * self.start.abs()

    def see(self, losses: Tensor) -> Tensor:
        """Add the losses of a step; returns which runs go on, shape (R,)."""
        losses = losses.double().cpu()
        self.total = self.total + losses
        self.mean = 0.9 * self.mean + 0.1 * losses
        self.peak = torch.maximum(self.peak, self.mean)
        return torch.isfinite(self.mean) & (self.mean <= self._limit)

    def keep(self, alive: Tensor) -> None:
        """Go on with these alone."""
        for name in ("start", "mean", "peak", "total", "_limit"):
            setattr(self, name, getattr(self, name)[alive])

    def at(self, place: int) -> DivergenceMonitor:
        """The monitor of one of the runs."""
        found = copy.copy(self)
        found.keep(torch.tensor([place]))
        return found

    def verdict(self, end: Tensor) -> list[bool]:
        """Whether the runs that are complete have diverged."""
        end = end.double().cpu()
        if self._goes_on:
            most = self.start + (RISE - 1) * self.start.abs()  # a loss may be negative
            return (~torch.isfinite(end) | (end > most)).tolist()
        lost = (end > KEPT * self.start) & (self.peak > 1.5 * self.start)
        return (~torch.isfinite(end) | (end > self.start) | lost).tolist()
