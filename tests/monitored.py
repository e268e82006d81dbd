"""Training steps for the monitor, and what they say by plain autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tests.offline import Numbers, by_parts, by_samples

Losses = Callable[[nn.Module, Any], Tensor]  # (model, micro-batch) -> one loss per sample


def classified(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of every sample; of sequences the mean over positions."""
    logits = model(batch[0])
    own = nn.functional.cross_entropy(logits.flatten(0, -2), batch[1].flatten(), reduction="none")
    return own.reshape(len(batch[0]), -1).mean(1)


def parted(batch: Any, sizes: Sequence[int]) -> list[Any]:
    """A batch in micro-batches."""
    return list(zip(*(t.split(list(sizes)) for t in batch), strict=True))


def train_step(
    model: nn.Module, losses: Losses, parts: Sequence[Any], context: Any = None, scale: float = 1.0
) -> None:
    """Accumulate the gradients of micro-batches, each averaged and divided by their number."""
    for part in parts:
        with context() if context else torch.enable_grad():
            loss = losses(model, part).mean() / len(parts)
        (loss * scale).backward()


def contributions(model: nn.Module, losses: Losses, parts: Sequence[Any]) -> Tensor:
    """c_i of every sample to the gradient of that step, shape (n, P), in float64."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for part in parts:
        for loss in losses(model, part):
            found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            flat = [
                torch.zeros_like(p).flatten() if g is None else g.to_dense().flatten()
                for g, p in zip(found, parameters, strict=True)
            ]
            rows.append(torch.cat(flat).double() / len(part[0]) / len(parts))
    return torch.stack(rows)


def of_samples(rows: Tensor, sizes: Sequence[int] = ()) -> Numbers:
    """trΣ and |G|² from the contributions of single samples, in micro-batches of equal shares."""
    sizes = sizes or [len(rows)]
    return by_samples(rows, sizes, [1 / len(sizes)] * len(sizes))


def of_parts(rows: Tensor, sizes: Sequence[int]) -> Numbers:
    """trΣ and |G|² from those of micro-batches of equal shares."""
    return by_parts(rows, sizes, [1 / len(sizes)] * len(sizes))
