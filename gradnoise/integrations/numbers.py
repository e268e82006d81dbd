"""Numbers of batches and of monitors, as frameworks need them."""

from __future__ import annotations

import math
from typing import Any

from ..tensors.trees import sample_leaves


def size_of(batch: Any) -> int | None:
    """The samples in a batch: the leading dimension of its first tensor; None without one."""
    return next((len(leaf) for leaf in sample_leaves(batch) if leaf.ndim), None)


def finite(values: dict[str, float]) -> dict[str, float]:
    """Without nan and inf, which not every logger can write."""
    return {key: value for key, value in values.items() if math.isfinite(value)}
