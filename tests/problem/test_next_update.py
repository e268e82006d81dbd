"""The next step of an optimizer, against the step that it then takes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.problem.next_update import next_update
from tests.cases import CORE
from tests.optimizers import OPTIMIZERS, Lion, grouped, trained_with

OTHERS: dict[str, Any] = {
    "heavy ball": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, dampening=0.3),
    "Nesterov": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "Adadelta": lambda p: torch.optim.Adadelta(p, lr=0.1),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=0.01, decoupled_weight_decay=True),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=0.01),
    "a rate in a tensor": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01), foreach=False),
    "fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "a class of the user's": Lion,
}


MAKERS = OPTIMIZERS | OTHERS


def stepped(name: str) -> Any:
    """A model after three steps, with its optimizer and the gradient of the next one."""
    model, loss_fn, batch, optimizer = trained_with(CORE[0], MAKERS[name])
    loss = loss_fn(model(batch[0]), batch[1])
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    return model, optimizer, torch.cat([g.flatten() for g in gradient])


def real_step(model: nn.Module, optimizer: Any, gradient: Tensor) -> Tensor:
    """(w - w⁺)/ε of the step that the optimizer takes."""
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    parts = torch.split(gradient, [p.numel() for p in model.parameters()])
    for p, part in zip(model.parameters(), parts, strict=True):
        p.grad = part.reshape(p.shape).to(p)
    optimizer.step()
    after = nn.utils.parameters_to_vector(model.parameters()).detach()
    return (before - after) / float(optimizer.param_groups[0]["lr"])


def flat(update: list[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in update])


@pytest.mark.parametrize("name", MAKERS)
def test_it_is_the_step_that_is_then_taken(name: str) -> None:
    model, optimizer, gradient = stepped(name)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    found = flat(next_update(optimizer, dict(model.named_parameters()), gradient))
    assert str(before) == str((model.state_dict(), optimizer.state_dict()))
    assert all(p.grad is None for p in model.parameters())
    torch.testing.assert_close(found, real_step(model, optimizer, gradient), rtol=1e-9, atol=1e-11)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has no Muon before 2.9")
def test_muon_steps_in_its_own_precision() -> None:
    layer = nn.Linear(4, 3, bias=False).double()
    muon: Any = torch.optim.Muon(layer.parameters(), lr=0.01)  # type: ignore[attr-defined,unused-ignore]
    gradient = torch.randn(12).double()
    real_step(layer, muon, gradient.flip(0))
    found = flat(next_update(muon, dict(layer.named_parameters()), gradient))
    torch.testing.assert_close(found, real_step(layer, muon, gradient), rtol=1e-9, atol=1e-11)


def test_a_first_step_needs_no_state() -> None:
    model, _, gradient = stepped("Adam")
    fresh = torch.optim.Adam(model.parameters(), lr=0.1, eps=1e-15)
    found = flat(next_update(fresh, dict(model.named_parameters()), gradient))
    torch.testing.assert_close(found, gradient.sign(), rtol=1e-6, atol=1e-6)
    assert not fresh.state


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_below_the_rounding_of_a_parameter_are_exact(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(3, 1)).to(dtype)
    model.register_parameter("temperature", nn.Parameter(torch.ones((), dtype=dtype)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-9)
    gradient = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0]).double()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    found = flat(next_update(optimizer, dict(model.named_parameters()), gradient))
    first, second = 0.1 * 0.9 + 0.1 * gradient, 0.001 * 0.999 + 0.001 * gradient.square()
    expected = first / (1 - 0.9**2) / ((second / (1 - 0.999**2)).sqrt() + 1e-8)
    assert found.dtype == torch.float64
    torch.testing.assert_close(
        found, expected, rtol=3e-2 if dtype == torch.bfloat16 else 1e-5, atol=0
    )


def test_the_gradient_is_clipped_as_training_clips_it() -> None:
    model, optimizer, gradient = stepped("Adam")
    named = dict(model.named_parameters())
    clipped = flat(next_update(optimizer, named, gradient, max_norm=0.01))
    by_hand = flat(next_update(optimizer, named, gradient * 0.01 / (gradient.norm() + 1e-6)))
    torch.testing.assert_close(clipped, by_hand)
    assert not torch.allclose(clipped, flat(next_update(optimizer, named, gradient)))


def test_what_the_optimizer_does_not_hold_stays() -> None:
    model, _, gradient = stepped("SGD")
    first, *_ = model.parameters()
    update = next_update(torch.optim.SGD([first], lr=0.1), dict(model.named_parameters()), gradient)
    torch.testing.assert_close(update[0].flatten(), gradient[: first.numel()])
    assert not any(bool(part.any()) for part in update[1:])


def test_hooks_and_schedules_do_not_run() -> None:
    model, optimizer, gradient = stepped("AdamW in groups")
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    found = flat(next_update(optimizer, dict(model.named_parameters()), gradient))
    assert calls == []
    assert schedule.last_epoch == 0
    torch.testing.assert_close(found, real_step(model, optimizer, gradient), rtol=1e-9, atol=1e-11)
    assert calls == ["before", "after"]


def test_what_has_no_next_step_is_refused() -> None:
    model, optimizer, gradient = stepped("Adam")
    named = dict(model.named_parameters())
    with pytest.raises(gn.ArgumentError, match=r"`optimizer` must be a torch\.optim\.Optimizer"):
        next_update("Adam", named, gradient)  # type: ignore[arg-type]
    with pytest.raises(gn.ArgumentError, match="holds no trainable parameter of `model`"):
        next_update(torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1), named, gradient)
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    with pytest.raises(gn.ArgumentError, match="must be positive; got 0"):
        next_update(still, named, gradient)
    with pytest.raises(gn.ArgumentError, match="next step of LBFGS cannot be taken on a copy"):
        next_update(torch.optim.LBFGS(model.parameters()), named, gradient)
    optimizer.state[named["0.weight"]]["exp_avg"].fill_(float("nan"))
    with pytest.raises(gn.ArgumentError, match="next step of Adam is not finite"):
        next_update(optimizer, named, gradient)


def test_out_of_memory_is_not_taken_for_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer, gradient = stepped("SGD")

    def full(_: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(torch.optim.SGD, "step", full)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        next_update(optimizer, dict(model.named_parameters()), gradient)


def test_groups_move_in_proportion_to_the_first() -> None:
    model, _, gradient = stepped("SGD")
    sgd = grouped(lambda groups: torch.optim.SGD(groups, lr=0.01), list(model.parameters()))
    *_, last = next_update(sgd, dict(model.named_parameters()), gradient)
    torch.testing.assert_close(last, 3 * gradient[-len(last) :])
