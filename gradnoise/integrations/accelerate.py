"""A monitor in training loops with accelerate's Accelerator."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import ArgumentError
from ..monitor.monitor import NoiseMonitor
from .numbers import finite
from .objects import replace
from .steps import Steps, quiet

NO_BEGIN = (
    "`accelerator.backward` came without `with accelerator.accumulate(model):` around the forward "
    "and backward pass, which tells where a step begins (also without accumulation)"
)
TWICE = "`accelerator.backward` was called twice in one micro-batch: add up the losses"


class NoiseMonitorCallback:
    """Measures the optimizer steps of a loop that has `with accelerator.accumulate(model):`.

    A step is opened by the first `accelerator.accumulate`, and read after that
    `accelerator.backward` which synchronises the gradients. Values go to the trackers of
    `accelerator.log`, and the state to `accelerator.save_state`.

    Args:
        accelerator: the Accelerator.
        monitor: of the model as `accelerator.prepare` gives it.

    Raises:
        ArgumentError: the model cannot be followed.
    """

    def __init__(self, accelerator: Any, monitor: NoiseMonitor) -> None:
        self.accelerator, self.monitor, self.steps = accelerator, monitor, Steps(monitor)
        self._ready = False  # inside of `accumulate`, and not yet differentiated
        self._ended = False  # the step of this micro-batch has been read
        model = monitor.model
        # an Accelerator keeps what it has prepared; with several it is not known whose model it is
        known = getattr(accelerator, "_optimizers", [])
        own = known[0] if len(known) == 1 else None
        self.steps.follow(model, model, accelerator.num_processes, optimizer=own)
        replace(accelerator, "accumulate", self._accumulates)
        replace(accelerator, "backward", self._differentiates)
        accelerator.register_for_checkpointing(monitor)

    def _accumulates(self, accumulate: Any) -> Any:
        def watched(*models: Any) -> Any:
            self._enters()
            return accumulate(*models)

        return watched

    def _differentiates(self, backward: Any) -> Any:
        def watched(loss: Any, **kwargs: Any) -> Any:
            result = backward(loss, **kwargs)
            self._passed(loss)
            return result

        return watched

    @quiet
    def _enters(self) -> None:
        self._ready, self._ended = True, False
        if not self.steps.has_begun:
            self.steps.begin(self.accelerator.scaler)

    @quiet
    def _passed(self, loss: Any) -> None:
        if not self._ready:
            raise ArgumentError(TWICE if self._ended else NO_BEGIN)
        self._ready, accelerator = False, self.accelerator
        parts = accelerator.gradient_accumulation_steps
        if self.steps.is_open:
            self.steps.add(None, loss.detach() / parts)
        if accelerator.sync_gradients:
            self._ended = True
            if self.steps.end(divided_by=parts):
                accelerator.log(finite(self.monitor.values()), step=self.monitor.steps)


def called(accelerator: Any, model: nn.Module | None) -> nn.Module:
    """The model that was prepared.

    Raises:
        ArgumentError: none is given.
    """
    if model is None:
        raise ArgumentError(
            "an Accelerator does not say which model is called: give it as `model`, as "
            "accelerator.prepare returns it"
        )
    return model


def connect(accelerator: Any, monitor: NoiseMonitor) -> None:
    """Let a monitor measure the steps of a loop."""
    NoiseMonitorCallback(accelerator, monitor)


def is_main(accelerator: Any) -> bool:
    """Whether this process writes files."""
    return bool(accelerator.is_main_process)
