"""Whether all that a model draws is dropout, with numbers of its own for every sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..tensors.trees import sample_count, select
from .objective import Objective
from .state.generators import random_states, seed_all
from .unit import Seeded

ATTENTION = F.scaled_dot_product_attention
DROPOUTS = {
    *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout),
    *(torch.dropout, torch.dropout_, torch.alpha_dropout, torch.feature_dropout, ATTENTION),
}


def is_dropout_alone(objective: Objective, batch: Seeded) -> bool:
    """Whether nothing but dropout of tensors with a row for every sample draws random numbers.

    Then samples share none. Two numbers of samples are looked at: a tensor that has as many rows by
    chance, such as a weight, has them for both.
    """
    count = sample_count(batch)
    if objective.unit.is_group or count < 3 or objective.generators:
        return False
    return all(_draws_by_row(objective, select(batch, slice(0, n))) for n in (count, count - 1))


def _draws_by_row(objective: Objective, batch: Seeded) -> bool:
    seed_all(int(batch.seeds[0]), ())
    watch = _Watch(sample_count(batch))
    with watch:
        objective.losses(batch)
    watch.look()
    return watch.is_by_row


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
            self.is_by_row, self._state = self.is_by_row and by_row, state
        return result


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
