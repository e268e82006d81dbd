"""The average number of tokens that count per sequence, given or counted in the data."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from ...errors import ArgumentError
from ..state.guard import untouched
from .tokens import Reading

Tokens = float | Mapping[str, Any] | Iterable[Mapping[str, Any]] | None


def average_tokens(reading: Reading, given: Tokens) -> float | None:
    """`tokens_per_sequence` as a number; None where each sequence has its own.

    Raises:
        ArgumentError: it is not positive, cannot be read twice, or holds no token that counts.
    """
    if given is None:
        return None
    real = isinstance(given, numbers.Real) and not isinstance(given, bool)
    average = float(given) if real else _count(reading, given)  # type: ignore[arg-type]
    if not 0 < average < math.inf:
        raise ArgumentError(
            f"`tokens_per_sequence` must be a positive number, or data with tokens that count; "
            f"got {average}"
        )
    return average


def _count(reading: Reading, data: Any) -> float:
    """Tokens that count per sequence; the data's random states are as found afterwards."""
    batches = [data] if isinstance(data, Mapping) else data
    if isinstance(batches, Iterator) or not isinstance(batches, Iterable):
        raise ArgumentError(
            f"`tokens_per_sequence` must be a number, a DataLoader, a list of batches or one "
            f"batch; got {type(data).__name__}"
        )
    tokens = sequences = 0
    with untouched(nn.Identity(), data):
        for batch in batches:
            counts = reading.counts(batch)
            tokens += int(counts.sum())
            sequences += len(counts)
    return tokens / max(sequences, 1)
