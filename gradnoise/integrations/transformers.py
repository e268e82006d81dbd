"""A monitor in transformers.Trainer, and in trainers that are made from it, as TRL's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from ..errors import ArgumentError
from ..monitor.monitor import NoiseMonitor
from ..monitor.ranks import summed, world_size
from ..problem.state.wrappers import bare_model
from .numbers import finite, size_of
from .objects import replace
from .steps import Steps, quiet

STATE = "gradnoise"  # the key in the `stateful_callbacks` of trainer_state.json


class NoiseMonitorCallback(TrainerCallback):  # type: ignore[misc]
    """Measures the optimizer steps of a Trainer: `trainer.add_callback(NoiseMonitorCallback(...))`.

    A step is opened at `on_step_begin` and read after the last `trainer.training_step`, which is
    before clipping. Values are added to the training logs, and the state to trainer_state.json.

    Args:
        trainer: the Trainer; callbacks are not told of it by itself.
        monitor: of `trainer.model`. Its steps are counted by `state.global_step`.
    """

    def __init__(self, trainer: Any, monitor: NoiseMonitor) -> None:
        self.trainer, self.monitor, self.steps = trainer, monitor, Steps(monitor)
        self._fresh: dict[str, Any] | None = None
        self._items: list[Any] = []  # of the micro-batches, as the loss counts them
        self._logged = 0
        self._put_back: Any = None

    @quiet
    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any
    ) -> None:
        """Find the model that is called, and go on from a checkpoint."""
        callbacks = self.trainer.callback_handler.callbacks
        callbacks.insert(0, callbacks.pop(callbacks.index(self)))  # before those that report
        self.steps.drop()
        monitor, model = self.monitor, self.trainer.model_wrapped
        self.steps.follow(model, model, args.world_size, optimizer)
        if self._put_back is None:
            self._put_back = replace(self.trainer, "training_step", self._watched)
        self._fresh = self._fresh or monitor.state_dict()
        saved = state.stateful_callbacks if state.global_step else {}
        monitor.load_state_dict(saved.get(STATE, self._fresh))
        self._logged = monitor.measured

    def _watched(self, training_step: Any) -> Any:
        """`trainer.training_step`: the forward and backward pass of one micro-batch."""

        def watched(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if not self.steps.is_open:
                return training_step(model, inputs, *args, **kwargs)
            size = self._count(inputs)
            loss = training_step(model, inputs, *args, **kwargs)
            self._passed(size, loss, *args, **kwargs)
            return loss

        return watched

    @quiet
    def _count(self, inputs: Any) -> int | None:
        self._items.append(_items_of(self.trainer, inputs))
        return size_of(inputs)

    @quiet
    def _passed(self, size: int | None, loss: Any, num_items_in_batch: Any = None, *_: Any) -> None:
        self.steps.add(size, loss)
        if self.trainer.accelerator.sync_gradients:
            self.steps.end(shares=self._shares(num_items_in_batch is not None))
            state = self.trainer.state
            state.stateful_callbacks[STATE] = self.monitor.state_dict()

    def _shares(self, divided: bool) -> Sequence[float] | None:
        """Of the micro-batches, where the loss is a sum over tokens divided by their number."""
        unscaled = getattr(self.trainer, "loss_is_scaled_for_ga", None) is False
        if not divided or unscaled or None in self._items:
            return None
        own = torch.tensor([float(count) for count in self._items], dtype=torch.float64)
        # their number on all ranks, whose gradients are averaged
        group = self.monitor.group if self.trainer.args.average_tokens_across_devices else None
        return (own / summed(own.sum(), group) * world_size(group)).tolist()

    @quiet
    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open a step."""
        self.monitor.steps = state.global_step
        self._items = []
        self.steps.begin(self.trainer.accelerator.scaler)

    @quiet
    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Add what is new to the logs of training."""
        if self._logged == self.monitor.measured or "loss" not in (logs or {}):
            return
        self._logged = self.monitor.measured
        values = finite(self.monitor.values())
        logs.update(values)
        state.log_history[-1].update(values)

    @quiet
    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave the trainer as it was."""
        self.steps.drop()
        if self._put_back is not None:
            self._put_back()
            self._put_back = None


def _items_of(trainer: Any, inputs: Any) -> Any:
    """The tokens of a micro-batch that have a loss; None without labels."""
    labels = inputs.get("shift_labels")
    if labels is None:
        labels = inputs.get("labels")
        if isinstance(labels, Tensor) and labels.ndim > 1 and _shifts(trainer):
            labels = labels[..., 1:]
    return labels.ne(-100).sum() if isinstance(labels, Tensor) else None


def _shifts(trainer: Any) -> bool:
    """Whether the loss is of the next token: the first label of a row is then not in it.

    For some models, such as GPT2LMHeadModel, the Trainer counts it, and the loss leaves it out.
    """
    model = bare_model(trainer.model)
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return False
    loss = getattr(model, "loss_function", None)
    counted = getattr(trainer, "_loss_shifts_labels", False)
    return counted or getattr(loss, "__name__", "") == "ForCausalLMLoss"


def called(trainer: Any, model: nn.Module | None) -> nn.Module:
    """The model of a Trainer.

    Raises:
        ArgumentError: another one is given.
    """
    if model is not None and model is not trainer.model:
        raise ArgumentError("`model` is taken from the Trainer: leave it out")
    own: nn.Module = trainer.model
    return own


def connect(trainer: Any, monitor: NoiseMonitor) -> None:
    """Let a monitor measure the steps of a Trainer."""
    trainer.add_callback(NoiseMonitorCallback(trainer, monitor))


def is_main(trainer: Any) -> bool:
    """Whether this process writes files."""
    return bool(trainer.is_world_process_zero())
