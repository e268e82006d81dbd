"""Regions under activation checkpointing run like any other inside of the guard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.utils import checkpoint as checkpoint_module
from torch.utils.checkpoint import checkpoint

from gradnoise.problem.state.guard import untouched


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
        self.head, self.reentrant = nn.Linear(3, 1), reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = x.requires_grad_() if self.reentrant else x
        return self.head(checkpoint(self.inner, x, use_reentrant=self.reentrant))


@pytest.mark.parametrize("reentrant", [True, False])
def test_regions_under_checkpointing_run_like_any_other(reentrant: bool) -> None:
    model, x = Checkpointed(reentrant), torch.randn(5, 3)
    bare = nn.Sequential(model.inner, model.head)
    parameters = list(model.parameters())
    model(x).sum().backward()
    truth = [p.grad for p in parameters]
    second = torch.autograd.grad(bare(x).square().sum(), parameters, create_graph=True)
    second = torch.autograd.grad(sum(g.sum() for g in second), parameters)
    with untouched(model):
        found = torch.autograd.grad(model(x).sum(), parameters)
        first = torch.autograd.grad(model(x).square().sum(), parameters, create_graph=True)
        product = torch.autograd.grad(sum(g.sum() for g in first), parameters)
    torch.testing.assert_close(list(found), truth)
    torch.testing.assert_close(product, second)
    assert checkpoint_module.CheckpointFunction.__name__ == "CheckpointFunction"
    if reentrant:
        with pytest.raises(RuntimeError, match="appears to not have been used"):
            torch.autograd.grad(model(x).sum(), parameters)


def test_a_reentrant_region_without_a_gradient_to_hand_on_has_none() -> None:
    model, x = Checkpointed(reentrant=True), torch.randn(5, 3)
    model.head = checkpointed_twin = nn.Linear(3, 1)
    run = lambda: checkpointed_twin(checkpoint(model.inner, x, use_reentrant=True))  # noqa: E731
    with untouched(model):
        assert run().grad_fn is not None
        found = torch.autograd.grad(run().sum(), list(model.parameters()), allow_unused=True)
    assert [g is None for g in found] == [True] * 4 + [False] * 2


def test_the_context_of_a_checkpoint_is_entered() -> None:
    entered: list[str] = []

    @contextmanager
    def context(name: str) -> Iterator[None]:
        entered.append(name)
        yield

    model, x = Checkpointed(reentrant=False), torch.randn(5, 3)
    contexts = lambda: (context("forward"), context("again"))  # noqa: E731
    with untouched(model):
        checkpoint(model.inner, x, use_reentrant=False, context_fn=contexts).sum().backward()
    assert entered == ["forward"]


def test_a_checkpoint_is_passed_under_its_name_in_later_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Torch 2.14 calls another private function, which is given its options by name."""
    name = "_checkpoint_without_reentrant_generator_impl"
    monkeypatch.setattr(checkpoint_module, name, None, raising=False)
    entered: list[str] = []

    @contextmanager
    def context(name: str) -> Iterator[None]:
        entered.append(name)
        yield
        entered.append(f"{name} left")

    contexts = lambda: (context("forward"), context("again"))  # noqa: E731
    with untouched(nn.Linear(1, 1)):
        generator = getattr(checkpoint_module, name)
        around = generator(
            nn.Linear(1, 1),
            (torch.ones(1),),
            {},
            preserve_rng_state=True,
            context_fn=contexts,
            determinism_check="default",
            debug=False,
            early_stop=True,
            respect_saved_tensors_hooks=None,
        )
        next(around)
        assert entered == ["forward"]
        assert list(around) == []
        assert entered == ["forward", "forward left"]
        assert len(list(generator(nn.Linear(1, 1), (), {}))) == 1
    assert getattr(checkpoint_module, name) is None


def test_threads_that_leave_in_another_order_put_checkpointing_back() -> None:
    found = checkpoint_module.CheckpointFunction
    first, second = untouched(nn.Linear(1, 1)), untouched(nn.Linear(1, 1))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert checkpoint_module.CheckpointFunction is not found
    second.__exit__(None, None, None)
    assert checkpoint_module.CheckpointFunction is found
