"""A small classifier, its data, and what must stay as it was when it is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn

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


def check_refused(
    build: Any, loss_fn: Any, error: type[Exception], message: str, **options: Any
) -> None:
    """A profile of the model raises this error and leaves the model as it was."""
    model = build()
    before = snapshot(model)
    with pytest.raises(error, match=message):
        gn.profile(model, loss_fn, (X, Y), **options)
    assert snapshot(model) == before
