"""Where samples are must be proven, not guessed: models and batches that invite a wrong guess."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.per_sample.hooks.outer_products import SingleOuterProduct
from gradnoise.per_sample.hooks.plan import Planner
from gradnoise.per_sample.hooks.rules import RULES, At, linear
from gradnoise.problem.objective import Objective
from tests.cases import features
from tests.engines import agree, summary
from tests.layer_cases import Function, squares, unpadded


class Multimodal(nn.Module):
    """Attention over audio that some samples do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor, audio: Tensor, has: Tensor) -> Tensor:
        heard = self.attention(audio, audio, audio)[0].tanh().mean(1)
        return self.head(self.inner(x).tanh().mean(1) + has[:, None] * heard)


@pytest.mark.parametrize("has", [[0] * 5 + [1, 1, 0, 1, 1], [1] + [0] * 8 + [1], [0] * 9 + [1]])
def test_samples_without_a_gradient_prove_nothing(has: list[int]) -> None:
    model = Multimodal().double()
    x, audio = torch.randn(10, 3, 4).double(), torch.randn(10, 5, 4).double()
    batch = x, audio, torch.tensor(has, dtype=torch.float64)
    assert agree(model, squares, batch) == "hooks"


def test_what_no_sample_of_the_plan_uses_is_looked_at_in_every_batch() -> None:
    model = Multimodal().double()
    parts = [torch.zeros(10), torch.tensor([0.0, 1] * 5), torch.ones(10)]
    batches = [
        (torch.randn(10, 3, 4).double(), torch.randn(10, 5, 4).double(), has.double())
        for has in parts
    ]
    assert agree(model, squares, batches) == "hooks"


def sorted_by_length(self: Any, x: Tensor, lengths: Tensor) -> Tensor:
    order = torch.argsort(lengths, descending=True, stable=True)
    hidden = self.inner(x[order]).tanh()
    return self.head(hidden[torch.argsort(order)].sum(1))


@pytest.mark.parametrize(
    ("lengths", "sorted_already"),
    [
        ([5, 5, 5, 5, 2, 4, 3, 5], False),
        ([5, 4, 4, 3, 3, 2, 2, 1], True),
        ([3, 1, 2, 5, 4, 1, 2, 3], False),
    ],
)
def test_samples_in_an_order_of_their_own_are_not_mistaken(
    lengths: list[int], sorted_already: bool
) -> None:
    model = Function(sorted_by_length, inner=nn.Linear(4, 4), head=nn.Linear(4, 2)).double()
    engine = agree(model, squares, (torch.randn(8, 5, 4).double(), torch.tensor(lengths)))
    assert (engine == "hooks") == sorted_already


def test_tokens_without_padding_are_not_mistaken_for_samples() -> None:
    model = Function(unpadded, inner=nn.Linear(4, 4), head=nn.Linear(4, 2)).double()
    whole = torch.randn(8, 6, 4).double(), torch.full((8,), 6)
    ragged = torch.randn(8, 6, 4).double(), torch.tensor([6, 6, 6, 6, 6, 2, 3, 5])
    agree(model, squares, ragged)
    assert agree(model, squares, [whole, ragged]) != "hooks"  # gone on with by another


def routed(self: Any, x: Tensor) -> Tensor:
    out = torch.zeros(len(x), 3, dtype=x.dtype)
    for expert, layer in enumerate((self.a, self.b)):
        mine = (x[:, 0] > 0) == bool(expert)
        out[mine] = layer(x[mine])
    return out


def test_experts_that_gather_their_samples_fall_to_another_engine() -> None:
    model = Function(routed, a=nn.Linear(4, 3), b=nn.Linear(4, 3)).double()
    x = torch.randn(8, 4).double()
    x[:, 0] = torch.tensor([1.0, 1, 1, 1, 1, -1, -1, 1])
    assert agree(model, squares, x) == "loop"


CONSTANTS = {
    "an embedding of constants": lambda s, x: x + s.e(torch.zeros(x.shape[:2], dtype=torch.long)),
    "copies by repeat": lambda s, x: torch.cat([s.w.repeat(len(x), 2, 1), x], 1),
    "copies by stack": lambda s, x: x + torch.stack([s.w] * len(x)),
    "copies by tile": lambda s, x: x * s.w.tile(len(x), 1, 1),
    "copies by indexing": lambda s, x: x * s.w[torch.zeros(len(x), dtype=torch.long), None],
    "copies by adding zeros": lambda s, x: x * (s.w[0] + torch.zeros(len(x), 1, 1)),
    "copies for every position": lambda s, x: x * s.w.expand(len(x), x.shape[1], -1),
    "not for samples, but four heads": lambda s, x: x * s.w[0].expand(4, -1).mean(0),
    "not for samples, but five": lambda s, x: x * s.w[0].expand(5, -1).sum(0),
    "a vector": lambda s, x: x @ s.w[0],
    "a block of matrices": lambda s, x: x @ s.w[:, :, None].expand(-1, -1, 4),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_what_is_made_of_parameters_for_every_sample_is_followed(name: str) -> None:
    model = Function(CONSTANTS[name], w=(1, 4), e=nn.Embedding(2, 4)).double()
    assert agree(model, squares, torch.randn(7, 3, 4).double()) == "hooks"


def test_an_axis_that_fits_by_chance_is_not_taken() -> None:
    model = Function(lambda s, x: torch.einsum("nti,io->tno", x, s.w).transpose(0, 1), w=(4, 3))
    batches = [(torch.randn(n, 7, 4).double(),) for n in (9, 7)]
    agree(model.double(), squares, batches)


def test_samples_without_an_axis_of_their_own_are_named() -> None:
    model = Function(lambda self, x: torch.stack([self.a(row) for row in x]), a=nn.Linear(4, 3))
    with pytest.raises(gn.EngineError, match=r"no dimension of the output \(3,\) of linear"):
        summary(model.double(), squares, features())


def test_a_model_that_is_random_is_not_followed() -> None:
    model = Function(lambda self, x: self.a(x) * torch.rand(()), a=nn.Linear(4, 3)).double()
    with pytest.raises(gn.EngineError, match="losses change when the model is evaluated again"):
        summary(model, squares, features())


def test_an_operation_of_several_outputs_is_refused() -> None:
    model = Function(lambda s, x: torch.native_layer_norm(x, (4,), s.w, None, 0.1)[0], w=(4,))
    with pytest.raises(gn.EngineError, match=r"native_layer_norm .* gives several outputs"):
        summary(model.double(), squares, features())


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (2, "the gradient norms of parameter 'weight' differ from those of one"),
        (-1, "the gradients of parameter 'weight' differ from those of one"),
    ],
)
def test_a_rule_that_is_wrong_is_noticed(
    factor: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(at: At, delta: Tensor, *arguments: Any) -> Any:
        return linear(at, factor * delta, *arguments)

    monkeypatch.setitem(RULES, F.linear, replace(RULES[F.linear], factored=wrong))
    with pytest.raises(gn.EngineError, match=message):
        summary(nn.Linear(4, 3).double(), squares, features())


def test_products_with_a_direction_that_are_wrong_are_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = SingleOuterProduct._dots
    monkeypatch.setattr(SingleOuterProduct, "_dots", lambda self, u: 2 * right(self, u))
    with pytest.raises(gn.EngineError, match="'weight' with a direction differ from those of one"):
        summary(nn.Linear(4, 3).double(), squares, features())


@pytest.mark.parametrize("compares", [True, False])
def test_without_a_comparison_no_gradient_of_a_parameter_is_computed(
    compares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are as large as the model, once for each sample of the plan."""
    model, batch = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), torch.randn(5, 4)
    objective = Objective(model, lambda model, batch: model(batch).square().sum(1))
    seen, grad = [], torch.autograd.grad

    def watched(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        seen.extend(inputs)
        return grad(outputs, inputs, *args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    with objective.guard():
        planner = Planner(objective, batch, compares=compares)
    assert len(planner.steps) == 2
    assert any(isinstance(tensor, nn.Parameter) for tensor in seen) is compares
    assert bool(planner.direction) is compares
