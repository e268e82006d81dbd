"""transformers: language, vision, speech and time series, in train mode with default dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn

from ..case import COUNT, Case, loader

WORDS, LENGTH = 23, 12
FEW = 12
LAYER = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
SIZES = {**LAYER, "vocab_size": WORDS, "max_position_embeddings": 32}
GROUPED = {**SIZES, "num_key_value_heads": 1}
EXPERTS = {**GROUPED, "num_experts_per_tok": 2}
GPT = {"vocab_size": WORDS, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
VISION = {**LAYER, "image_size": 16, "patch_size": 4}
DROPS = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
PAIRED = {
    "vocab_size": WORDS,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 32,
}
COUPLED = {"unit": "group"}
SINGLE = {"dtype": torch.float32, "rtol": 1e-4}  # grouped products of experts have no float64


def inputs_of(batch: Any) -> dict[str, Tensor]:
    return {name: item for name, item in batch.items() if name != "labels"}


def own_loss(model: nn.Module, batch: Any) -> Tensor:
    """What the model returns as its loss."""
    return model(**batch).loss  # type: ignore[no-any-return]


def next_tokens(model: nn.Module, batch: Any) -> Tensor:
    """Of the tokens that follow, averaged within a sequence."""
    ids, mask = batch["input_ids"], batch.get("attention_mask")
    logits = model(**inputs_of(batch)).logits[:, :-1]
    losses = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    if mask is None:
        return losses.mean(1)
    counts = (mask[:, 1:] * mask[:, :-1]).to(losses)
    return (losses * counts).sum(1) / counts.sum(1)


def own_labels(model: nn.Module, batch: Any) -> Tensor:
    """Of the tokens with a label, averaged within a sequence."""
    return _of_labels(model(**inputs_of(batch)).logits, batch["labels"])


def own_labels_of_decoder(model: nn.Module, batch: Any) -> Tensor:
    """The same of a model that makes its decoder's inputs from the labels."""
    return _of_labels(model(**batch).logits, batch["labels"])


def _of_labels(logits: Tensor, labels: Tensor) -> Tensor:
    losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=-100)
    return losses.sum(1) / (labels != -100).sum(1)


def classified(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(**inputs_of(batch)).logits, batch["labels"], reduction="none")


def ids(source: torch.Generator, length: int = LENGTH, count: int = FEW) -> Tensor:
    return torch.randint(3, WORDS, (count, length), generator=source)


def text(source: torch.Generator) -> Any:
    return loader(input_ids=ids(source))


def padded(source: torch.Generator) -> Any:
    tokens = ids(source)
    lengths = torch.randint(4, LENGTH + 1, (FEW, 1), generator=source)
    return loader(input_ids=tokens, attention_mask=(torch.arange(LENGTH) < lengths).long())


def masked(source: torch.Generator) -> Any:
    tokens = ids(source)
    hidden = torch.rand(FEW, LENGTH, generator=source) < 0.3
    hidden[:, 1] = True
    return loader(
        input_ids=tokens.masked_fill(hidden, 2),
        attention_mask=torch.ones_like(tokens),
        labels=tokens.masked_fill(~hidden, -100),
    )


def pairs(source: torch.Generator) -> Any:
    labels = ids(source, 8)
    labels[::3, 5:] = -100
    return loader(input_ids=ids(source), labels=labels)


def labelled(source: torch.Generator) -> Any:
    y = torch.randint(3, (FEW,), generator=source)
    tokens = ids(source)
    return loader(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=y)


def pictures(source: torch.Generator) -> Any:
    x = torch.randn(FEW, 3, 16, 16, generator=source, dtype=torch.float64)
    return loader(pixel_values=x, labels=torch.randint(3, (FEW,), generator=source))


def unlabelled(source: torch.Generator) -> Any:
    return loader(pixel_values=torch.randn(FEW, 3, 16, 16, generator=source, dtype=torch.float64))


def trained(
    kind: Any, sizes: dict[str, Any], dtype: torch.dtype = torch.float64
) -> Callable[[], nn.Module]:
    """What builds a small model of this class, in the mode in which it trains."""
    return lambda: kind(kind.config_class(**sizes)).to(dtype).train()


def _causal(name: str, kind: Any, sizes: dict[str, Any], **more: Any) -> Case:
    data = more.pop("data", text)
    build = trained(kind, sizes, more.pop("dtype", torch.float64))
    return Case(name, build, gn.causal_lm(weights="equal"), next_tokens, data, **more)


def _own(name: str, kind: Any, sizes: dict[str, Any], data: Any, **more: Any) -> Case:
    return Case(name, trained(kind, sizes), gn.model_loss(), own_loss, data, **COUPLED, **more)


def with_labels(source: torch.Generator) -> Any:
    tokens = ids(source)
    return loader(input_ids=tokens, labels=tokens)


SMALL = {"vocab_size": WORDS, "hidden_size": 16}
OPT = {**SIZES, "ffn_dim": 24, "word_embed_proj_dim": 16}
MAMBA = {**SMALL, "num_hidden_layers": 1, "state_size": 4}
MAMBA_2 = {**MAMBA, "num_heads": 4, "head_dim": 8, "n_groups": 1, "chunk_size": 8}
FOUR = {**EXPERTS, "num_local_experts": 4}
BATCHED = {**FOUR, "experts_implementation": "batched_mm"}  # takes float64
CAUSAL = [
    _causal("GPT-2", hf.GPT2LMHeadModel, GPT, data=padded, random=True),
    _causal("GPT-NeoX", hf.GPTNeoXForCausalLM, SIZES),
    _causal("OPT", hf.OPTForCausalLM, OPT, random=True),
    _causal("Llama", hf.LlamaForCausalLM, GROUPED),
    _causal("Mistral, sliding window", hf.MistralForCausalLM, {**GROUPED, "sliding_window": 4}),
    _causal("Qwen3", hf.Qwen3ForCausalLM, {**GROUPED, "head_dim": 8}),
    _causal("Gemma 3", hf.Gemma3ForCausalLM, {**GROUPED, "head_dim": 8, "sliding_window": 4}),
    _causal(
        "Bloom",
        hf.BloomForCausalLM,
        {**SMALL, "n_layer": 1, "n_head": 2, "hidden_dropout": 0.1},
        random=True,
    ),
    _causal("Mamba", hf.MambaForCausalLM, MAMBA, **SINGLE),
    _causal("Mamba-2", hf.Mamba2ForCausalLM, MAMBA_2, **SINGLE),
    _causal("Mixtral, experts as by default", hf.MixtralForCausalLM, FOUR, **SINGLE),
    _causal(
        "Qwen3-MoE, experts as by default",
        hf.Qwen3MoeForCausalLM,
        {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8},
        **SINGLE,
    ),
    _own(
        "Mixtral with its auxiliary loss",
        hf.MixtralForCausalLM,
        {**BATCHED, "output_router_logits": True},
        with_labels,
    ),
    _causal("GPT-OSS", hf.GptOssForCausalLM, {**BATCHED, "head_dim": 8}),
]


def _masked(name: str, kind: Any, sizes: dict[str, Any]) -> Case:
    return Case(
        name, trained(kind, sizes), gn.masked_lm(weights="equal"), own_labels, masked, random=True
    )


def _seq2seq(name: str, kind: Any, sizes: dict[str, Any], data: Any = None, **more: Any) -> Case:
    build, own = trained(kind, sizes), own_labels_of_decoder
    return Case(
        name, build, gn.seq2seq_lm(weights="equal"), own, data or pairs, random=True, **more
    )


def _classes(name: str, kind: Any, sizes: dict[str, Any], data: Any, **more: Any) -> Case:
    build = trained(kind, {**sizes, "num_labels": 3})
    return Case(name, build, nn.CrossEntropyLoss(), classified, data, **more)


DISTILBERT = {"dim": 16, "hidden_dim": 24, "n_layers": 1, "n_heads": 2}
DEBERTA = {"relative_attention": True, "position_buckets": 4, "pos_att_type": ["p2c", "c2p"]}
T5 = {"vocab_size": WORDS, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
T5_START = {**T5, "decoder_start_token_id": 0}
TEXT = [
    _masked("BERT", hf.BertForMaskedLM, SIZES),
    _masked("RoBERTa", hf.RobertaForMaskedLM, SIZES),
    _masked("DistilBERT", hf.DistilBertForMaskedLM, {**SIZES, **DISTILBERT}),
    _classes(
        "ALBERT, classification",
        hf.AlbertForSequenceClassification,
        {**SIZES, **DROPS, "embedding_size": 8},
        labelled,
        random=True,
    ),
    _classes(
        "DeBERTa-v2, classification",
        hf.DebertaV2ForSequenceClassification,
        {**SIZES, **DEBERTA},
        labelled,
        random=True,
    ),
    _seq2seq("T5", hf.T5ForConditionalGeneration, T5_START, rtol=1e-6),
    _seq2seq("BART", hf.BartForConditionalGeneration, PAIRED),
    _own(
        "T5, its own loss",
        hf.T5ForConditionalGeneration,
        T5_START,
        pairs,
        random=True,
        rtol=1e-6,
    ),
]


def captioned(source: torch.Generator) -> Any:
    x = torch.randn(COUNT, 3, 16, 16, generator=source, dtype=torch.float64)
    tokens = ids(source, 8, COUNT)
    tokens[:, -1] = WORDS - 1  # the end, where CLIP reads the text
    return loader(input_ids=tokens, pixel_values=x)


def contrastive(model: nn.Module, batch: Any) -> Tensor:
    """CLIP's loss over the pairs of a batch, written out."""
    out = model(**batch)
    logits = out.logits_per_text
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def clip() -> nn.Module:
    words = {**SIZES, "eos_token_id": WORDS - 1, "bos_token_id": 0, "pad_token_id": 1}
    config = hf.CLIPConfig(text_config=words, vision_config=VISION, projection_dim=8)
    return hf.CLIPModel(config).double().train()


STAGES = {"patch_size": 2, "depths": [1, 1]}
SWIN = {**STAGES, "image_size": 16, "embed_dim": 8, "num_heads": [1, 2], "window_size": 2}
CONVNEXT = {**STAGES, "hidden_sizes": [4, 8], "num_stages": 2, "drop_path_rate": 0.1}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
MAE = {**VISION, **{f"decoder_{name}": size for name, size in LAYER.items()}}
IMAGES = [
    _classes("ViT", hf.ViTForImageClassification, {**VISION, **DROPS}, pictures, random=True),
    _classes(
        "BEiT",
        hf.BeitForImageClassification,
        {**VISION, **DROPS, "use_relative_position_bias": True},
        pictures,
        random=True,
    ),
    _classes("Swin", hf.SwinForImageClassification, SWIN, pictures, random=True),
    _classes("ConvNeXt", hf.ConvNextForImageClassification, CONVNEXT, pictures, random=True),
    _classes("ResNet", hf.ResNetForImageClassification, RESNET, pictures, **COUPLED),
    _own("ViT-MAE, random masks", hf.ViTMAEForPreTraining, MAE, unlabelled, random=True),
    Case(
        "CLIP", clip, lambda m, b: m(**b, return_loss=True).loss, contrastive, captioned, **COUPLED
    ),
]


def speech(source: torch.Generator) -> Any:
    """Waves and transcripts of three to five letters."""
    wave = torch.randn(FEW, 320, generator=source)
    labels = torch.randint(1, 8, (FEW, 5), generator=source)
    labels[::2, 3:] = -100
    return loader(input_values=wave, labels=labels)


def spoken(model: nn.Module, batch: Any) -> Tensor:
    """CTC of each transcript, averaged as the model does it."""
    logits = model(input_values=batch["input_values"]).logits
    labels = batch["labels"]
    counts = (labels >= 0).sum(1)
    frames = torch.full((len(labels),), logits.shape[1])
    return F.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1), labels[labels >= 0], frames, counts, reduction="sum"
    )


WAV2VEC2 = {
    **LAYER, "vocab_size": 8, "conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 4),
    "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2, "ctc_loss_reduction": "sum", "mask_time_prob": 0.0,
    "layerdrop": 0.0,
}  # fmt: skip


def sounds(source: torch.Generator) -> Any:
    x = torch.randn(FEW, 8, 16, generator=source, dtype=torch.float64)
    return loader(input_features=x, labels=ids(source, 6))


WHISPER = {
    **{k: v for k, v in PAIRED.items() if k != "max_position_embeddings"}, "num_mel_bins": 8,
    "max_source_positions": 8, "max_target_positions": 16, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 1, "suppress_tokens": [],
    "begin_suppress_tokens": [], "dropout": 0.1,
}  # fmt: skip


def series(source: torch.Generator) -> Any:
    x = torch.randn(FEW, 16, 2, generator=source, dtype=torch.float64).cumsum(1)
    return loader(past_values=x, future_values=x[:, -4:] + 1)


PATCHTST = {
    "num_input_channels": 2, "context_length": 16, "patch_length": 4, "patch_stride": 4,
    "prediction_length": 4, "d_model": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "ffn_dim": 24, "loss": "mse", "norm_type": "batchnorm", "attention_dropout": 0.1,
}  # fmt: skip
SOUND_AND_TIME = [
    Case(
        "Wav2Vec2, CTC",
        trained(hf.Wav2Vec2ForCTC, WAV2VEC2, torch.float32),
        gn.model_loss(),
        spoken,
        speech,
        random=True,
        twice=False,  # ctc_loss
        rtol=1e-4,
        **COUPLED,
    ),
    _seq2seq("Whisper", hf.WhisperForConditionalGeneration, WHISPER, sounds),
    _own("PatchTST, forecasts", hf.PatchTSTForPrediction, PATCHTST, series, random=True),
]

CASES = [*CAUSAL, *TEXT, *IMAGES, *SOUND_AND_TIME]
