"""The gradient of a step: what its backward passes add to `.grad`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradnoise.monitor.gradients import StepGradient


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
        expected = parameter.grad.double().square().sum()
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
