"""Micro-batches as parts: where one ends and the next begins, and how large they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradnoise.monitor.parts import TWICE, PartNorms
from gradnoise.monitor.reading import NO_SIZE, ONE_PART


def listening(model: nn.Module) -> PartNorms:
    return PartNorms(model, dict(model.named_parameters()), None)


def back(model: nn.Module, size: int) -> None:
    model(torch.ones(size, 2)).mean().backward()


def test_sizes_are_those_of_the_inputs() -> None:
    model = nn.Linear(2, 1)
    own = listening(model)
    for size in (3, 1):
        back(model, size)
    reading = own.reading(None, None)
    assert reading is not None
    assert (reading.samples, reading.shares) == (4, 1 / 2)
    assert reading.spread == (1 / 3 + 1) / 4


def test_a_batch_size_that_disagrees_is_shared_equally() -> None:
    """Of data whose leading dimension does not count samples."""
    model = nn.Linear(2, 1)
    own = listening(model)
    for size in (3, 1):
        back(model, size)
    reading = own.reading(10, None)
    assert reading is not None
    assert (reading.samples, reading.spread) == (10, (1 / 5 + 1 / 5) / 4)


def test_reasons_are_said() -> None:
    model = nn.Linear(2, 1)
    own = listening(model)
    back(model, 3)
    assert own.reading(None, None) is None
    assert own.reason == ONE_PART
    own = listening(model)
    assert own.reading(None, None) is None
    assert own.reason.startswith("no gradient came")
    own = listening(model)
    for size in (3, 1):
        back(model, size)
    assert own.reading(None, [1.0]) is None
    assert own.reason == "1 shares for 2 micro-batches"
    own = listening(model)
    loss = model(torch.ones(3, 2)).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    assert own.reading(None, None) is None
    assert own.reason == TWICE


def test_inputs_of_different_lengths_do_not_tell_the_size() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
            return self.layer(x + shift)

    model = Two()
    own = listening(model)
    for _ in range(2):
        model(torch.ones(4, 2), shift=torch.ones(1, 2)).mean().backward()
    assert own.reading(None, None) is None
    assert "the batch size is not known: give it to step()" in own.reason


def test_removed_it_hears_nothing() -> None:
    model = nn.Linear(2, 1)
    own = listening(model)
    own.remove()
    back(model, 3)
    assert not own._norms
    assert not model._forward_pre_hooks
    assert not model.weight._backward_hooks


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
