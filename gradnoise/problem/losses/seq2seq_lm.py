"""Per-sequence losses of an encoder with a decoder."""

from __future__ import annotations

from .loss_fn import LossFn
from .sequence_loss import sequence_loss
from .token_average import Tokens
from .tokens import SEQ2SEQ


def seq2seq_lm(*, tokens_per_sequence: Tokens = None, weights: str | None = None) -> LossFn:
    """Per-sequence losses of a Hugging Face model with encoder and decoder, such as T5 or BART.

    ℓ_i = (1/c_i) Σ_t -log p(y_t | y_<t, x) over the labels t of sequence i that count. The model is
    given the labels, of which it makes the inputs of its decoder. c_i and weights are those of
    `gn.causal_lm`.

    Batches are mappings with what the model takes and `labels`, shape (n, T), with -100 at padding;
    `transformers.DataCollatorForSeq2Seq` makes them.

    On the first batch with a model, four sequences hold these losses to the model's own, as in
    `gn.causal_lm`.

    Args:
        tokens_per_sequence, weights: as in `gn.causal_lm`.

    Returns:
        `loss_fn(model, batch)` with one loss per sequence, shape (n,); a sequence without any
        token that counts has loss 0.

    Raises:
        ArgumentError: as in `gn.causal_lm`.
        LossError: a batch is no mapping with `labels` of shape (n, T); logits of other positions;
            the model's own loss is another one.

    Example:
        >>> import torch
        >>> class Coin(torch.nn.Module):
        ...     def forward(self, input_ids, labels):
        ...         return torch.zeros(*labels.shape, 2)  # two words, equally likely
        >>> labels = torch.tensor([[0, 1, 1], [0, -100, -100]])
        >>> batch = {"input_ids": torch.zeros(2, 4), "labels": labels}
        >>> seq2seq_lm()(Coin(), batch)  # log 2
        tensor([0.6931, 0.6931])
        >>> seq2seq_lm(tokens_per_sequence=batch)(Coin(), batch)  # 3 and 1 tokens, 2 on average
        tensor([1.0397, 0.3466])
    """
    return sequence_loss(SEQ2SEQ, tokens_per_sequence, weights)
