"""Small per-sample gradients in factors, float64."""

from __future__ import annotations

import torch
from torch import Tensor

from gradnoise.per_sample.hooks.chain_rule import ThroughFunction, by_chain_rule
from gradnoise.per_sample.hooks.convolution import Convolution, Correlated
from gradnoise.per_sample.hooks.embedding_rows import EmbeddingRows
from gradnoise.per_sample.hooks.factored import FactoredGradients, Materialised
from gradnoise.per_sample.hooks.outer_products import SingleOuterProduct, SummedOuterProducts

COUNT = 4


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def outer(positions: int = 3, groups: int = 1, p: int = 5, q: int = 2) -> SummedOuterProducts:
    shape = torch.Size([groups * p, q])
    return SummedOuterProducts(
        normal(COUNT, groups, positions, p), normal(COUNT, groups, positions, q), shape
    )


def single(p: int = 5, q: int = 2) -> SingleOuterProduct:
    return SingleOuterProduct(normal(COUNT, p), normal(COUNT, q), torch.Size([p, q]))


def lookup(positions: int = 3, rows: int = 5, width: int = 2) -> EmbeddingRows:
    ids = torch.randint(rows, (COUNT, positions))
    return EmbeddingRows(ids, normal(COUNT, positions, width), torch.Size([rows, width]))


def convolution(size: int, channels: int = 2, groups: int = 1) -> Convolution:
    how = Correlated.of(2, (3, 3), 1, 1, 1, groups)
    inputs, deltas = normal(COUNT, 2, channels, size, size), normal(COUNT, 2, 4, size, size)
    return Convolution(inputs, deltas, torch.Size([4, channels // groups, 3, 3]), how)


def viewed(*places: slice) -> list[FactoredGradients]:
    parameter = normal(6, 2).requires_grad_()
    views = [parameter[place] for place in places]
    terms = [Materialised(normal(COUNT, *view.shape)) for view in views]
    return by_chain_rule(terms, views, parameter)


def pulled() -> FactoredGradients:
    parameter = normal(3, 2).requires_grad_()
    return ThroughFunction(Materialised(normal(COUNT, 3)), parameter.pow(2).sum(1), parameter)


FIXED = torch.arange(12, dtype=torch.float64).reshape(COUNT, 3)
