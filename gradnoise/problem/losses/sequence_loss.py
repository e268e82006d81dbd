"""One loss per sequence from the losses of its tokens."""

from __future__ import annotations

from torch import Tensor, nn

from ...errors import ArgumentError
from ...tensors.trees import Batch
from .loss_fn import LossFn
from .own_loss import hold
from .token_average import Tokens, average_tokens
from .tokens import Reading


def sequence_loss(reading: Reading, tokens_per_sequence: Tokens, weights: str | None) -> LossFn:
    """The loss function of a helper, with the arguments of `gn.causal_lm`.

    Raises:
        ArgumentError: other `weights`; see `average_tokens`.
    """
    if weights not in (None, "equal"):
        raise ArgumentError(f"`weights` must be None or 'equal'; got {weights!r}")
    average = average_tokens(reading, tokens_per_sequence)
    return SequenceLosses(reading, average, weights == "equal")


class SequenceLosses:
    """Sums over the tokens of each sequence, divided by their number or by the same for all.

    Args:
        reading: how labels are compared with logits.
        average: tokens by which each sum is divided; None for those of the sequence.
        equal: whether every sequence counts the same, not every token.
    """

    def __init__(self, reading: Reading, average: float | None, equal: bool) -> None:
        self._reading, self._average, self._equal = reading, average, equal

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        hold(self._reading, model, batch)
        sums, counts = self._reading.sums(model, batch)
        return sums / (counts.clamp(min=1) if self._average is None else self._average)

    def weights(self, model: nn.Module, batch: Batch) -> Tensor | None:
        """The tokens of every sequence, shape (n,), where each counts the same; else None."""
        return self.labels(model, batch) if self._average is None and not self._equal else None

    def weighted(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Sums of the losses of tokens and their numbers, each (n,), where each counts the same."""
        if self._average is not None or self._equal:
            return None
        hold(self._reading, model, batch)
        return self._reading.sums(model, batch)

    def labels(self, _model: nn.Module, batch: Batch) -> Tensor:
        """How many tokens of every sequence count, shape (n,)."""
        return self._reading.counts(batch)
