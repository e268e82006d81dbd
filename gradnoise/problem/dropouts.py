"""Whether all that a model draws is dropout, with numbers of its own for every sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..tensors.trees import sample_count
from .objective import Objective
from .state.generators import random_states, seed_all
from .unit import Seeded

ATTENTION = F.scaled_dot_product_attention
OTHER = 7919  # seed of what is drawn anew
DROPOUTS = {
    *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout),
    *(torch.dropout, torch.dropout_, torch.alpha_dropout, torch.feature_dropout, ATTENTION),
}


def is_dropout_alone(objective: Objective, batch: Seeded) -> bool:
    """Whether all that is drawn is dropout, and no sample's draws reach the loss of another.

    Nothing but dropout of tensors with a row for every sample may draw. Then half of the rows of
    every dropout are drawn anew, and the losses of the other half have to stay.
    """
    if objective.unit.is_group or sample_count(batch) < 2 or objective.generators:
        return False
    try:
        return _draws_by_row(objective, batch)
    except Exception:  # the user's code, with what it does not expect
        return False


def _draws_by_row(objective: Objective, batch: Seeded) -> bool:
    seed_all(int(batch.seeds[0]), ())
    watch = _Watch(sample_count(batch))
    with watch:
        losses = objective.losses(batch).detach()
    watch.look()
    if not watch.is_by_row or not bool(losses.isfinite().all()):
        return False
    first = torch.arange(len(losses), device=losses.device) < len(losses) // 2
    for redrawn in (first, ~first):
        with _Redrawn(redrawn):
            others = objective.losses(batch).detach()
        if not torch.equal(others[~redrawn], losses[~redrawn]):
            return False
    return True


class _Watch(TorchFunctionMode):
    """Compares the random state around every dropout with that after the one before."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.is_by_row, self._count, self._state = True, count, random_states()

    def look(self) -> None:
        """Nothing else has drawn since the last dropout."""
        self.is_by_row = self.is_by_row and random_states() == self._state

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in DROPOUTS or not self.is_by_row:
            return func(*args, **kwargs)
        self.look()
        result, state = func(*args, **kwargs), random_states()
        if state != self._state:
            rows = args[0] if args else next(iter(kwargs.values()))
            by_row = isinstance(rows, Tensor) and rows.ndim > 0 and len(rows) == self._count
            in_place = func is torch.dropout_ or result is rows
            self.is_by_row = self.is_by_row and by_row and not in_place
            self._state = state
        return result


class _Redrawn(TorchFunctionMode):
    """Draws some rows of every dropout anew; what is drawn later stays as it was."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self._rows = rows

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func not in DROPOUTS:
            return result
        with torch.random.fork_rng([result.device] if result.is_cuda else []):
            torch.manual_seed(OTHER)
            other = func(*args, **(kwargs or {}))
        return torch.where(self._rows.view(-1, *[1] * (result.ndim - 1)), other, result)


class WithoutDropout(TorchFunctionMode):
    """Leaves dropout out: losses are then not random where nothing else draws."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is ATTENTION:
            args, kwargs = args[:4] + (0.0,) * (len(args) > 4) + args[5:], kwargs
            if "dropout_p" in kwargs:
                kwargs["dropout_p"] = 0.0
        elif func in DROPOUTS:
            return args[0] if args else kwargs["input"]
        return func(*args, **kwargs)
