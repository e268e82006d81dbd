"""Sums of squares and products: in the tensor's dtype over short blocks, then in float64.

On devices without float64 (MPS) the sums of blocks are added in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from .trees import widen

COLUMNS = 2**16  # entries of vectors that are turned, or added in their own dtype, at a time

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
BLOCK = 1024  # as many products are added in float32 before float64: relative errors of 1e-8


def sq_norms(rows: Tensor) -> Tensor:
    """Sum of squares over all dimensions except the leading one, (n, ...) -> (n,) in float64."""

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
    """Sum of products over all dimensions except the leading one, (n, ...) -> (n,) in float64."""
    first, second = (t.reshape(t.shape[0], -1) for t in (first, second))
    whole = first.shape[1] // BLOCK * BLOCK
    tail = widen(torch.linalg.vecdot(first[:, whole:], second[:, whole:]))
    if not whole:
        return tail
    blocks = (t[:, :whole].reshape(t.shape[0], -1, BLOCK) for t in (first, second))
    return widen(torch.linalg.vecdot(*blocks)).sum(1) + tail


def without_autocast(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function with every autocast around the call switched off, so that it rounds nothing."""

    @functools.wraps(function)
    def exact(*args: Arguments.args, **options: Arguments.kwargs) -> Result:
        with ExitStack() as stack:
            for kind in ("cpu", "cuda", "xpu", "mps"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            return function(*args, **options)

    return exact


def by_parameter(first: Tensor, second: Tensor, sizes: Sequence[int]) -> Tensor:
    """Inner products of the parts of two vectors (P,) cut to `sizes`, shape (p,), in float64."""
    parts = (torch.split(flat[None], list(sizes), dim=1) for flat in (first, second.to(first)))
    return torch.cat([dots(u, v) for u, v in zip(*parts, strict=True)])


def overlaps(rows: Tensor, vector: Tensor) -> Tensor:
    """Inner products with the rows, in float64 (float32 on MPS) over parts of the columns."""
    return exact_overlaps(rows, vector).to(vector)


def exact_overlaps(rows: Tensor, vector: Tensor) -> Tensor:
    """The same, as they were added, in float64 (float32 on MPS)."""
    parts = zip(torch.split(rows, COLUMNS, 1), torch.split(vector, COLUMNS), strict=True)
    return torch.stack([widen(own @ part) for own, part in parts]).sum(0)


def overlaps_by_parameter(rows: Tensor, vector: Tensor, sizes: Sequence[int]) -> Tensor:
    """Inner products of the parts of rows (k, P) and a vector (P,) cut to `sizes`, shape (k, p)."""
    parts = zip(torch.split(rows, list(sizes), 1), torch.split(vector, list(sizes)), strict=True)
    return torch.stack([exact_overlaps(own, part.to(own)) for own, part in parts], dim=1)
