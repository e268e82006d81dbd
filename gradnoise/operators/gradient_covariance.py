"""The covariance of the per-sample gradients as a matrix."""

from __future__ import annotations

from torch import Tensor

from ..per_sample.contract.engine import Engine
from ..problem.problem import Problem
from .gradients import ByEngine, PerSampleGradients


class GradientCovariance(ByEngine):
    """Σ = Σ_i (g_i - ḡ)(g_i - ḡ)ᵀ/(n - 1), shape (P, P), symmetric and positive semidefinite.

    Two passes over the samples per product, nothing stored: Σv = Jᵀc/(n - 1) with c = Jv minus
    its mean, so that Σ_i c_i = 0 and ḡ cancels. In loss²/parameter². Where units are groups of b
    samples, g_i are the gradients of groups; a matrix that is made from a model is b times their
    covariance.

    Args:
        model, loss_fn, data, max_samples, seed, micro_batch, engine, unit, group_size,
            process_group: as for `PerSampleGradients`.

    Raises:
        As `PerSampleGradients`.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> data = (torch.ones(2, 1), torch.tensor([[0.0], [1.0]]))
        >>> GradientCovariance(model, torch.nn.MSELoss(), data) @ torch.ones(1)  # g_i = 2(w - y_i)
        tensor([2.])
    """

    symmetric = True

    def _start(self, problem: Problem, engine: str | Engine = "auto") -> None:
        super()._start(problem, engine)
        self._rows = PerSampleGradients.of(problem, engine=self._engine)

    def products(self, block: Tensor) -> Tensor:
        along = self._rows.along(block)
        centred = along - along.mean(0)
        total: Tensor = self._rows.weighted(centred)
        return total.mul_(self._group_size / (self.problem.samples.count - 1)).to(self.dtype)
