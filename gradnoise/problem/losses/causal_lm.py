"""Per-sequence losses of a causal language model."""

from __future__ import annotations

from .loss_fn import LossFn
from .sequence_loss import sequence_loss
from .token_average import Tokens
from .tokens import CAUSAL


def causal_lm(*, tokens_per_sequence: Tokens = None, weights: str | None = None) -> LossFn:
    """Per-sequence losses of a Hugging Face causal language model.

    ℓ_i = (1/c_i) Σ_t -log p(y_t | y_<t) over the tokens t of sequence i that count, labels shifted
    by one; c_i is their number. Sequences are weighted by c_i, so that L = Σc_iℓ_i/Σc_i is the mean
    over all tokens that count: the loss that these models are trained on.

    With `tokens_per_sequence` every sum over a sequence is divided by this one number instead, and
    sequences weigh the same. With the average number of tokens the value of L is the same. The
    noise is that of training which divides by a fixed number, and not by the tokens of its batch.

    Batches are mappings with `input_ids`, shape (n, T), and optionally `attention_mask` and
    `labels`. Labels of -100 do not count, whatever the mask says. Without labels the inputs serve,
    and a token counts when neither it nor the one before it is padding, on whichever side that is;
    padded left, models that count positions need `position_ids` too.

    On the first batch with a model, four sequences hold these losses to the model's own: their mean
    over tokens has to be the `loss` that the model returns with the labels, if it returns one.

    Args:
        tokens_per_sequence: None, a number, or the data in which to count it, once: a DataLoader, a
            list of batches or one batch.
        weights: None: every token counts the same; "equal": every sequence does.

    Returns:
        `loss_fn(model, batch)` with one loss per sequence, shape (n,); a sequence without any
        token that counts has loss 0.

    Raises:
        ArgumentError: `tokens_per_sequence` is not positive, cannot be read twice, or holds no
            token that counts; other `weights`.
        LossError: a batch is no mapping with `input_ids` of shape (n, T); a mask of another shape
            without labels; the model's own loss is another one (`gn.masked_lm`, `gn.seq2seq_lm`, or
            with other terms: `gn.model_loss`).

    Example:
        >>> import torch
        >>> class Coin(torch.nn.Module):
        ...     def forward(self, input_ids):
        ...         return torch.zeros(*input_ids.shape, 2)  # two words, equally likely
        >>> labels = torch.tensor([[0, 1, 1, 0], [0, 1, -100, -100]])
        >>> batch = {"input_ids": torch.zeros(2, 4), "labels": labels}
        >>> causal_lm()(Coin(), batch)  # log 2
        tensor([0.6931, 0.6931])
        >>> causal_lm(tokens_per_sequence=batch)(Coin(), batch)  # 3 and 1 tokens, 2 on average
        tensor([1.0397, 0.3466])
    """
    return sequence_loss(CAUSAL, tokens_per_sequence, weights)
