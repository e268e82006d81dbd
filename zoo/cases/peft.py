"""peft: adapters over frozen models, with their dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import peft
import torch
import transformers as hf
from torch import nn

import gradnoise as gn

from ..case import Case
from .transformers import GPT, GROUPED, next_tokens, text

LINEAR = ["q_proj", "v_proj"]


def _adapted(config: Callable[[], Any], *, of_gpt: bool = False) -> Callable[[], nn.Module]:
    """A language model with adapters that have trained a little: they start at zero."""

    def build() -> nn.Module:
        base: Any = (
            hf.GPT2LMHeadModel(hf.GPT2Config(**GPT))
            if of_gpt
            else hf.LlamaForCausalLM(hf.LlamaConfig(**GROUPED))
        )
        model = peft.get_peft_model(base.double(), config()).double().train()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.05 * torch.randn_like(parameter)
        return model

    return build


def _case(name: str, config: Callable[[], Any], **more: Any) -> Case:
    of_gpt = more.pop("of_gpt", False)
    build = _adapted(config, of_gpt=of_gpt)
    return Case(name, build, gn.causal_lm(weights="equal"), next_tokens, text, **more)


LM = {"task_type": "CAUSAL_LM"}

CASES = [
    _case("LoRA on Llama", lambda: peft.LoraConfig(r=2, target_modules=LINEAR, **LM)),
    _case(
        "LoRA with dropout on GPT-2",
        lambda: peft.LoraConfig(r=2, lora_dropout=0.1, target_modules=["c_attn"], **LM),
        of_gpt=True,
        random=True,
    ),
    _case(
        "LoRA on embeddings",
        lambda: peft.LoraConfig(r=2, target_modules=["embed_tokens", *LINEAR], **LM),
    ),
    _case(
        "DoRA with dropout on Llama",
        lambda: peft.LoraConfig(r=2, use_dora=True, lora_dropout=0.1, target_modules=LINEAR, **LM),
        random=True,
    ),
    _case(
        "IA3 on Llama",
        lambda: peft.IA3Config(
            target_modules=["k_proj", "v_proj", "down_proj"],
            feedforward_modules=["down_proj"],
            **LM,
        ),
    ),
    _case("VeRA on Llama", lambda: peft.VeraConfig(r=4, target_modules=["q_proj"], **LM)),
    _case("OFT on Llama", lambda: peft.OFTConfig(oft_block_size=4, target_modules=LINEAR, **LM)),
    _case(
        "prefixes before Llama",
        lambda: peft.PrefixTuningConfig(num_virtual_tokens=3, **LM),
    ),
]
