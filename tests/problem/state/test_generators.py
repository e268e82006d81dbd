"""Generators of the user's own: found, seeded with the others, and left as they were."""

from __future__ import annotations

import functools
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.problem.state.generators import own_generators, random_states
from tests.refusals import X, Y, linear

SOURCE = torch.Generator()


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.source = linear(), torch.Generator().manual_seed(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + torch.randn(x.shape, generator=self.source))


def ce(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def shaken(model: nn.Module, batch: Any, source: torch.Generator) -> Tensor:
    return ce(model, batch) * (1 + torch.rand(len(batch[1]), generator=source))


def closing_over(source: torch.Generator) -> Any:
    return lambda model, batch: shaken(model, batch, source)


class Loss:
    def __init__(self, source: torch.Generator) -> None:
        self.sources = {"first": [source]}

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        return shaken(model, batch, self.sources["first"][0])

    def method(self, model: nn.Module, batch: Any) -> Tensor:
        return self(model, batch)


def with_default(model: nn.Module, batch: Any, source: torch.Generator = SOURCE) -> Any:
    return shaken(model, batch, source)


def with_global(model: nn.Module, batch: Any) -> Any:
    return shaken(model, batch, SOURCE)


HOLDERS: dict[str, Any] = {
    "a module": (Noisy, ce),
    "a closure": (linear, closing_over(SOURCE)),
    "a partial": (linear, functools.partial(shaken, source=SOURCE)),
    "an attribute": (linear, Loss(SOURCE)),
    "the object of a method": (linear, Loss(SOURCE).method),
    "a default": (linear, with_default),
    "a global name": (linear, with_global),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_generators_that_can_be_seen_are_replayed_and_restored(holder: str) -> None:
    build, loss_fn = HOLDERS[holder]
    model = build()
    (source,) = own_generators(model, loss_fn)
    state = source.get_state()
    first, second = (gn.gradient_moments(model, loss_fn, (X, Y)) for _ in range(2))
    assert float(first.trace_cov) == float(second.trace_cov)
    assert torch.equal(source.get_state(), state)


def test_a_generator_that_cannot_be_found_is_refused() -> None:
    hidden = np.random.default_rng(0)
    loss = lambda m, b: ce(m, b) * (1 + hidden.random())  # noqa: E731
    with pytest.raises(gn.RandomLossError, match=r"cannot be found and set back.*default_rng"):
        gn.gradient_moments(linear(), loss, (X, Y))
    cured = lambda m, b: ce(m, b) * (1 + np.random.rand())  # noqa: E731
    assert float(gn.gradient_moments(linear(), cured, (X, Y), unit="group").trace_cov) > 0


@pytest.mark.parametrize(
    "draw", [torch.rand, lambda _: np.random.rand(), lambda _: random.random()]
)
def test_a_draw_changes_the_states(draw: Any) -> None:
    before = random_states()
    assert before == random_states()
    draw(1)
    assert before != random_states()
