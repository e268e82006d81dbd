"""How many labels a sample has: the tokens or pixels that count in its loss."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..tensors.trees import Batch, map_samples
from .objective import as_loss_fn
from .problem import Problem
from .unit import Seeded


def labels_per_sample(problem: Problem) -> float | None:
    """The labels that count (tokens, pixels), on average over the samples.

    None where every sample has one, and where the loss function does not tell.
    """
    loss_fn, model = as_loss_fn(problem.objective.criterion), problem.objective.model
    found: list[Tensor] = []
    for batch in problem.batches():
        for own in _as_given(batch, problem.unit.is_group):
            labels = loss_fn.labels(model, own)
            if labels is not None:
                found.append(labels.detach().reshape(-1).double().cpu())
    own = torch.cat([torch.zeros(0).double(), *found])
    counts = torch.cat(problem.objective.ranks.gathered(own, "numbers of labels"))
    return None if not len(counts) or bool((counts == 1).all()) else float(counts.mean())


def _as_given(batch: Batch, is_group: bool) -> Iterator[Any]:
    """The samples of a micro-batch, or of one of its groups after the other."""
    if not isinstance(batch, Seeded):
        yield batch
    elif not is_group:
        yield batch.batch
    else:
        for index in range(len(batch.seeds)):
            yield map_samples(operator.itemgetter(index), batch.batch)
