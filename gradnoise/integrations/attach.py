"""`gn.attach`: a noise monitor in a trainer of a framework."""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from ..errors import ArgumentError
from ..monitor.monitor import AUTO, NoiseMonitor
from ..problem.losses.loss_fn import LossFn
from .objects import is_of

# the file of this folder, the package and the class
KNOWN = (
    ("transformers", "transformers", "Trainer"),
    ("lightning", "lightning.pytorch", "Trainer"),
    ("lightning", "pytorch_lightning", "Trainer"),
    ("accelerate", "accelerate", "Accelerator"),
)


def attach(
    trainer: Any,
    *,
    model: nn.Module | None = None,
    every: int = 50,
    source: str = AUTO,
    group: Any = None,
    sink: Any = None,
    level: float = 0.95,
    decay: float = 0.95,
    layers: bool = False,
    max_samples: int | None = 8,
    loss_fn: LossFn | nn.Module | None = None,
    data: Any = None,
    sharpness_every: int = 10,
) -> NoiseMonitor:
    """Measure the noise scale while a framework trains; training itself is bit by bit the same.

    The values of `NoiseMonitor.values` go where the framework logs; the state goes to its
    checkpoints, and a run that is resumed gives the same numbers. What is measured is the gradient
    before it is clipped. Nothing is raised into the training: what cannot be measured is in
    `monitor.notes`. For a monitor of your own make the `NoiseMonitorCallback` of
    gradnoise.integrations.transformers, .lightning or .accelerate with it: docs/integrations.md.

    Args:
        trainer: a `transformers.Trainer`, also TRL's; a `lightning.pytorch.Trainer`; or an
            `accelerate.Accelerator`, in whose loop `with accelerator.accumulate(model):` is around
            the forward and backward pass.
        model: for Lightning the LightningModule, or the part of it that is called; for accelerate
            the model as it was prepared. A transformers.Trainer knows its own.
        every, source, group, sink, level, decay, layers, max_samples, loss_fn, data,
            sharpness_every: see `NoiseMonitor`. The group of DistributedDataParallel is found.
            Only the main process writes to the sink.

    Returns:
        The monitor, which may be printed at any time; `monitor.detach()` ends it.

    Raises:
        ArgumentError: another kind of trainer, no `model` where one is needed, or an option of
            `NoiseMonitor` that is none.

    Example:
        >>> import torch
        >>> from accelerate import Accelerator
        >>> accelerator, model = Accelerator(cpu=True), nn.Linear(3, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> model, optimizer = accelerator.prepare(model, optimizer)
        >>> monitor = attach(accelerator, model=model, every=1)
        >>> for _ in range(3):
        ...     with accelerator.accumulate(model):
        ...         accelerator.backward(model(torch.randn(8, 3)).square().mean())
        ...         optimizer.step()
        ...         optimizer.zero_grad()
        >>> monitor.source, monitor.measured
        ('samples', 2)
    """
    home = _home(trainer)
    monitor = NoiseMonitor(
        home.called(trainer, model),
        every=every,
        source=source,
        group=group,
        sink=sink if home.is_main(trainer) else None,
        level=level,
        decay=decay,
        layers=layers,
        max_samples=max_samples,
        loss_fn=loss_fn,
        data=data,
        sharpness_every=sharpness_every,
    )
    home.connect(trainer, monitor)
    return monitor


def _home(trainer: Any) -> Any:
    """The file that knows this kind of trainer; only then is the framework imported."""
    for home, package, name in KNOWN:
        if is_of(trainer, package, name):
            return importlib.import_module(f"{__package__}.{home}")
    if isinstance(trainer, nn.Module):
        raise ArgumentError(
            "`trainer` must be a Trainer or an Accelerator; got a model. In a loop of your own: "
            "monitor = gn.NoiseMonitor(model, optimizer), and `with monitor.step():` around the "
            "forward and backward passes of every optimizer step"
        )
    raise ArgumentError(
        f"`trainer` must be a transformers.Trainer, a lightning.pytorch.Trainer, or an "
        f"accelerate.Accelerator; got {type(trainer).__name__}"
    )
