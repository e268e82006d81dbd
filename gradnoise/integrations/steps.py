"""The steps of a monitor where a framework runs the training loop; nothing is raised into it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from torch import nn

from ..errors import ArgumentError, said
from ..monitor.monitor import NoiseMonitor
from ..monitor.step import IDLE
from .objects import group_of


class Steps:
    """Opens and closes the steps of a monitor, as events of a framework tell.

    Args:
        monitor: what measures them.

    Attributes:
        has_begun: between the first micro-batch of a step and its gradient.
    """

    def __init__(self, monitor: NoiseMonitor) -> None:
        self.monitor = monitor
        self.has_begun = False
        self._step: Any = IDLE

    @property
    def is_open(self) -> bool:
        """Whether the step that has begun is measured."""
        return self._step is not IDLE

    def follow(self, model: nn.Module, shared: nn.Module, processes: int, optimizer: Any) -> None:
        """Before training.

        Args:
            model: the object that is called.
            shared: the same with the wrapper that averages gradients over ranks.
            processes: how many ranks there are.
            optimizer: whose learning rate goes to the sink.

        Raises:
            ArgumentError: the model cannot be followed; the monitor is detached.
        """
        monitor = self.monitor
        try:
            monitor.follow(model, monitor.group or group_of(shared, processes))
        except ArgumentError:
            monitor.detach()
            raise
        monitor.optimizer = monitor.optimizer or optimizer

    def begin(self, scaler: Any = None) -> None:
        """Before the first forward pass of a step; one that has not ended is dropped.

        Args:
            scaler: a `torch.amp.GradScaler`; None where the loss is not scaled.
        """
        self.drop()
        self._scaler = scaler
        self._sizes: list[int | None] = []
        self._loss: Any = 0.0
        self.has_begun = True
        self._step = self.monitor.step().__enter__()

    def add(self, size: int | None, loss: Any) -> None:
        """Tell of one micro-batch.

        Args:
            size: its samples; None where the inputs of the model tell.
            loss: its contribution to the loss of the step.
        """
        self._sizes.append(size)
        self._loss = self._loss + (loss.detach() if hasattr(loss, "detach") else loss)

    def end(self, *, shares: Sequence[float] | None = None, divided_by: int | None = None) -> bool:
        """After the last backward pass, before gradients are clipped or unscaled.

        Args:
            shares: of the micro-batches in the objective; None for equal ones.
            divided_by: by what the framework divides every loss; None for the number of
                micro-batches. The last step of an epoch may have fewer.

        Returns:
            Whether there is a new measurement.
        """
        before, step = self.monitor.measured, self._step
        if self.is_open:
            factor = 1.0 if divided_by is None else len(self._sizes) / divided_by
            known = self._sizes and None not in self._sizes
            step.batch_size = self._sizes if known else None
            step.shares, step.loss = shares, self._loss / factor
            step.loss_scale = self.loss_scale * factor
        self.has_begun = False
        self._step = IDLE
        step.__exit__(None, None, None)
        return self.monitor.measured > before

    def drop(self) -> None:
        """Forget a step that has not come to its end."""
        step, self._step = self._step, IDLE
        self.has_begun = False
        step.__exit__(GeneratorExit, None, None)

    def fail(self, error: Exception) -> None:
        """Give up a step: training goes on."""
        with suppress(Exception):  # a warning that is made an error
            self.drop()
            self.monitor.skip(said(error))

    @property
    def loss_scale(self) -> float:
        """What the loss of a micro-batch was multiplied with against underflow."""
        return 1.0 if self._scaler is None else float(self._scaler.get_scale())


def quiet(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a callback that has `steps`, in the middle of training: errors become notes."""

    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            self.steps.fail(error)
            return None

    return run
