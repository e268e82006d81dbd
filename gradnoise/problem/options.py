"""The options that all measuring calls have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..errors import ArgumentError, check_whole
from ..ranks.ranks import ALONE, ranks_of
from ..statistics.estimate import check_level
from .preconditioner import check_metric, is_adaptive
from .samples import MICRO_BATCH
from .state.wrappers import bare_optimizer
from .unit import check_unit

AUTO, MODEL, LAYERS = GATHERS = "auto", "model", "layers"  # of a sharded model, at a time


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options that every measuring call has; they check themselves, on all ranks together.

    Args: as for `gn.gradient_moments`.

    Raises:
        ArgumentError: an option out of range.
    """

    optimizer: torch.optim.Optimizer | None = None
    metric: str = "auto"
    engine: str = "auto"
    population: str | int = "dataset"
    max_samples: int | None = 4096
    level: float = 0.95
    seed: int = 0
    micro_batch: int = MICRO_BATCH
    unit: str = "auto"
    group_size: int | None = None
    process_group: Any = None
    gather: str = MODEL

    def __post_init__(self) -> None:
        ranks = ranks_of(self.process_group)
        if ranks is not ALONE:  # which does not keep the group
            object.__setattr__(self, "process_group", ranks)
        with ranks.together():
            self._check()

    def _check(self) -> None:
        check_unit(self.unit, self.group_size)
        object.__setattr__(self, "optimizer", bare_optimizer(self.optimizer))
        check_level(self.level)
        check_whole("seed", self.seed, 0)
        check_metric(self.metric, self.optimizer)
        if self.gather not in GATHERS:
            raise ArgumentError(
                f"`gather` must be one of {', '.join(GATHERS)}; got {self.gather!r}"
            )

    @property
    def own_metric(self) -> bool:
        """Whether to measure in the metric of the optimizer, with what its state holds."""
        return self.metric == "optimizer" or (self.metric == "auto" and is_adaptive(self.optimizer))
