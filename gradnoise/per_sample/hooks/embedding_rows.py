"""Gradients of a table whose rows are looked up: an embedding, whose one-hot inputs are ids."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...tensors.sums import dots, sq_norms
from ...tensors.trees import widen
from .factored import NOTHING, Asked, FactoredGradients, Measured
from .outer_products import OuterProducts


class EmbeddingRows(FactoredGradients):
    """g_i has the rows `values`_it added at `ids`_it: an embedding, whose one-hot inputs are ids.

    Args:
        ids: shape (n, T).
        values: shape (n, T, d).
        shape: of the tensor, (rows, d).
    """

    def __init__(self, ids: Tensor, values: Tensor, shape: torch.Size) -> None:
        self.ids, self.values, self.shape = ids, values, shape
        self.count = len(ids)

    def kind(self) -> Any:
        return EmbeddingRows

    def join(self, terms: Sequence[EmbeddingRows]) -> FactoredGradients:
        ids, values = (
            torch.cat(parts, 1) for parts in zip(*((t.ids, t.values) for t in terms), strict=True)
        )
        return EmbeddingRows(ids, values, self.shape)

    def gradients(self, part: slice) -> Tensor:
        ids, values = self.ids[part], self.values[part]
        rows = values.new_zeros(len(ids), *self.shape)
        return rows.scatter_add_(1, ids[:, :, None].expand_as(values), values)

    def some(self, rows: slice) -> FactoredGradients:
        return EmbeddingRows(self.ids[rows], self.values[rows], self.shape)

    def _total(self) -> Tensor:
        _, ids, rows = self._table  # many equal ids in a row would lose digits
        total = widen(rows.new_zeros(self.shape)).index_add_(0, ids, widen(rows))
        return total.to(rows.dtype)

    def measure(self, asked: Asked = NOTHING) -> Measured:
        (samples, ids, rows), scale = self._table, asked.scale
        scaled = rows if scale is None else rows * scale.to(rows.dtype)[ids]
        own = widen(torch.zeros(self.count, device=rows.device))
        square = None
        if asked.squares:
            square = widen(rows.new_zeros(self.shape)).index_add_(0, ids, widen(rows).square())
        return Measured(
            self._total() if asked.total else None,
            own.index_add_(0, samples, sq_norms(scaled)),
            asked.dots(lambda u: dots(u.to(rows.dtype)[self.ids], self.values)),
            square,
        )

    def method(self) -> tuple[str, str]:
        return "rows looked up", "equal ids of a sample added, all other rows are zero"

    def extra_cost(self) -> float:
        return 4.0 * self.values[0].numel()

    def batch_cost(self) -> float:
        return 1.0 * self.values[0].numel()

    def inner(self, other: FactoredGradients) -> Tensor | None:
        if isinstance(other, OuterProducts) and other.left.shape[1::2] == (1, self.shape[0]):
            return self._tied(other)
        return None

    def _tied(self, other: OuterProducts) -> Tensor:
        """Inner product with an outer product over the same rows: an embedding tied to the head."""
        left, right = other.left[:, 0], other.right[:, 0]  # [n, T, rows], [n, T, d]
        picked = left.gather(2, self.ids[:, None].expand(-1, left.shape[1], -1))
        return dots(picked, right @ self.values.transpose(1, 2))

    @functools.cached_property
    def _table(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sample, id and summed row of every distinct id of every sample."""
        samples = torch.arange(self.count, device=self.ids.device)[:, None]
        keys = (samples * self.shape[0] + self.ids).reshape(-1)
        distinct, where = torch.unique(keys, return_inverse=True)
        rows = self.values.new_zeros(len(distinct), self.shape[1])
        rows.index_add_(0, where, self.values.flatten(0, 1))
        return distinct // self.shape[0], distinct % self.shape[0], rows
