"""Operations without a rule: differentiated sample by sample, or refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import gradnoise as gn
from gradnoise.per_sample.hooks.fallback import local
from gradnoise.per_sample.hooks.layout import Layout
from gradnoise.per_sample.hooks.rules import At
from tests.engines import summary
from tests.factored_cases import COUNT, normal
from tests.layer_cases import Function, squares

FIVE = torch.linspace(-1, 1, 5 * 5 * 4, dtype=torch.float64).reshape(5, 5, 4)
AMBIGUOUS = {
    "several axes that could be those of the samples": (
        lambda s, x: torch.einsum("nti,io->tno", x, s.w).transpose(0, 1),
        {"w": (4, 3)},
        FIVE,
    ),
    r"an input of shape \(3, 4, 5\) has no axis of the samples": (
        lambda s, x: torch.einsum("tin,io->nto", x.permute(1, 2, 0), s.w),
        {"w": (4, 3)},
        FIVE[:, :3],
    ),
    r"an operation gives shape \(.*\) for one sample alone, and \(.*\) for it within the batch": (
        lambda s, x: torch.where(x > 0, x, s.w),
        {"w": (5, 4)},
        FIVE[:, 0],
    ),
}


@pytest.mark.parametrize("message", AMBIGUOUS)
def test_what_cannot_be_attributed_to_samples_is_refused(message: str) -> None:
    forward, shapes, batch = AMBIGUOUS[message]
    with pytest.raises(gn.EngineError, match=message):
        summary(Function(forward, **shapes).double(), squares, batch)


def data_dependent(x: Tensor, w: Tensor) -> Tensor:
    """Control flow on the data, which vmap cannot follow."""
    return torch.stack([row * w if float(row.sum()) > 0 else row - w for row in x])


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "vectorised": lambda x, w: (x * w).sin(),
    "in a loop": data_dependent,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_are_those_of_every_sample_alone(name: str) -> None:
    operation = OPERATIONS[name]
    x, w, delta = normal(COUNT, 3), normal(3).requires_grad_(), normal(COUNT, 3)
    at = At(Layout(0), COUNT, torch.float64)
    found = local(at, delta, lambda given: operation(*given), [x, w], [1], [0])[1]
    singles = [
        torch.autograd.grad(operation(x[i : i + 1], w), w, delta[i : i + 1])[0]
        for i in range(COUNT)
    ]
    torch.testing.assert_close(found.gradients(slice(0, COUNT)), torch.stack(singles))
    torch.testing.assert_close(found.gradients(slice(1, 3)), torch.stack(singles[1:3]))
    assert found.method() == ("vmap of this operation", "it has no rule of its own")


def test_several_parameters_of_one_operation_have_gradients_of_their_own() -> None:
    x, w, b, delta = normal(COUNT, 3), normal(3), normal(3), normal(COUNT, 3)
    at = At(Layout(0), COUNT, torch.float64)
    found = local(
        at, delta, lambda given: given[0] * given[1] + given[2].exp(), [x, w, b], [1, 2], [0]
    )
    torch.testing.assert_close(found[1].gradients(slice(None)), delta * x)
    torch.testing.assert_close(found[2].gradients(slice(None)), delta * b.exp())


def test_copies_for_every_sample_keep_their_own_entries() -> None:
    w, delta = normal(3), normal(COUNT, 3)
    at = At(Layout(0), COUNT, torch.float64)
    found = local(at, delta, lambda given: given[0].square().repeat(COUNT, 1), [w], [0], [])[0]
    torch.testing.assert_close(found.gradients(slice(0, COUNT)), 2 * w * delta)


class BiasedAttention(torch.nn.Module):
    """Attention with dropout inside and a learned bias that hardly matters, as BEiT has."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = torch.nn.Linear(3, 3)
        self.bias = torch.nn.Parameter(torch.randn(4, 4))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        states, dropped = self.inner(x)[:, None], 0.3 * self.training
        attend = torch.nn.functional.scaled_dot_product_attention
        seen = attend(states, states, states, attn_mask=self.bias, dropout_p=dropped)
        return 30 * states.flatten(1) + 1e-6 * seen.flatten(1)


def test_an_operation_that_draws_is_not_evaluated_again() -> None:
    """Other draws gave a wrong gradient of the bias."""
    source = torch.Generator().manual_seed(1)
    data = tuple(torch.randn(12, *s, generator=source).double() for s in ((4, 3), (12,)))
    model, mse = BiasedAttention(), torch.nn.MSELoss()
    found = gn.gradient_moments(model, mse, data, unit="sample")
    alone = gn.gradient_moments(model, mse, data, unit="sample", engine="loop")
    torch.testing.assert_close(found.mean["bias"], alone.mean["bias"], rtol=1e-7, atol=0)
    with pytest.raises(gn.EngineError, match="uses a parameter draws random numbers"):
        gn.gradient_moments(model, mse, data, engine="hooks", unit="sample")
    assert gn.explain_engine(model.eval(), mse, data).engine == "hooks"
