"""λ along training, each time from where it was last found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...linalg.lanczos import lanczos
from ...linalg.operator import MEMORY_BUDGET
from ...linalg.ritz import Eigenpairs
from ...operators.hessian import Hessian
from ...operators.preconditioned import with_decay
from ...problem.losses import LossFn
from ...problem.options import Options
from ...problem.problem import Problem
from ...problem.samples import MICRO_BATCH
from ...tensors.random import generator, random_vector

FRESH = 0.1  # of a random direction in the start: another eigenvalue may have overtaken
AFRESH = 10  # updates after which one starts from a random direction alone


class SharpnessTracker:
    """The largest eigenvalue of the Hessian on fixed samples, followed while a model is trained.

    The eigenvector turns slowly, so the last one, with a tenth of a random direction, brings the
    iteration to its tolerance within a few products. Among many parameters that tenth has little
    along any other eigenvector; every tenth update starts from a random direction alone, so that
    an eigenvalue that has overtaken goes unseen for nine updates at most.

    Args:
        model, loss_fn, data: as for `gradient_moments`; the samples are drawn once.
        tol: as for `lanczos`.
        hvp, memory_budget, max_samples, micro_batch: as for `Hessian`.
        optimizer, metric: as for `sharpness`; the optimizer's state is read at every update.
        seed: of the choice of samples and of the random directions.

    Attributes:
        history: the eigenpairs of every update, without their vectors.

    Raises:
        GradNoiseError: see `Hessian` and `lanczos`.

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
        metric: str = "euclidean",
        max_samples: int | None = 4096,
        seed: int = 0,
        micro_batch: int = MICRO_BATCH,
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        self._options = Options(
            optimizer=optimizer, metric=metric, max_samples=max_samples, seed=seed,
            micro_batch=micro_batch,
        )  # fmt: skip
        # the metric is read at updates: a tracker can be made before the first step
        self._problem = Problem.open(
            model, loss_fn, data, replace(self._options, metric="euclidean")
        )
        self._hessian = Hessian.of(self._problem, hvp=hvp, memory_budget=memory_budget)
        self._tol, self._memory_budget = tol, memory_budget
        self._seed, self._source = seed, generator(seed)
        self._start: Tensor | None = None
        self.history: list[Eigenpairs] = []

    def update(self) -> Eigenpairs:
        """Measure at the parameters as they are now."""
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
        self.history.append(_without_vectors(pairs))
        return pairs

    @property
    def values(self) -> Tensor:
        """λ of every update, shape (updates,)."""
        return torch.cat([torch.zeros(0).double(), *(pairs.values for pairs in self.history)])

    @property
    def matvecs(self) -> int:
        """Products of all updates together."""
        return sum(pairs.matvecs for pairs in self.history)


def _without_vectors(pairs: Eigenpairs) -> Eigenpairs:
    return replace(pairs, vectors=pairs.vectors.new_empty(0, pairs.vectors.shape[1]))
