"""Small language models and their batches."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


class Bigram(nn.Module):
    """Logits that depend on the current token alone."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 7, dtype=torch.float64)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return SimpleNamespace(logits=self.table(input_ids))


IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 1, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


def language_model() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    return GPT2LMHeadModel(config).double().eval()


LENGTHS = (5, 3, 4)
TOKENS = torch.randint(11, (3, 5), generator=torch.Generator().manual_seed(2))
RIGHT = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
PADDED = {"input_ids": TOKENS, "attention_mask": RIGHT}
LABELS = TOKENS.masked_fill(RIGHT == 0, -100)
