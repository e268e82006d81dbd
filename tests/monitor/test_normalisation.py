"""Normalisation layers are found by the names of their classes."""

from __future__ import annotations

import pytest
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import gradnoise as gn
from gradnoise.monitor.normalisation import norm_parameters


def test_those_of_torch_without_batch_normalisation() -> None:
    model = nn.Sequential(
        nn.Linear(4, 4), nn.LayerNorm(4), nn.BatchNorm1d(4), nn.GroupNorm(2, 4), nn.RMSNorm(4)
    )
    names = [name for name, _ in model.named_parameters()]
    found = norm_parameters(model, names)
    assert found == ["1.weight", "1.bias", "3.weight", "3.bias", "4.weight"]
    assert norm_parameters(model, ["3.bias"]) == ["3.bias"]


def test_those_of_other_packages() -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "vocab_size": 9}
    model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, pad_token_id=0, **sizes))
    found = norm_parameters(model, dict(model.named_parameters()))
    assert len(found) == 3
    assert all("norm" in name for name in found)


def test_without_any_there_is_no_proxy() -> None:
    with pytest.raises(gn.ArgumentError, match="no trainable layer, group or RMS"):
        gn.NoiseMonitor(nn.Linear(3, 3), source="norm_layers")
