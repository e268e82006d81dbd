"""λ along training: each measurement starts from the last eigenvector."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...linalg.iteration import Eigenpairs
from ...linalg.lanczos import lanczos
from ...linalg.operator import MEMORY_BUDGET
from ...operators.hessian import Hessian
from ...operators.preconditioned import with_decay
from ...problem.losses.loss_fn import LossFn
from ...problem.options import Options
from ...problem.problem import Problem
from ...problem.samples import MICRO_BATCH
from ...tensors.random import generator, random_vector

FRESH = 0.1  # length of the random part of a start: another eigenvalue may have become largest
AFRESH = 10  # every so many updates the start is a random direction alone


class SharpnessTracker:
    """The largest eigenvalue λ of the Hessian on fixed samples, followed while a model is trained.

    The eigenvector changes slowly, so a start at the last one plus a tenth of a random direction
    converges within a few products. With many parameters that tenth has a small component along
    any other eigenvector; every tenth update starts from a random direction alone, so that another
    eigenvalue that has become the largest is missed for nine updates at most.

    Args:
        model, loss_fn, data: as for `gradient_moments`; the samples are drawn once.
        tol: as for `lanczos`.
        hvp, memory_budget, max_samples, micro_batch, unit, group_size, process_group: as for
            `Hessian`.
        optimizer, metric: as for `sharpness`; the optimizer's state is read at every update, so
            the first update comes after its first step.
        seed: of the choice of samples and of the random directions.

    Attributes:
        history: the eigenpairs of every update, without their vectors; values in loss/parameter².

    Raises:
        GradNoiseError: see `Hessian`; at an update see `lanczos` and `Preconditioned`.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> data = (torch.eye(2), torch.zeros(2, 1))
        >>> tracker = SharpnessTracker(model, nn.MSELoss(), data)
        >>> float(tracker.update().values)  # H = 2 XᵀX/n
        1.0
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn | nn.Module,
        data: Any,
        *,
        tol: float = 1e-2,
        hvp: str = "auto",
        optimizer: torch.optim.Optimizer | None = None,
        metric: str = "auto",
        max_samples: int | None = 4096,
        seed: int = 0,
        micro_batch: int = MICRO_BATCH,
        unit: str = "auto",
        group_size: int | None = None,
        process_group: Any = None,
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        options = Options(
            optimizer=optimizer, metric=metric, max_samples=max_samples, seed=seed,
            micro_batch=micro_batch, unit=unit, group_size=group_size, process_group=process_group,
        )  # fmt: skip
        # the metric is read at updates: a tracker can be made before the first step
        euclidean = replace(options, metric="euclidean")
        # one metric in all updates: an optimizer without state is refused, also with "auto"
        self._options = replace(options, metric="optimizer") if options.own_metric else euclidean
        self._problem = Problem.open(model, loss_fn, data, euclidean)
        self._hessian = Hessian.of(self._problem, hvp=hvp, memory_budget=memory_budget)
        self._tol, self._memory_budget = tol, memory_budget
        self._seed, self._source = seed, generator(seed)
        self._start: Tensor | None = None
        self.history: list[Eigenpairs] = []

    def update(self) -> Eigenpairs:
        """The largest eigenpair for the parameters, and the optimizer's state, as they are now."""
        with self._problem.guard():
            self._hessian.problem = self._problem.in_metric(self._options)
            pairs = lanczos(
                with_decay(self._hessian),
                tol=self._tol,
                v0=self._start if len(self.history) % AFRESH else None,
                seed=self._seed + len(self.history),
                memory_budget=self._memory_budget,
            )
        self._hessian.forget()
        size, device = self._hessian.shape[0], self._hessian.device
        fresh = random_vector(size, self._source, device).to(pairs.vectors)
        self._start = pairs.vectors[:, 0] + FRESH * fresh
        self.history.append(replace(pairs, vectors=pairs.vectors[:0].clone()))
        return pairs

    @property
    def values(self) -> Tensor:
        """λ of every update, shape (updates,)."""
        return torch.cat([torch.zeros(0).double(), *(pairs.values for pairs in self.history)])

    @property
    def matvecs(self) -> int:
        """Products of all updates together."""
        return sum(pairs.matvecs for pairs in self.history)
