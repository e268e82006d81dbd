"""Operations that torch differentiates once alone have second derivatives by differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.problem.objective import Objective
from gradnoise.problem.once_only import is_known, once_only, operations_differenced
from tests import oracles


class Bag(nn.Module):
    """Bags of an embedding, then ReLU, whose kinks differences of the whole gradient meet."""

    def __init__(self, summed: Any) -> None:
        super().__init__()
        self.table, self.last = nn.Parameter(torch.randn(10, 6)), nn.Linear(6, 3)
        self.summed = summed

    def forward(self, words: Tensor) -> Tensor:
        return self.last(self.summed(words, self.table).relu())


class Scaled(nn.Module):
    """A linear layer, another activation."""

    def __init__(self, activation: Any) -> None:
        super().__init__()
        self.first, self.last, self.activation = nn.Linear(4, 5), nn.Linear(5, 3), activation

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.activation(3 * self.first(x)))


def words() -> Tensor:
    return torch.randint(0, 10, (12, 5))


def sampled(grid: Tensor) -> Tensor:
    image = torch.arange(25.0, dtype=grid.dtype).reshape(1, 1, 5, 5).square() / 100
    where = grid[:, None, :4].reshape(len(grid), 1, 2, 2).tanh() * 0.7
    return F.grid_sample(image.expand(len(grid), 1, 5, 5), where, align_corners=True).flatten(1)


CASES: dict[str, Any] = {
    "embedding bag": (
        lambda: Bag(lambda w, t: F.embedding_bag(w, t, mode="sum")),
        lambda: Bag(lambda w, t: F.embedding(w, t).sum(1)),
        words,
    ),
    "hardsigmoid": (
        lambda: Scaled(F.hardsigmoid),
        lambda: Scaled(lambda x: (x + 3).clamp(0, 6) / 6),
        lambda: torch.randn(12, 4, dtype=torch.float64),
    ),
    "distances": (
        lambda: Scaled(lambda h: torch.cdist(h[:, None], h.new_ones(len(h), 5, 5).cumsum(1))[:, 0]),
        lambda: Scaled(
            lambda h: (h[:, None] - h.new_ones(len(h), 5, 5).cumsum(1)).square().sum(2).sqrt()
        ),
        lambda: torch.randn(12, 4, dtype=torch.float64),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_profile_has_the_curvature_of_the_same_model_written_out(name: str) -> None:
    made, written, inputs = CASES[name]
    model, known, x = made().double(), written().double(), inputs()
    known.load_state_dict(model.state_dict())
    batch = (x, torch.arange(12) % 3)
    options: dict[str, Any] = {"population": "distribution", "tol": 1e-7, "accuracy": 0.0}
    found = gn.profile(model, nn.CrossEntropyLoss(), batch, **options)
    own = gn.profile(known, nn.CrossEntropyLoss(), batch, **options)
    for key, estimate in own.estimates.items():
        for field in ("value", "low", "high"):
            expected = pytest.approx(getattr(estimate, field), rel=1e-5, abs=1e-8, nan_ok=True)
            assert getattr(found.estimates[key], field) == expected, (key, field)


def test_what_this_torch_differentiates_twice_is_left_to_it() -> None:
    model = Scaled(sampled).double()
    model.last = nn.Linear(2, 3).double()
    x, y = torch.randn(12, 4, dtype=torch.float64), torch.arange(12) % 3

    def losses(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none")

    truth = oracles.differenced(model, losses, (x, y)).hessian
    hessian = gn.Hessian(model, losses, (x, y), hvp="kept")
    v = torch.randn(hessian.shape[0], dtype=torch.float64)
    torch.testing.assert_close(hessian @ v, truth @ v, rtol=1e-5, atol=1e-6)
    assert hessian.problem.objective.once == []


def test_they_are_noticed_and_others_are_not() -> None:
    objective = Objective(
        Bag(lambda w, t: F.embedding_bag(w, t)), lambda m, b: m(b).square().sum(1)
    )
    assert once_only(lambda watch: objective.losses(words(), lambda _: watch)) == [F.embedding_bag]
    assert not is_known(F.linear)
    plain = Objective(nn.Linear(3, 1), lambda m, x: m(x)[:, 0])
    assert once_only(lambda watch: plain.losses(torch.ones(2, 3), lambda _: watch)) == []


def test_without_a_gradient_the_operation_itself_runs() -> None:
    table = torch.randn(10, 6)
    with operations_differenced([F.embedding_bag]):
        assert not F.embedding_bag(words(), table).requires_grad
        moving = F.embedding_bag(words(), weight=table.requires_grad_(), mode="max")
    assert type(moving.grad_fn).__name__ == "_DifferencedBackward"
