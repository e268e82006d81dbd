"""The gradient of a step: what is in `.grad`, what hooks of the user's have made of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gradnoise.monitor.gradients import StepGradient, gathered, sq_norm


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_squared_norms_are_added_in_double_precision(dtype: torch.dtype) -> None:
    gradient = torch.randn(3, 5000).to(dtype)
    expected = gradient.double().square().sum()
    assert sq_norm(gradient[:, :1000]).item() == pytest.approx(
        float(gradient[:, :1000].double().square().sum()), rel=1e-6
    )
    assert float(sq_norm(gradient)) == pytest.approx(float(expected), rel=1e-6)


def test_a_sparse_gradient_has_the_norm_of_its_sum() -> None:
    ids = torch.tensor([[1, 1, 3]])
    gradient = torch.sparse_coo_tensor(ids, torch.tensor([[1.0], [2.0], [4.0]]), (5, 1))
    assert float(sq_norm(gradient)) == 9 + 16


def test_numbers_are_gathered_in_the_order_of_the_names() -> None:
    found = [("b", torch.tensor(2.0)), ("a", torch.tensor(1.0).double()), ("b", torch.tensor(4.0))]
    assert gathered(found, ["a", "none", "b"]).tolist() == [1.0, 0.0, 6.0]
    assert gathered([], ["a"]).tolist() == [0.0]


def parameters() -> dict[str, Tensor]:
    return {"w": nn.Parameter(torch.tensor([1.0, 2.0])), "unused": nn.Parameter(torch.ones(1))}


def test_gradients_before_the_step_are_taken_off() -> None:
    own = parameters()
    own["w"].square().sum().backward()
    step = StepGradient(own)
    (own["w"].square().sum() / 2).backward()
    found = step.sq_norms()
    assert list(found) == ["w"]
    assert float(found["w"]) == pytest.approx(5.0)


def test_every_backward_pass_is_told_before_hooks_of_the_users() -> None:
    own, told, order = parameters(), [], []
    own["w"].register_hook(lambda g: order.append("user") or 10 * g)
    step = StepGradient(
        own, lambda name, g: (order.append("ours"), told.append((name, g.tolist())))
    )
    for factor in (1.0, 2.0):
        (factor * own["w"].sum()).backward()
    assert order == ["ours", "user"] * 2
    assert told == [("w", [1.0, 1.0]), ("w", [2.0, 2.0])]
    assert float(step.sq_norms()["w"]) == pytest.approx(9 + 9)  # of what was told, not of `.grad`
    assert own["w"].grad.tolist() == [30.0, 30.0]


def test_removed_it_leaves_the_hooks_of_the_users_in_their_order() -> None:
    own, order = parameters(), []
    for name in ("first", "second"):
        own["w"].register_hook(lambda g, name=name: order.append(name))
    step = StepGradient(own, lambda *_: None)
    step.remove()
    own["w"].sum().backward()
    assert order == ["first", "second"]
    assert len(own["w"]._backward_hooks) == 2
    assert (step._own, step._handles) == ({}, [])


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


def test_a_parameter_without_a_gradient_in_this_step_has_none() -> None:
    model = nn.Linear(3, 2)
    model(torch.randn(4, 3)).square().mean().backward()
    gradient = StepGradient(dict(model.named_parameters()))
    model.bias.sum().backward()
    assert set(gradient.sq_norms()) == {"bias"}
