"""Rows of a table that are looked up, held to their one-hot outer products."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from gradnoise.per_sample.hooks.embedding_rows import EmbeddingRows
from gradnoise.per_sample.hooks.factored import Asked
from tests.factored_cases import COUNT, lookup, outer


def test_embedding_rows_are_one_hot_outer_products() -> None:
    rows = lookup(positions=6)
    hot = F.one_hot(rows.ids, rows.shape[0]).double()
    truth = torch.einsum("ntr,ntd->nrd", hot, rows.values)
    torch.testing.assert_close(rows.gradients(slice(0, COUNT)), truth)
    found = rows.measure(Asked(squares=True))
    torch.testing.assert_close(found.total, truth.sum(0))
    torch.testing.assert_close(found.sq_norms, truth.square().sum((1, 2)))
    torch.testing.assert_close(found.squares, truth.square().sum(0))
    head = outer(3, p=rows.shape[0], q=rows.shape[1])
    inner = (truth * head.gradients(slice(0, COUNT))).sum((1, 2))
    torch.testing.assert_close(rows.inner(head), inner)
    assert rows.inner(outer(3, p=7, q=2)) is None


def test_rows_looked_up_twice_are_added_before_they_are_squared() -> None:
    ids, values = torch.tensor([[1, 1, 0]]), torch.tensor([[[1.0], [2.0], [4.0]]]).double()
    found = EmbeddingRows(ids, values, torch.Size([3, 1])).measure(Asked(squares=True))
    assert found.total.flatten().tolist() == [4, 3, 0]
    assert found.sq_norms.tolist() == [16 + 9]
    assert found.squares is not None
    assert found.squares.flatten().tolist() == [16, 9, 0]


def test_tables_of_one_size_are_joined() -> None:
    first, second = lookup(3), lookup(2)
    assert first.kind() == second.kind()
    joined = first.join([first, second])
    truth = first.gradients(slice(0, COUNT)) + second.gradients(slice(0, COUNT))
    torch.testing.assert_close(joined.gradients(slice(0, COUNT)), truth)
