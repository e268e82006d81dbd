"""Per-sequence losses of a masked language model."""

from __future__ import annotations

from .loss_fn import LossFn
from .sequence_loss import sequence_loss
from .token_average import Tokens
from .tokens import MASKED


def masked_lm(*, tokens_per_sequence: Tokens = None, weights: str | None = None) -> LossFn:
    """Per-sequence losses of a Hugging Face masked language model, such as BERT.

    ℓ_i = (1/c_i) Σ_t -log p(y_t | x) over the tokens t of sequence i that count: labels and logits
    at the same positions, nothing is shifted. c_i and weights as in `gn.causal_lm`.

    Batches are mappings with what the model takes and `labels`, shape (n, T), with -100 for all
    tokens that were not masked; `transformers.DataCollatorForLanguageModeling` makes them. The mask
    is drawn with the data: a collator that draws it anew for each batch gives each measurement its
    own.

    On the first batch with a model, four sequences hold these losses to the model's own, as in
    `gn.causal_lm`. They suit models that label tokens too.

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
        ...     def forward(self, input_ids):
        ...         return torch.zeros(*input_ids.shape, 2)  # two words, equally likely
        >>> labels = torch.tensor([[0, 1, 1, -100], [0, -100, -100, -100]])
        >>> batch = {"input_ids": torch.zeros(2, 4), "labels": labels}
        >>> masked_lm()(Coin(), batch)  # log 2
        tensor([0.6931, 0.6931])
        >>> masked_lm(tokens_per_sequence=batch)(Coin(), batch)  # 3 and 1 tokens, 2 on average
        tensor([1.0397, 0.3466])
    """
    return sequence_loss(MASKED, tokens_per_sequence, weights)
