"""Micro-batches of an accumulation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradnoise.monitor.parts import NO_SIZE, PartNorms


@pytest.mark.parametrize(("sizes", "known"), [([5, 2], True), ([5, 2, 1], False)])
def test_the_loop_may_tell_the_size_of_every_micro_batch(sizes: list[int], known: bool) -> None:
    model = nn.Linear(3, 2).double()
    listener = PartNorms(model, dict(model.named_parameters()), None)
    for _ in range(2):  # by the inputs: one sample each
        (model(torch.randn(1, 3, dtype=torch.float64)).square().mean() / 2).backward()
    reading = listener.reading(sizes, None)
    if known:
        assert reading is not None
        assert reading.samples == 7
        assert reading.spread == pytest.approx((1 / 5 + 1 / 2) / 4)
    else:
        assert reading is None
        assert listener.reason == NO_SIZE
