"""Single samples as parts: which of them, and the comparison with the gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.monitor.samples import CURE, SampleNorms, SamplePlans
from gradnoise.monitor.watched import Watched
from tests.monitored import classified


def watched() -> Watched:
    return Watched(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double())


def test_all_are_measured_until_their_sum_was_compared() -> None:
    own = SamplePlans(4)
    assert own.rows(10, 0) is None
    own.is_proven = True
    assert [own.rows(10, turn) for turn in range(4)] == [
        slice(0, None, 3), slice(1, None, 3), slice(2, None, 3), slice(0, None, 3)
    ]  # fmt: skip
    assert own.rows(4, 0) is None
    assert SamplePlans().rows(100, 0) is None


@pytest.mark.parametrize("count", [5, 16, 17])
def test_a_whole_round_takes_every_sample_once(count: int) -> None:
    own = SamplePlans(4)
    own.is_proven = True
    stride = -(-count // 4)
    taken = [
        i for turn in range(stride) for i in range(count)[own.rows(count, turn) or slice(None)]
    ]
    assert sorted(taken) == list(range(count))


def test_a_plan_is_made_once_and_proven_once() -> None:
    model, own = watched(), SamplePlans()
    batch, made = (torch.randn(9, 4).double(), torch.randint(3, (9,))), []
    for proven in (False, True):
        assert own.is_proven is proven
        listener = SampleNorms(model, own, None, 0)
        classified(model.model, batch).mean().backward()
        made.append(own.steps)
        assert listener.reading(None, None) is not None
        listener.remove()
    assert made[0] is made[1] is own.steps


def test_what_cannot_be_names_the_cure() -> None:
    model, own = watched(), SamplePlans()
    for count, said in ((1, ""), (0, "was not called")):
        listener = SampleNorms(model, own, None, 0)
        if count:
            batch = torch.randn(count, 4).double(), torch.randint(3, (count,))
            classified(model.model, batch).mean().backward()
        assert listener.reading(None, None) is None
        assert listener.reason.endswith(CURE) is bool(count)  # that is no cure of the other
        assert said in listener.reason
        listener.remove()


class Shifted(nn.Module):
    """A number that is added to all logits: no loss changes, and its gradient is rounding alone."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.shift = nn.Linear(6, 5), nn.Parameter(torch.zeros(1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.linear(inputs) + self.shift  # type: ignore[no-any-return]


@pytest.mark.parametrize("half", [False, True])
def test_a_gradient_that_is_rounding_alone_is_no_contradiction(half: bool) -> None:
    """As that of the bias of the keys in attention."""
    model = Shifted()
    monitor = gn.NoiseMonitor(model, every=1, source="samples")
    with monitor.step(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = model(torch.randn(32, 6))
        nn.functional.cross_entropy(logits, torch.randint(5, (32,))).backward()
    assert monitor.measured == 1
    assert monitor.notes == []
