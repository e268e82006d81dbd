"""One loss per sequence from the losses of its tokens."""

from __future__ import annotations

import functools

from torch import Tensor, nn

from ...tensors.trees import Batch
from .loss_fn import LossFn
from .own_loss import hold
from .token_average import Tokens, average_tokens
from .tokens import Reading


def sequence_loss(reading: Reading, tokens_per_sequence: Tokens) -> LossFn:
    """The loss function of a helper, with the arguments of `gn.causal_lm`."""
    average = average_tokens(reading, tokens_per_sequence)
    return functools.partial(_losses, reading=reading, tokens=average)


def _losses(model: nn.Module, batch: Batch, *, reading: Reading, tokens: float | None) -> Tensor:
    hold(reading, model, batch)
    sums, counts = reading.sums(model, batch)
    return sums / (counts.clamp(min=1) if tokens is None else tokens)
