"""How much of the gradient noise is that of the random numbers that the loss draws."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...moments.moments import GradientMoments
from ...per_sample.choice import choose
from ...per_sample.contract.summary import Wanted
from ...problem.losses.loss_fn import LossFn
from ...problem.problem import Problem
from ...problem.unit import Seeded
from ...tensors.trees import wide_dtype

PART = 128  # units that are drawn twice
SECOND = 2**31  # added to their seeds


class _Change:
    """ℓ_i under its own draw less ℓ_i under another one, as a loss."""

    def __init__(self, losses: LossFn) -> None:
        self._losses = losses

    def __call__(self, model: nn.Module, batch: Seeded) -> Tensor:
        other = Seeded(batch.batch, batch.seeds + SECOND)
        return self._losses(model, batch) - self._losses(model, other)


def draw_share(problem: Problem, moments: GradientMoments) -> float:
    """The part of trΣ that comes from the draws: E‖g_i - g_i'‖²/2 over trΣ.

    g_i and g_i' are of the same unit with two independent draws. Measured on a part of the units.

    Args:
        problem: with random losses; inside its guard.
        moments: of the same problem.
    """
    change = problem.objective.plain.again()
    change.loss_fn = _Change(change.loss_fn)
    preconditioner = problem.objective.preconditioner
    wanted = Wanted(scale=None if preconditioner is None else preconditioner.root)
    squares, count = torch.zeros(2, dtype=wide_dtype(problem.objective.device)), 0
    with change.guard():
        chosen = choose(change, problem.largest_batch())
        for batch in problem.batches():
            for summary in chosen.summaries(batch, wanted):
                norms = torch.stack(list(summary.sq_norms.values()))
                count += len(summary.losses)
                squares += torch.stack([norms.sum().cpu(), torch.tensor(1.0 * norms.shape[1])])
            if count >= PART:
                break
        total, measured = problem.sum(squares).tolist()
    trace = float(moments.trace_cov)
    return min(total / measured / 2 / trace, 1.0) if trace else 0.0
