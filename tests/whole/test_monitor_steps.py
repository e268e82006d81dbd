"""What loops and trainers may do in a monitored step, and tell the monitor."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.monitor.gradients import StepGradient
from gradnoise.monitor.parts import PartNorms
from gradnoise.monitor.reading import NO_SIZE


@pytest.mark.parametrize("to_none", [True, False])
def test_gradients_may_be_zeroed_after_the_forward_pass(to_none: bool) -> None:
    model = nn.Linear(3, 2)
    model(torch.randn(4, 3)).square().mean().backward()
    gradient = StepGradient(dict(model.named_parameters()))
    loss = model(torch.randn(4, 3)).square().mean()
    model.zero_grad(set_to_none=to_none)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        expected = parameter.grad.square().sum()
        torch.testing.assert_close(gradient.sq_norms()[name], expected)


def test_what_was_there_before_is_taken_off() -> None:
    model, inputs = nn.Linear(3, 2).double(), torch.randn(4, 3, dtype=torch.float64)
    model(inputs).square().mean().backward()
    first = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    gradient = StepGradient(dict(model.named_parameters()))
    model(inputs).square().mean().backward()
    for name, own in first.items():
        torch.testing.assert_close(gradient.sq_norms()[name], own.square().sum())


def test_a_parameter_without_a_gradient_in_this_step_has_none() -> None:
    model = nn.Linear(3, 2)
    model(torch.randn(4, 3)).square().mean().backward()
    gradient = StepGradient(dict(model.named_parameters()))
    model.bias.sum().backward()
    assert set(gradient.sq_norms()) == {"bias"}


def test_nothing_is_left_behind() -> None:
    model = nn.Linear(3, 2)
    model(torch.randn(4, 3)).square().mean().backward()
    gradient = StepGradient(dict(model.named_parameters()))
    gradient.remove()
    assert not any(p._backward_hooks for p in model.parameters())


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


def test_a_wrapper_of_the_model_is_followed() -> None:
    model = nn.Linear(3, 2)
    monitor = gn.NoiseMonitor(model, every=1, source="samples")
    wrapper = torch.compile(model, backend="eager")
    monitor.follow(wrapper)
    assert monitor.model is wrapper


def test_another_model_is_not_followed() -> None:
    monitor = gn.NoiseMonitor(nn.Linear(3, 2))
    with pytest.raises(gn.ArgumentError, match="it has other trainable parameters"):
        monitor.follow(nn.Sequential(nn.Linear(3, 2)))


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
