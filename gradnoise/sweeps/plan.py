"""What the runs of a sweep have in common, and what tells one from another."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DataError, LossError, ModelError
from ..problem.guard import seed_everything
from ..problem.losses import LossFn
from ..problem.objective import Bound, as_loss_fn
from ..problem.samples import Samples
from ..tensors.random import generator
from ..tensors.trees import Batch, rebuild, sample_count, sample_leaves, to_device

OPTIMIZERS = ("sgd", "nesterov", "adam")
KEPT = 0.9  # of the loss at the start: what ends above it has not been trained
Metric = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True)
class Run:
    """One training run of a grid.

    Args:
        batch_size, lr, seed: B, ε, and what initialises the model and orders the samples.
        budget: "epochs" or "steps": what is equal for all batch sizes.
        steps: how many it takes.
    """

    batch_size: int
    lr: float
    seed: int
    budget: str
    steps: int

    @property
    def key(self) -> str:
        """The same for the same run."""
        return f"{self.budget} {self.steps} B{self.batch_size} lr{self.lr:.9g} seed{self.seed}"


@dataclass(frozen=True)
class Record:
    """How a run ended.

    Args:
        run: which.
        diverged: whether it did; see `Watch`.
        stopped: the step at which it was given up, None where it went to its end.
        start_loss, train_loss: mean loss over the training samples before and after.
        test_loss: over the test samples, None without any.
        metrics: means over the test samples by name.
    """

    run: Run
    diverged: bool
    stopped: int | None
    start_loss: float
    train_loss: float
    test_loss: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """All of it side by side, as a line of a table."""
        own = {name: value for name, value in asdict(self).items() if name not in _NESTED}
        return {**asdict(self.run), **own, **self.metrics}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Record:
        """What `dataclasses.asdict` and JSON made of it."""
        run, stopped, test_loss = fields["run"], fields["stopped"], fields["test_loss"]
        return cls(
            Run(
                int(run["batch_size"]),
                float(run["lr"]),
                int(run["seed"]),
                str(run["budget"]),
                int(run["steps"]),
            ),
            bool(fields["diverged"]),
            None if stopped is None else int(stopped),
            float(fields["start_loss"]),
            float(fields["train_loss"]),
            None if test_loss is None else float(test_loss),
            {name: float(value) for name, value in fields["metrics"].items()},
        )


_NESTED = ("run", "metrics")


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
        forgive: whether only a loss that is not finite, or far off, ends a run before its time.
    """

    make_model: Callable[[], nn.Module]
    loss_fn: Any
    train: Batch
    test: Batch | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    optimizer: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: Callable[[float], float] | None = None
    forgive: bool = True
    _starts: dict[int, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def model(self, seed: int) -> nn.Module:
        """A fresh model; the global random states are left as found."""
        with torch.random.fork_rng():
            seed_everything(seed)
            model = self.make_model()
        if not isinstance(model, nn.Module):
            raise ModelError(
                f"`make_model` must return a new torch.nn.Module; got {type(model).__name__}"
            )
        return model

    @property
    def losses(self) -> LossFn:
        """`losses(model, batch)`, one per sample."""
        return as_loss_fn(self.loss_fn)

    def bound(self, model: nn.Module) -> Bound:
        """The losses as a module."""
        return Bound(model, self.losses)

    def start_loss(self, seed: int, model: nn.Module | None = None) -> float:
        """Mean loss over all training samples of the fresh model of a seed; computed once.

        Args:
            seed: of the model.
            model: the fresh model, where there is one; its buffers may change.

        Raises:
            LossError: not one loss per sample, or not finite.
        """
        if seed not in self._starts:
            model = self.model(seed) if model is None else model
            samples, _ = self.on(next(model.parameters()).device)
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                found = mean_over(self.bound(model), samples, "`loss_fn`")
            if not math.isfinite(found):
                raise LossError(
                    "the loss of a fresh model is not finite: look at the data and at `make_model`"
                )
            self._starts[seed] = found
        return self._starts[seed]

    def factor(self, step: int, steps: int) -> float:
        """Of the learning rate in a step."""
        return 1.0 if self.schedule is None else float(self.schedule(step / steps))

    @functools.cached_property
    def count(self) -> int:
        """How many training samples there are."""
        return sample_count(self.train)

    def on(self, device: torch.device) -> tuple[Batch, Batch | None]:
        """The samples where a model is."""
        test = None if self.test is None else to_device(self.test, device)
        return to_device(self.train, device), test


def gathered(data: Any, name: str) -> Batch:
    """All samples of anything that `gn.profile` takes, in order, as one batch.

    Raises:
        DataError: samples of different shapes cannot lie in one tensor.
    """
    batches = Samples.draw(data, max_samples=None, least=1).batches
    leaves = [sample_leaves(batch) for batch in batches]
    try:
        return rebuild(batches[0], [torch.cat(parts) for parts in zip(*leaves, strict=True)])
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"the batches of `{name}` do not fit into one: samples differ in shape. Pad them to "
            f"one length first"
        ) from error


class Order:
    """Which samples a step takes: a new permutation every epoch, an incomplete batch left out."""

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self._count, self._size, self._seed = count, batch_size, seed
        self._epoch, self._permutation = -1, torch.empty(0)

    def rows(self, step: int) -> Tensor:
        """Indices of shape (B,)."""
        epoch, place = divmod(step, self._count // self._size)
        if epoch != self._epoch:
            source = generator(1_000_003 * self._seed + epoch)
            self._permutation = torch.randperm(self._count, generator=source)
            self._epoch = epoch
        return self._permutation[place * self._size : (place + 1) * self._size]


class Watch:
    """Which of several runs diverge.

    A run is given up once its batch loss is not finite, or its running mean (over ten steps) is
    10⁴ times the loss at the start; where divergence is not forgiven, three times it. At the end a
    run has diverged if its loss is above that at the start, or above 0.9 of it after a running mean
    above 1.5 of it: it blew up and did not come back.

    Args:
        start: the losses at the start, shape (R,).
        forgive: whether a loss that rises may still fall.
    """

    def __init__(self, start: Tensor, forgive: bool) -> None:
        self.start = start.double().cpu()
        self.mean = self.start.clone()
        self.peak = self.start.clone()
        self._limit = (1e4 if forgive else 3.0) * self.start.abs()

    def see(self, losses: Tensor) -> Tensor:
        """Take in the losses of a step; which runs go on, shape (R,)."""
        self.mean = 0.9 * self.mean + 0.1 * losses.double().cpu()
        self.peak = torch.maximum(self.peak, self.mean)
        return torch.isfinite(self.mean) & (self.mean <= self._limit)

    def keep(self, alive: Tensor) -> None:
        """Go on with these alone."""
        for name in ("start", "mean", "peak", "_limit"):
            setattr(self, name, getattr(self, name)[alive])

    def verdict(self, end: Tensor) -> list[bool]:
        """Whether the runs that came to their end have diverged."""
        end = end.double().cpu()
        lost = (end > KEPT * self.start) & (self.peak > 1.5 * self.start)
        return (~torch.isfinite(end) | (end > self.start) | lost).tolist()


def mean_over(
    function: Callable[[Batch], Tensor], batch: Batch, name: str = "a metric", rows: int = 4096
) -> float:
    """The mean over all samples of a function with one number per sample."""
    count = sample_count(batch)
    total = 0.0
    leaves = sample_leaves(batch)
    with torch.no_grad():
        for start in range(0, count, rows):
            part = rebuild(batch, [leaf[start : start + rows] for leaf in leaves])
            values = function(part)
            size = min(rows, count - start)
            if values.shape != (size,):
                raise LossError(
                    f"{name} must return one number per sample, shape ({size},); got shape "
                    f"{tuple(values.shape)}. Use reduction='none', or pass a torch criterion itself"
                )
            total += float(values.double().sum())
    return total / count if math.isfinite(total) else math.inf
