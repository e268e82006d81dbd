"""A small classifier, its data, and what must stay as it was when it is refused."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

SOURCE = torch.Generator().manual_seed(0)

X, Y = torch.randn(8, 3, generator=SOURCE), torch.randint(2, (8,), generator=SOURCE)

CE = nn.CrossEntropyLoss()


def linear() -> nn.Module:
    return nn.Linear(3, 2)


def snapshot(model: Any) -> Any:
    if not isinstance(model, nn.Module):
        return None
    return (
        [module.training for module in model.modules()],
        [(id(b), b.tolist()) for b in model.buffers()],
        [(id(p), p.requires_grad, p.grad) for p in model.parameters()],
        torch.get_rng_state().tolist(),
    )
