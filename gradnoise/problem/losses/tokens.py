"""Losses of tokens, added within each sequence."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ArgumentError, LossError
from ...tensors.trees import Batch
from ..state.guard import untouched
from .loss_fn import what
from .predictions import logits_of

IGNORED = -100


def average_tokens(given: Any) -> float:
    real = isinstance(given, numbers.Real) and not isinstance(given, bool)
    average = float(given) if real else _count_tokens(given)
    if not 0 < average < math.inf:
        raise ArgumentError(
            f"`tokens_per_sequence` must be a positive number, or data with tokens that count; "
            f"got {average}"
        )
    return average


def _count_tokens(data: Any) -> float:
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
            labels = _labels(batch)
            tokens += int((labels != IGNORED).sum())
            sequences += len(labels)
    return tokens / max(sequences, 1)


def sequence_losses(model: nn.Module, batch: Batch, tokens: float | None = None) -> Tensor:
    labels = _labels(batch)
    logits = logits_of(model(**{key: batch[key] for key in batch if key != "labels"}))
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    losses = nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
    )
    counted = (labels != IGNORED).sum(1).clamp(min=1) if tokens is None else tokens
    return losses.sum(1) / counted


def _labels(batch: Any) -> Tensor:
    """What positions 1 to T - 1 have to be, shape (n, T - 1), IGNORED where it does not count."""
    ids = batch.get("input_ids") if isinstance(batch, Mapping) else None
    if not isinstance(ids, Tensor) or ids.ndim != 2:
        got = f"input_ids: {what(ids)}" if isinstance(batch, Mapping) else what(batch)
        raise LossError(
            f"causal_lm needs batches that map 'input_ids' to token ids, shape (n, T); got {got}"
        )
    labels, mask = batch.get("labels"), batch.get("attention_mask")
    if labels is not None or mask is None:
        given: Tensor = ids if labels is None else labels
        return given[:, 1:]
    if mask.shape != ids.shape:
        raise LossError(
            f"attention_mask must have the shape {tuple(ids.shape)} of input_ids, with 0 at "
            f"padding; got {tuple(mask.shape)}. Give `labels`, with -100 for what does not count."
        )
    real = mask != 0
    return ids[:, 1:].masked_fill(~(real[:, 1:] & real[:, :-1]), IGNORED)
