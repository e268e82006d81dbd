"""Architectures of `transformers`, small and from configs, held to single samples in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.per_sample.choice import choose
from gradnoise.problem.objective import Objective
from tests import oracles

VOCABULARY, COUNT, LENGTH = 19, 6, 5
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
}
GPT = {"vocab_size": VOCABULARY, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 8}
VISION = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "image_size": 8,
    "patch_size": 4,
}
PAIRED = {
    "vocab_size": VOCABULARY,
    "d_model": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 12,
    "decoder_ffn_dim": 12,
    "max_position_embeddings": 8,
}

GROUPED = {**SIZES, "num_key_value_heads": 1}

LANGUAGE: dict[str, Callable[[], Any]] = {
    "GPT-2": lambda: hf.GPT2Config(**GPT),
    "GPT-NeoX": lambda: hf.GPTNeoXConfig(**SIZES),
    "GPT-J": lambda: hf.GPTJConfig(**GPT, rotary_dim=4),
    "Llama": lambda: hf.LlamaConfig(**GROUPED),
    "Mistral": lambda: hf.MistralConfig(**GROUPED, sliding_window=4),
    "Qwen3": lambda: hf.Qwen3Config(**GROUPED, head_dim=4),
    "Gemma 2": lambda: hf.Gemma2Config(**GROUPED, head_dim=4),
    "Bloom": lambda: hf.BloomConfig(vocab_size=VOCABULARY, hidden_size=8, n_layer=1, n_head=2),
    "Mamba": lambda: hf.MambaConfig(
        vocab_size=VOCABULARY, hidden_size=8, num_hidden_layers=1, state_size=4
    ),
}
TEXT: dict[str, Callable[[], Any]] = {
    "BERT": lambda: hf.BertConfig(**SIZES),
    "RoBERTa": lambda: hf.RobertaConfig(**SIZES),
    "ALBERT": lambda: hf.AlbertConfig(**SIZES, embedding_size=4),
    "ModernBERT": lambda: hf.ModernBertConfig(
        **SIZES, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2
    ),
    "DeBERTa-v2": lambda: hf.DebertaV2Config(
        **SIZES, relative_attention=True, position_buckets=4, pos_att_type=["p2c", "c2p"]
    ),
}
PAIRS: dict[str, Callable[[], Any]] = {
    "T5": lambda: hf.T5Config(
        vocab_size=VOCABULARY, d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2
    ),
    "BART": lambda: hf.BartConfig(**PAIRED),
}
IMAGES: dict[str, Callable[[], Any]] = {
    "ViT": lambda: hf.ViTConfig(**VISION),
    "BEiT": lambda: hf.BeitConfig(**VISION, use_relative_position_bias=True),
    "Swin": lambda: hf.SwinConfig(
        image_size=8, patch_size=2, embed_dim=4, depths=[1, 1], num_heads=[1, 2], window_size=2
    ),
    "ConvNeXt": lambda: hf.ConvNextConfig(
        hidden_sizes=[4, 8], depths=[1, 1], num_stages=2, patch_size=2
    ),
}


def tokens() -> Tensor:
    return torch.randint(3, VOCABULARY, (COUNT, LENGTH))


def mask() -> Tensor:
    lengths = torch.tensor([LENGTH, LENGTH, 3, 2, LENGTH, 4])
    return (torch.arange(LENGTH) < lengths[:, None]).long()


def held_to_single_samples(model: nn.Module, loss_fn: Any, batch: Any) -> None:
    """By the hooks engine, whose norms must be those of one backward pass per sample."""
    model = model.double().eval()
    objective = Objective(model, loss_fn)
    with objective.guard():
        chosen = choose(objective, batch)
    assert chosen.name == "hooks", chosen.reason
    truth = oracles.dense(model, loss_fn, batch, second=False).gradients.square().sum(1)
    norms = gn.per_sample_sq_norms(model, loss_fn, batch)
    torch.testing.assert_close(norms, truth, rtol=1e-7, atol=0)  # some parts compute in float32


def classified(model: nn.Module, batch: Any) -> Tensor:
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    return F.cross_entropy(model(**inputs).logits, batch["labels"], reduction="none")


@pytest.mark.parametrize("name", LANGUAGE)
def test_language_models(name: str) -> None:
    model = hf.AutoModelForCausalLM.from_config(LANGUAGE[name]())
    batch = {"input_ids": tokens(), "attention_mask": mask()}
    held_to_single_samples(model, gn.causal_lm(weights="equal"), batch)


@pytest.mark.parametrize("name", TEXT)
def test_text_encoders(name: str) -> None:
    model = hf.AutoModelForSequenceClassification.from_config(TEXT[name]())
    labels = torch.randint(2, (COUNT,))
    batch = {"input_ids": tokens(), "attention_mask": mask(), "labels": labels}
    held_to_single_samples(model, classified, batch)


@pytest.mark.parametrize("name", PAIRS)
def test_encoders_with_decoders(name: str) -> None:
    model = hf.AutoModelForSeq2SeqLM.from_config(PAIRS[name]())

    def loss(model: nn.Module, batch: Any) -> Tensor:
        logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
        return F.cross_entropy(logits.transpose(1, 2), batch["labels"], reduction="none").mean(1)

    batch = {"input_ids": tokens(), "attention_mask": mask(), "decoder_input_ids": tokens()}
    held_to_single_samples(model, loss, {**batch, "labels": tokens()})


@pytest.mark.parametrize("name", IMAGES)
def test_image_models(name: str) -> None:
    model = hf.AutoModelForImageClassification.from_config(IMAGES[name]())
    images = torch.randn(COUNT, 3, 8, 8, dtype=torch.float64)
    batch = {"pixel_values": images, "labels": torch.randint(2, (COUNT,))}
    held_to_single_samples(model, classified, batch)


def test_whisper() -> None:
    sizes = {**PAIRED, "num_mel_bins": 4, "max_source_positions": 5, "max_target_positions": 8}
    sizes.pop("max_position_embeddings")
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    model = hf.WhisperModel(hf.WhisperConfig(**sizes, **special))

    def loss(model: nn.Module, batch: Any) -> Tensor:
        states = model(input_features=batch[0], decoder_input_ids=batch[1]).last_hidden_state
        return states.tanh().square().flatten(1).mean(1)

    sound = torch.randn(COUNT, 4, 10, dtype=torch.float64)
    held_to_single_samples(model, loss, (sound, tokens()))
