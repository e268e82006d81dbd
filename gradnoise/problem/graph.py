"""The graph of an output, as autograd keeps it, and derivatives through it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


def nodes_of(output: Tensor) -> Iterator[Any]:
    """Every node of the graph once."""
    waiting: list[Any] = [output.grad_fn]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [following for following, _ in node.next_functions]


def vector_jacobian(
    outputs: Sequence[Any],
    inputs: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    *,
    create_graph: bool = False,
) -> list[Tensor | None]:
    """Jᵀu of outputs with respect to inputs; the graph stays."""
    pairs = [(z, u) for z, u in zip(outputs, cotangents, strict=True) if z.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    held, weights = zip(*pairs, strict=True)
    found = torch.autograd.grad(
        held, inputs, weights, retain_graph=True, create_graph=create_graph, allow_unused=True
    )
    return [g.to_dense() if g is not None and g.is_sparse else g for g in found]
