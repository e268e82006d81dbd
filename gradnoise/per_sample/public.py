"""Per-sample gradients of one batch, for research code."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from ..problem.lists import holds_samples
from ..problem.losses.loss_fn import LossFn
from ..problem.one_pass import in_one_pass
from ..problem.options import Options
from ..problem.problem import Problem
from ..tensors.trees import Batch, TensorDict
from .choice import choose
from .contract.summary import Wanted

WHOLE = Options(max_samples=None, micro_batch=sys.maxsize, unit="sample")


def per_sample_gradients(
    model: nn.Module, loss_fn: LossFn | nn.Module, batch: Batch, *, engine: str = "auto"
) -> TensorDict:
    """g_i = ∇ℓ_i of every sample of one batch, in loss/parameter.

    Args:
        model: any `nn.Module`; it is left unchanged.
        loss_fn: `loss_fn(model, batch)` with one loss per sample, or a torch criterion.
        batch: a tensor or any nesting of tuples and mappings of tensors.
        engine: "auto", or by name: "hooks", "functional", "backpack" or "loop".

    Returns:
        name -> (n, *parameter.shape) for every trainable parameter, in its dtype.

    Raises:
        GradNoiseError: see `gradient_moments`.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> batch = (torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1))
        >>> gradients = per_sample_gradients(model, nn.MSELoss(), batch)["weight"]
        >>> (gradients / model.weight).flatten()  # g_i = 2wx_i²
        tensor([2., 8.]...)
    """
    with open_batch(model, loss_fn, batch) as problem:
        chosen = choose(problem.objective, problem.largest_batch(), engine)
        chunks = [c for part in problem.batches() for c in chosen.chunks(part)]
    return {name: torch.cat([c.gradients[name] for c in chunks]) for name in chunks[0].gradients}


def per_sample_sq_norms(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    batch: Batch,
    *,
    engine: str = "auto",
    per_parameter: bool = False,
) -> Tensor | TensorDict:
    """‖g_i‖² of every sample of one batch, accumulated in float64, in loss²/parameter².

    Norms without the gradients: Goodfellow 2015 (arXiv:1510.01799) for linear layers; for all other
    operations see docs/hooks.md.

    Args:
        model, loss_fn, batch, engine: as for `per_sample_gradients`.
        per_parameter: give each parameter's part instead of their sum.

    Returns:
        Shape (n,), or name -> (n,).

    Raises:
        GradNoiseError: see `gradient_moments`.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(model.weight, 0.5)
        >>> per_sample_sq_norms(model, nn.MSELoss(), (torch.eye(2)[:, :1], torch.zeros(2, 1)))
        tensor([1., 0.], dtype=torch.float64)
    """

    def sq_norms(problem: Problem) -> TensorDict:
        chosen = choose(problem.objective, problem.largest_batch(), engine)
        found = [s for part in problem.batches() for s in chosen.summaries(part, Wanted())]
        norms = [summary.sq_norms for summary in found]
        if len(norms) == 1:
            return norms[0]
        return {name: torch.cat([part[name] for part in norms]) for name in norms[0]}

    joined = in_one_pass(sq_norms, model, loss_fn, _one(batch), WHOLE, least=1)
    return joined if per_parameter else torch.stack(list(joined.values())).sum(0)


def open_batch(
    model: nn.Module, loss_fn: LossFn | nn.Module, batch: Batch
) -> AbstractContextManager[Problem]:
    """A problem of one batch, whole, inside of its guard."""
    return Problem.guarded(model, loss_fn, _one(batch), WHOLE, least=1)


def _one(batch: Batch) -> Batch:
    """A list of several tensors is one batch here, and not several."""
    several = isinstance(batch, list) and not holds_samples(batch)
    return tuple(batch) if several else batch
