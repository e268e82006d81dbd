"""A monitor in Lightning's Trainer."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import ArgumentError
from ..monitor.monitor import NoiseMonitor
from .numbers import finite, size_of
from .steps import Steps, quiet

try:
    from lightning.pytorch import Callback
except ImportError:  # the package under its other name
    from pytorch_lightning import Callback


class NoiseMonitorCallback(Callback):  # type: ignore[misc]
    """Measures the optimizer steps: `Trainer(callbacks=[NoiseMonitorCallback(monitor)])`.

    A step is opened at the first `on_train_batch_start` of an accumulation and read at the last
    `on_after_backward`, before gradients are unscaled and clipped. Values go to the trainer's
    loggers, and the state to its checkpoints.

    Args:
        monitor: of the object that `training_step` calls: the LightningModule where it is
            `self(x)`, and `module.net` where it is `self.net(x)`. Its steps are counted by
            `trainer.global_step`.
    """

    def __init__(self, monitor: NoiseMonitor) -> None:
        self.monitor, self.steps = monitor, Steps(monitor)

    @quiet
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Find out which ranks average their gradients."""
        monitor = self.monitor
        if not pl_module.automatic_optimization:
            monitor.detach()
            raise ArgumentError(
                "with manual optimization only `training_step` knows the steps: put `with "
                "monitor.step():` around its forward and backward passes"
            )
        self.steps.follow(
            monitor.model, trainer.strategy.model, trainer.world_size, trainer.optimizers[0]
        )

    @quiet
    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Open a step before its first micro-batch."""
        parts, after = trainer.accumulate_grad_batches, batch_idx + 1
        if batch_idx % parts == 0:
            self.monitor.steps = trainer.global_step
            self.steps.begin(getattr(trainer.precision_plugin, "scaler", None))
        ends = trainer.is_last_batch or after == trainer.num_training_batches
        self._is_last = ends or after % parts == 0
        self._size = size_of(batch) if self.steps.is_open else None

    @quiet
    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Note the loss of a micro-batch."""
        if self.steps.is_open:
            self.steps.add(self._size, loss.detach() / self.steps.loss_scale)

    @quiet
    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        """Read the step after its last backward pass."""
        if not self.steps.is_open or not self._is_last:
            return
        if self.steps.end(divided_by=trainer.accumulate_grad_batches):
            values = finite(self.monitor.values())
            for logger in trainer.loggers:
                logger.log_metrics(metrics=values, step=trainer.global_step)

    @quiet
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Forget a step that did not come to its end."""
        self.steps.drop()

    @quiet
    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leave the model as it was."""
        self.steps.drop()

    def state_dict(self) -> dict[str, Any]:
        """For Lightning's checkpoints."""
        return self.monitor.state_dict()

    @quiet
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.monitor.load_state_dict(state_dict)


def called(trainer: Any, model: nn.Module | None) -> nn.Module:
    """The object that is called: the one child that has all parameters, or the module itself.

    Raises:
        ArgumentError: no model is given: a Trainer has it only while it trains.
    """
    if model is None:
        raise ArgumentError(
            "Lightning's Trainer learns of its module in `fit`: give the LightningModule as `model`"
        )
    if not hasattr(model, "training_step"):
        return model
    own = {id(p) for p in model.parameters() if p.requires_grad}
    whole = [c for c in model.children() if own <= {id(p) for p in c.parameters()}]
    return whole[0] if len(whole) == 1 else model


def connect(trainer: Any, monitor: NoiseMonitor) -> None:
    """Let a monitor measure the steps of a Trainer."""
    trainer.callbacks.insert(0, NoiseMonitorCallback(monitor))


def is_main(trainer: Any) -> bool:
    """Whether this process writes files."""
    return bool(trainer.is_global_zero)
