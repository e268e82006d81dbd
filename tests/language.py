"""Small language models and their batches."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


class Bigram(nn.Module):
    """Logits that depend on the current token alone."""

    def __init__(self, words: int = 7) -> None:
        super().__init__()
        self.table = nn.Embedding(words, words, dtype=torch.float64)

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


SIZES = {
    "vocab_size": 11,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 8,
}


def masked_model(**options: Any) -> nn.Module:
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(BertConfig(**SIZES, **options))


def llama(**options: Any) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SIZES, **options))


def experts() -> nn.Module:
    """Its own loss has an auxiliary one."""
    from transformers import MixtralConfig, MixtralForCausalLM

    options = {"num_key_value_heads": 2, "num_local_experts": 2, "output_router_logits": True}
    return MixtralForCausalLM(MixtralConfig(**SIZES, **options))


def bart() -> nn.Module:
    from transformers import BartConfig, BartForConditionalGeneration

    parts = {"layers": 1, "attention_heads": 2, "ffn_dim": 12}
    both = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in parts.items()}
    config = BartConfig(vocab_size=11, d_model=8, max_position_embeddings=8, **both)
    return BartForConditionalGeneration(config)


def t5() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=11, d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2)
    config.decoder_start_token_id = 0
    return T5ForConditionalGeneration(config)


MASKED_LABELS = torch.tensor(  # some tokens were masked
    [[-100, 4, -100, 2, -100], [3, -100, -100, -100, -100], [-100, -100, 9, 1, -100]]
)
TARGET = torch.tensor([[3, 4, 5, 6], [7, 8, -100, -100], [9, -100, -100, -100]])  # for a decoder
