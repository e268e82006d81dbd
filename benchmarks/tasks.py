"""Models and batches that per-sample gradients are compared on, the same at every call."""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.problem.losses.criterion import supervised
from gradnoise.problem.losses.loss_fn import LossFn
from gradnoise.tensors.trees import Batch


@dataclass(frozen=True)
class Task:
    """What is measured.

    Args:
        model: fresh; a method may wrap it.
        losses: per-sample losses of (model, batch), shape (n,).
        batch: nested tensors, samples first.
        aid: further inputs for libraries that take the leading dimension of every layer's input
            for the samples.
    """

    model: nn.Module
    losses: LossFn
    batch: Batch
    aid: dict[str, Tensor] = field(default_factory=dict)


def mlp(inputs: int = 784, width: int = 512, hidden: int = 2, samples: int = 256) -> Task:
    """784-512-512-10."""
    layers: list[nn.Module] = []
    for size in (inputs, *[width] * (hidden - 1)):
        layers += [nn.Linear(size, width), nn.ReLU()]
    return _classification(
        nn.Sequential(*layers, nn.Linear(width, 10)), torch.randn(samples, inputs)
    )


def cnn(channels: Sequence[int] = (3, 32, 64, 64), pixels: int = 32, samples: int = 128) -> Task:
    """Three convolutions with pooling, 32×32 images."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(channels):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    left = channels[-1] * (pixels // 2 ** (len(channels) - 1)) ** 2
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(left, 10))
    return _classification(model, torch.randn(samples, channels[0], pixels, pixels))


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.GroupNorm(8, outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.GroupNorm(8, outputs),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def resnet() -> Task:
    """A stem and three residual blocks with GroupNorm, 0.22 M parameters, 32×32 images."""
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1, bias=False),
        nn.GroupNorm(8, 32),
        nn.ReLU(),
        Residual(32, 32, 1),
        Residual(32, 64, 2),
        Residual(64, 96, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(96, 10),
    )
    return _classification(model, torch.randn(64, 3, 32, 32))


def _classification(model: nn.Module, inputs: Tensor) -> Task:
    targets = torch.randint(10, (len(inputs),))
    return Task(model, supervised(nn.CrossEntropyLoss()), (inputs, targets))


class Block(nn.Module):
    """Pre-norm attention and GELU MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        split = self.qkv(self.norm_1(x)).unflatten(-1, (3, self.heads, -1))  # [n, T, 3, h, d]
        q, k, v = (part.transpose(1, 2) for part in split.unbind(2))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm_2(x))


class GPT(nn.Module):
    """A decoder with learned positions, looked up for every sample, and a tied head."""

    def __init__(self, vocabulary: int, tokens: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(vocabulary, width), nn.Embedding(tokens, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embedding.weight
        for module in (self.embedding, self.position):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        x = self.embedding(ids) + self.position(positions)
        return self.head(self.norm(self.blocks(x)))


def gpt(
    words: int = 1000, tokens: int = 64, width: int = 128, layers: int = 4, samples: int = 32
) -> Task:
    """4 layers, width 128, 4 heads, 64 tokens, 1000 words."""

    def losses(model: nn.Module, batch: Batch) -> Tensor:
        ids, targets = batch
        logits = model(ids).transpose(1, 2)
        return F.cross_entropy(logits, targets, reduction="none").mean(1)

    ids = torch.randint(words, (samples, tokens + 1))
    model = GPT(words, tokens, width, heads=4, layers=layers)
    return Task(model, losses, (ids[:, :-1].clone(), ids[:, 1:].clone()))


def gpt2() -> Task:
    """GPT-2 of `transformers`: 4 layers, width 128, 4 heads, 64 tokens, 1000 words."""
    transformers = library("transformers", "test")
    config = transformers.GPT2Config(
        n_layer=4,
        n_embd=128,
        n_head=4,
        vocab_size=1000,
        n_positions=64,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        **dict.fromkeys(("bos_token_id", "eos_token_id"), 0),
    )
    ids = torch.randint(1000, (16, 64))
    positions = torch.arange(64).expand(16, 64)
    return Task(
        transformers.GPT2LMHeadModel(config),
        gn.causal_lm(),
        {"input_ids": ids},
        {"position_ids": positions},
    )


def library(name: str, extra: str) -> Any:
    """An optional library.

    Raises:
        ImportError: with how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{error}; it comes with pip install 'gradnoise[{extra}]'") from error


MODELS: dict[str, Callable[[], Task]] = {m.__name__: m for m in (mlp, cnn, resnet, gpt, gpt2)}
SMALL: dict[str, Callable[[], Task]] = {  # of the same kinds, for trials of a benchmark itself
    "mlp": functools.partial(mlp, 16, 12),
    "cnn": functools.partial(cnn, (3, 4, 4), 8),
    "gpt": functools.partial(gpt, 20, 8, 16, 1),
}


def make(model: str | Callable[[], Task]) -> Task:
    """The same parameters and data each time."""
    torch.manual_seed(0)
    return (MODELS[model] if isinstance(model, str) else model)()
