"""Operations without a second derivative."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


class Opaque(torch.autograd.Function):
    """Its backward runs in NumPy, so torch records nothing of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.from_numpy(grad.detach().numpy() * (1 - np.tanh(x.detach().numpy()) ** 2))


class OnceOnly(Opaque):
    """Marked as differentiable once."""

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (1 - x.tanh() ** 2)


class Kept(torch.autograd.Function):
    """Cross-entropy whose backward multiplies by what the forward pass kept."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        shares, at = logits.softmax(1), torch.arange(len(targets))
        kept = shares.clone()
        kept[at, targets] -= 1
        ctx.save_for_backward(kept)
        return -shares[at, targets].log()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return ctx.saved_tensors[0] * grad[:, None], None


def cut(x: Tensor) -> Tensor:
    """tanh(x), whose gradient a hook takes out of the graph of the backward pass."""
    y = x.tanh()
    if y.requires_grad:
        y.register_hook(lambda grad: grad.detach().clone())
    return y
