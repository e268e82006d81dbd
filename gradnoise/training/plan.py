"""What the runs of a sweep have in common: model, loss, data and optimizer."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DataError, LossError, ModelError
from ..problem.losses.loss_fn import LossFn
from ..problem.objective import Bound, as_loss_fn
from ..problem.samples import Samples
from ..problem.shares import in_batch
from ..problem.state.guard import seed_everything
from ..tensors.ragged import opened
from ..tensors.trees import Batch, joined, sample_count, split, to_device
from .divergence import DivergenceMonitor
from .schedule import Schedule
from .start import Start
from .steps import Steps, StepSettings

OPTIMIZERS = ("sgd", "nesterov", "adam")
Metric = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True)
class Plan:
    """Everything that is the same for all runs.

    Args:
        make_model: called without arguments under the seed of a run.
        loss_fn: as for `gn.profile`.
        train, test: all samples as one batch; no test is None.
        metrics: `metric(model, batch)` with one number per sample, by name.
        optimizer, momentum, weight_decay: "sgd", "nesterov" or "adam" (β₁ is `momentum`, weight
            decay a penalty), as torch has them.
        schedule: factor of ε by the fraction of the run that is done, in [0, 1); None is 1.
        tolerates_spikes: see `DivergenceMonitor`.
        start: where all runs start, with which optimizer; then `make_model` copies its model, and
            `optimizer`, `momentum` and `weight_decay` are not used.
        judged: the samples that losses at the start and the end are taken on; None: `train`.
        averages: whether the late loss and that at the mean weights of the last half of a run are
            taken as well. With a schedule both are that at the end.
        max_grad_norm: longer gradients are cut to this norm, as `clip_grad_norm_` does.
    """

    make_model: Callable[[], nn.Module]
    loss_fn: Any
    train: Batch
    test: Batch | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    optimizer: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: Schedule | None = None
    tolerates_spikes: bool = True
    start: Start | None = None
    judged: Batch | None = None
    averages: bool = False
    max_grad_norm: float | None = None
    _starts: dict[int, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def model(self, seed: int) -> nn.Module:
        """A fresh model; the global random states are not changed."""
        with torch.random.fork_rng():
            seed_everything(seed)
            model = self.make_model()
        if not isinstance(model, nn.Module):
            raise ModelError(
                f"`make_model` must return a new torch.nn.Module; got {type(model).__name__}"
            )
        return model

    def models(self, seeds: Sequence[int]) -> dict[int, nn.Module]:
        """Fresh models by seed; one copy for all where every run starts from the same weights."""
        if self.start is not None:
            return dict.fromkeys(seeds, self.model(seeds[0]))
        return {seed: self.model(seed) for seed in seeds}

    @property
    def losses(self) -> LossFn:
        """`losses(model, batch)`, one per sample, whose mean over a batch a step minimises."""
        return functools.partial(in_batch, as_loss_fn(self.loss_fn))

    def bound(self, model: nn.Module) -> Bound:
        """The losses as a module."""
        return Bound(model, self.losses)

    def start_loss(self, seed: int, model: nn.Module | None = None) -> float:
        """Mean loss over the judged samples of the fresh model of a seed; computed once.

        Args:
            seed: of the model.
            model: the fresh model, where there is one; its buffers may change.

        Raises:
            LossError: not one loss per sample, or not finite.
        """
        if seed not in self._starts:
            model = self.model(seed) if model is None else model
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                found = self.mean_loss(model)
            if not math.isfinite(found):
                where = "a fresh model" if self.start is None else "the model"
                raise LossError(
                    f"the loss of {where} is not finite: look at the data and at the model"
                )
            self._starts[seed] = found
        return self._starts[seed]

    def optimizer_of(self, model: nn.Module, lr: float) -> torch.optim.Optimizer:
        """torch's optimizer of a run."""
        if self.start is not None:
            return self.start.optimizer_of(model)
        parameters = [p for p in model.parameters() if p.requires_grad]
        if self.optimizer == "adam":
            betas, decay = (self.momentum, 0.999), self.weight_decay
            return torch.optim.Adam(parameters, lr=lr, betas=betas, weight_decay=decay)
        return torch.optim.SGD(
            parameters,
            lr=lr,
            momentum=self.momentum,
            nesterov=self.optimizer == "nesterov",
            weight_decay=self.weight_decay,
        )

    def steps(self, names: Iterable[str], runs: int) -> Steps:
        """The steps of that optimizer on the stacked weights of so many runs."""
        if self.start is not None:
            return self.start.steps(runs)
        own = StepSettings(self.optimizer, momentum=self.momentum, decay=self.weight_decay)
        return Steps(dict.fromkeys(names, own))

    def mean_loss(self, model: nn.Module, name: str = "`loss_fn`") -> float:
        """Mean loss over the judged samples; buffers of the model may change."""
        samples = self.train if self.judged is None else self.judged
        device = next(model.parameters()).device
        return mean_over(self.bound(model), to_device(samples, device), name)

    def monitor(self, starts: list[float]) -> DivergenceMonitor:
        """Watches runs that begin at these losses."""
        losses = torch.tensor(starts, dtype=torch.float64)
        return DivergenceMonitor(losses, self.tolerates_spikes, goes_on=self.start is not None)

    def factor(self, step: int, steps: int) -> float:
        """The factor of the learning rate in a step."""
        return 1.0 if self.schedule is None else float(self.schedule(step / steps))

    @functools.cached_property
    def count(self) -> int:
        """How many training samples there are."""
        return sample_count(self.train)

    @property
    def takes_mean(self) -> bool:
        """Whether runs need the mean of their weights."""
        return self.averages and self.schedule is None

    def on(self, device: torch.device) -> tuple[Batch, Batch | None]:
        """The samples where a model is."""
        test = None if self.test is None else to_device(self.test, device)
        return to_device(self.train, device), test


def collated(data: Any, name: str, most: int | None = None) -> Batch:
    """All samples of anything that `gn.profile` takes, in order, as one batch.

    Args:
        data: the samples.
        name: the argument, for the error.
        most: more samples than this are drawn from.

    Raises:
        DataError: samples of different shapes cannot lie in one tensor.
    """
    batches = Samples.draw(data, max_samples=most, least=1).batches
    try:
        return joined(batches)
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"the batches of `{name}` do not fit into one: samples differ in shape. Pad them to "
            f"one length first"
        ) from error


def mean_over(
    function: Callable[[Batch], Tensor], batch: Batch, name: str = "a metric", rows: int = 4096
) -> float:
    """The mean over all samples of a function with one number per sample."""
    count = sample_count(batch)
    total = 0.0
    with torch.no_grad():
        for part in split(batch, rows):
            values, size = function(opened(part)), sample_count(part)
            if values.shape != (size,):
                raise LossError(
                    f"{name} must return one number per sample, shape ({size},); got shape "
                    f"{tuple(values.shape)}. Use reduction='none', or pass a torch criterion itself"
                )
            total += float(values.double().sum())
    return total / count if math.isfinite(total) else math.inf
