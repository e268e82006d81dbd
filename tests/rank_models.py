"""Small models, their data, and the ways in which several ranks hold them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

COUNT = 41  # samples, which no number of ranks divides
WORDS, LENGTH, WIDTH, HEADS = 11, 8, 16, 2


class Block(nn.Module):
    """A transformer block whose code does not depend on how many heads are here."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        normal, (count, length, _) = self.before(x), x.shape
        q, k, v = (
            part(normal).view(count, length, -1, WIDTH // HEADS).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        found = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(found.transpose(1, 2).reshape(count, length, -1))
        return x + self.down(F.gelu(self.up(self.between(x))))


class GPT(nn.Module):
    """With tied embedding and head."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class ResNet(nn.Module):
    """With group normalisation, and a frozen first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1).requires_grad_(False)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1))
            for _ in range(2)
        )
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x.mean((2, 3)))


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(10, 16), nn.Linear(16, 3)])

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks[1](torch.tanh(self.blocks[0](x)))


MODELS: dict[str, type[nn.Module]] = {"mlp": MLP, "gpt": GPT, "resnet": ResNet}


def model_of(kind: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The same on all ranks."""
    torch.manual_seed(0)
    return MODELS[kind]().to(dtype)


def samples_of(
    kind: str, count: int = COUNT, dtype: torch.dtype = torch.float64
) -> tuple[Any, ...]:
    source = torch.Generator().manual_seed(1)
    if kind == "gpt":
        tokens = torch.randint(WORDS, (count, LENGTH), generator=source)
        return tokens, tokens.roll(-1, 1)
    shape = {"resnet": (3, 6, 6), "sequence": (6, 4)}.get(kind, (10,))
    inputs = torch.randn(count, *shape, generator=source, dtype=torch.float64).to(dtype)
    return inputs, torch.randint(3, (count,), generator=source)


def losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross entropy of every sample, for sequences its mean over the words."""
    inputs, labels = batch
    logits = model(inputs).flatten(0, -2)
    return F.cross_entropy(logits, labels.flatten(), reduction="none").view(len(labels), -1).mean(1)


def part_of(samples: tuple[Tensor, ...], rank: int, size: int) -> tuple[Tensor, ...]:
    """Uneven parts of neighbours; that of the second of three ranks and more is empty."""
    count = len(samples[0])
    ends = [0, *(round(count * (k + 1) / size) for k in range(size))]
    if size > 2:
        ends[2] = ends[1]
    return tuple(rows[ends[rank] : ends[rank + 1]] for rows in samples)


def held(model: Any, way: str, size: int) -> nn.Module:
    """The model as `size` ranks hold it."""
    if way == "ddp":
        return DistributedDataParallel(model)
    if way == "tensor parallel":
        _parallelized(model, init_device_mesh("cpu", (size,), mesh_dim_names=("tp",)))
    if way in ("blocks", "blocks and root", "mixed precision"):
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
        options: Any = {"mp_policy": policy} if way == "mixed precision" else {}
        parts = [*model.blocks, *([model] if way != "blocks" else [])]
        for part in parts:
            fully_shard(part, **options)
    if way == "whole":
        fully_shard(model)
    if way == "hybrid":
        fully_shard(model, mesh=init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "parts")))
    if way == "both":
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
        _parallelized(model, mesh["tp"])
        fully_shard(model, mesh=mesh["dp"])
    return model


def _parallelized(model: Any, mesh: Any) -> None:
    column, row = ColwiseParallel, RowwiseParallel
    if isinstance(model, MLP):
        parallelize_module(model, mesh, {"blocks.0": column(), "blocks.1": row()})
    elif isinstance(model, ResNet):
        parallelize_module(model, mesh, {"last": column(output_layouts=Replicate())})
    else:
        plan = {"up": column(), "down": row(), "o": row(), **dict.fromkeys("qkv", column())}
        for block in model.blocks:
            parallelize_module(block, mesh, plan)
