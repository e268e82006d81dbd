"""Sums of squares and products: in their own dtype over short blocks, then wide."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from .trees import widen

Given = ParamSpec("Given")
Found = TypeVar("Found")
BLOCK = 1024  # products added in float32 before they are added in float64: errors of 1e-8


def sq_norms(rows: Tensor) -> Tensor:
    """Σ over all but the leading dimension of squares: blocks of the dtype's own, added wide."""

    def add(block: Tensor) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(block, dim=-1)  # no copy, unlike a product
        return widen(norms).square()

    if rows.ndim != 2:
        rows = rows.reshape(rows.shape[0], -1)
    whole = rows.shape[1] // BLOCK * BLOCK
    if not whole:
        return add(rows)
    blocks = add(rows[:, :whole].reshape(rows.shape[0], -1, BLOCK)).sum(1)
    return blocks + add(rows[:, whole:]) if whole < rows.shape[1] else blocks


def dots(first: Tensor, second: Tensor) -> Tensor:
    """Σ over all but the leading dimension of products, as `sq_norms`."""
    first, second = (t.reshape(t.shape[0], -1) for t in (first, second))
    whole = first.shape[1] // BLOCK * BLOCK
    rest = widen(torch.linalg.vecdot(first[:, whole:], second[:, whole:]))
    if not whole:
        return rest
    blocks = (t[:, :whole].reshape(t.shape[0], -1, BLOCK) for t in (first, second))
    return widen(torch.linalg.vecdot(*blocks)).sum(1) + rest


def without_autocast(function: Callable[Given, Found]) -> Callable[Given, Found]:
    """A function whose products are not rounded by an autocast around the call."""

    @functools.wraps(function)
    def exact(*args: Given.args, **options: Given.kwargs) -> Found:
        with ExitStack() as stack:
            for kind in ("cpu", "cuda", "xpu", "mps"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            return function(*args, **options)

    return exact


def by_parameter(first: Tensor, second: Tensor, sizes: Sequence[int]) -> Tensor:
    """Inner products of the parts of two flat vectors, wide, shape (p,)."""
    parts = (torch.split(flat[None], list(sizes), dim=1) for flat in (first, second.to(first)))
    return torch.cat([dots(u, v) for u, v in zip(*parts, strict=True)])
