"""Fused operations as simpler ones, held to torch's own."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import wrap_torch_function

import gradnoise as gn
from tests.cases import features
from tests.engines import agree, choose_engine, summary
from tests.layer_cases import Function, ids, numbers, squares


def test_a_packed_sequence_is_refused() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, [3] * len(x), batch_first=True)
        return self.r(packed)[1][0]

    model = Function(forward, r=nn.GRU(3, 2, batch_first=True)).double()
    with pytest.raises(gn.EngineError, match="packed sequence"):
        summary(model, squares, numbers(3, 3)())


@pytest.mark.parametrize("options", [{"max_norm": 1.0}, {"offsets": True}])
def test_bags_of_other_kinds_are_refused(options: dict[str, Any]) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if "offsets" not in options:
            return F.embedding_bag(x, self.w, **options)
        return F.embedding_bag(x.reshape(-1), self.w, offsets=torch.arange(0, x.numel(), 4))

    with pytest.raises(gn.EngineError, match="an embedding bag with offsets, max_norm or"):
        summary(Function(forward, w=(5, 3)).double(), squares, ids(4)())


@pytest.mark.parametrize("mode", ["mean", "sum", "max"])
def test_bags_with_padding_counted_from_the_end_and_empty_bags(mode: str) -> None:
    model = Function(
        lambda s, ids: F.embedding_bag(ids, s.w, mode=mode, padding_idx=-1), w=(5, 3)
    ).double()
    ids = torch.randint(5, (8, 4))
    ids[2] = 4  # nothing but padding
    assert agree(model, squares, ids) == "hooks"


def test_functions_that_a_model_makes_are_not_kept() -> None:
    made: list[weakref.ref[Any]] = []

    def forward(self: Any, x: Tensor) -> Tensor:
        twice = wrap_torch_function(lambda own: (own,))(lambda own: 2 * own)
        made.append(weakref.ref(twice))
        return twice(self.a(x))

    assert choose_engine(Function(forward, a=nn.Linear(4, 3)).double(), squares, features())
    gc.collect()
    assert len(made) > 3
    assert not any(reference() for reference in made)
