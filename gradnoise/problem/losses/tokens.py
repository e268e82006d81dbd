"""Losses of tokens, added within each sequence, as the helpers for language models read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import LossError
from ...tensors.trees import Batch
from .call import call
from .loss_fn import listed, what
from .predictions import logits_of

IGNORED = -100
_CURE = (
    "Rename what forward calls otherwise in a module around the model; if the model returns its "
    "loss itself, use gn.model_loss()."
)


@dataclass(frozen=True)
class Reading:
    """How labels are compared with a language model's logits.

    Args:
        name: of the helper.
        shifted: whether the logits at a position are those of the next token.
        to_decoder: whether the model is given the labels, to make its decoder's inputs of them.
    """

    name: str
    shifted: bool = False
    to_decoder: bool = False

    def labels(self, batch: Any) -> Tensor:
        """What every position has to be, shape (n, T), IGNORED where it does not count.

        Raises:
            LossError: the batch does not hold them.
        """
        if not self.shifted:
            return _tensor_of(batch, "labels", self.name, f", with {IGNORED} where none counts")
        ids = _tensor_of(batch, "input_ids", self.name)
        labels = _own_labels(batch, ids) if batch.get("labels") is None else batch["labels"]
        return _shifted(labels)

    def sums(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sums of the losses of each sequence's tokens and the numbers of these, shape (n,).

        Raises:
            LossError: the model returns no logits, or logits of other positions than the labels.
        """
        labels = self.labels(batch)
        given = {key: batch[key] for key in batch if self.to_decoder or key != "labels"}
        got = f"got a mapping whose entries {listed(given)}"
        logits = logits_of(call(model, (), given, got, cure=_CURE))
        if logits.shape[:-1] != labels.shape:
            raise LossError(
                f"{self.name} compares logits with labels position by position; got logits of "
                f"shape {tuple(logits.shape)} and labels of shape {tuple(labels.shape)}. If the "
                f"model computes its loss itself, use gn.model_loss()."
            )
        if self.shifted:
            logits, labels = logits[:, :-1], labels[:, 1:]
        if logits.itemsize < 4:
            logits = logits.float()
        losses = nn.functional.cross_entropy(
            logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
        )
        return losses.sum(1), _counts(labels)

    def counts(self, batch: Batch) -> Tensor:
        """How many tokens of every sequence count, shape (n,)."""
        return _counts(self.labels(batch))


CAUSAL = Reading("causal_lm", shifted=True)
MASKED = Reading("masked_lm")
SEQ2SEQ = Reading("seq2seq_lm", to_decoder=True)
READINGS = (CAUSAL, MASKED, SEQ2SEQ)


def _counts(labels: Tensor) -> Tensor:
    return (labels != IGNORED).sum(1)


def _tensor_of(batch: Any, key: str, name: str, more: str = "") -> Tensor:
    found = batch.get(key) if isinstance(batch, Mapping) else None
    if isinstance(found, Tensor) and found.ndim == 2:
        return found
    got = f"{key}: {what(found)}" if isinstance(batch, Mapping) else what(batch)
    raise LossError(
        f"{name} needs batches that map {key!r} to token ids, shape (n, T){more}; got {got}"
    )


def _shifted(labels: Tensor) -> Tensor:
    """Nothing is compared with the first token."""
    first = labels.new_full((len(labels), 1), IGNORED)
    return torch.cat([first, labels[:, 1:]], dim=1)


def _own_labels(batch: Any, ids: Tensor) -> Tensor:
    """The inputs, where neither they nor those before them are padding."""
    mask = batch.get("attention_mask")
    if mask is None:
        return ids
    if mask.shape != ids.shape:
        raise LossError(
            f"attention_mask must have the shape {tuple(ids.shape)} of input_ids, with 0 at "
            f"padding; got {tuple(mask.shape)}. Give `labels`, with -100 for what does not count."
        )
    real = mask != 0
    counts = real.clone()
    counts[:, 1:] &= real[:, :-1]
    return ids.masked_fill(~counts, IGNORED)
