"""An objective and the samples it is measured on, read from the user's objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from ..tensors.trees import Batch, rebuild, sample_count, sample_leaves, select, to_device
from .checks import check_batch, refuse_coupling
from .coordinates import PreconditionedObjective
from .losses import LossFn
from .objective import Objective
from .options import Options
from .preconditioner import Preconditioner
from .samples import Samples

TRIAL_SAMPLES = 4  # for trials of engines and second derivatives
CHECK_SAMPLES = 32  # for checks of the losses: a few show coupling and randomness


Slopes = Callable[["Problem", Tensor], Tensor]


@dataclass(frozen=True)
class Problem:
    """An objective and its samples, from which every measurement starts.

    Args:
        objective: the per-sample losses as a function of the parameters.
        samples: the fixed samples.
        note: why it is not in the metric of the optimizer, where metric="auto" asked for it.
        slopes: (problem, V) -> g_iᵀv for the columns v of V, shape (n, k): where it has no second
            derivatives, curvatures of single samples are differences of these; otherwise None.
    """

    objective: Objective
    samples: Samples
    note: str = ""
    slopes: Slopes | None = None

    @classmethod
    def open(
        cls,
        model: nn.Module,
        loss_fn: LossFn | nn.Module,
        data: Any,
        options: Options | None = None,
        *,
        least: int = 2,
    ) -> Problem:
        """Read the user's objects and check once that there is something to measure.

        Errors are those of `Objective`, `check_batch`, `Samples.draw` and `Preconditioner.of`.

        Args:
            model, loss_fn, data: the user's.
            options: how it is measured; None for the defaults.
            least: samples that are needed; 2 for a variance of gradients.
        """
        options = options or Options()
        objective = Objective(model, loss_fn)
        with objective.guard(data):
            samples = Samples.draw(
                data,
                max_samples=options.max_samples,
                population=options.population,
                seed=options.seed,
                micro_batch=options.micro_batch,
                least=least,
            )
            problem = cls(objective, samples)
            problem._check()
        return problem.in_metric(options)

    def in_metric(self, options: Options) -> Problem:
        """The problem in the coordinates of a metric, with what the optimizer holds now.

        Raises:
            ArgumentError: see `Preconditioner.of`; with metric="auto" it becomes a note.
        """
        optimizer, plain = options.optimizer, self.objective.plain
        if optimizer is None or not options.own_metric:
            return replace(self, objective=plain, note="")
        try:
            preconditioner = Preconditioner.of(optimizer, plain.parameters)
        except ArgumentError as error:
            if options.metric != "auto":
                raise
            note = f"not measured in the metric of {type(optimizer).__name__}: {error}"
            return replace(self, objective=plain, note=note)
        return replace(self, objective=PreconditionedObjective(plain, preconditioner), note="")

    @property
    def metric(self) -> str:
        """The metric that it is in, "euclidean" or "optimizer"."""
        own = isinstance(self.objective, PreconditionedObjective)
        return "optimizer" if own else "euclidean"

    def _check(self) -> None:
        """Check a part of the largest micro-batch, or two joined where each holds one sample."""
        whole = self.largest_batch()
        batch = select(whole, slice(0, CHECK_SAMPLES))
        if sample_count(batch) == 1 and len(self.samples.batches) > 1:
            pair = [to_device(b, self.objective.device) for b in self.samples.batches[:2]]
            leaves = list(zip(*map(sample_leaves, pair), strict=True))
            if any(first.shape != second.shape for first, second in leaves):
                refuse_coupling(self.objective)
            else:
                batch = rebuild(batch, [torch.cat(both) for both in leaves])
        check_batch(self.objective, batch)

    @property
    def plain(self) -> Problem:
        """The problem in the parameters w themselves, without a preconditioner."""
        return replace(self, objective=self.objective.plain)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Restores the user's objects on leaving."""
        with self.objective.guard():
            yield

    def largest_batch(self) -> Batch:
        """The micro-batch with the most samples, for checks and trials."""
        counts = self.samples.counts
        largest = self.samples.batches[counts.index(max(counts))]
        return to_device(largest, self.objective.device)

    def batches(self) -> Iterator[Batch]:
        """The micro-batches, each on the device of the model."""
        for batch in self.samples.batches:
            yield to_device(batch, self.objective.device)
