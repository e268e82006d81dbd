"""One call of a custom Function: what moves, in which dtype, and its derivatives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gradnoise.problem.function_part import Part, Pulled, dot
from tests.kernels import Kept, OnceOnly


class Single(torch.autograd.Function):
    """x³ in float32 alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        assert x.dtype == torch.float32
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0].square() * grad


def test_inputs_that_require_a_gradient_move() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    part = Part(Kept, (logits, torch.tensor([0, 1, 2])))
    assert part.moves == [True, False]
    assert part.outputs == [True]
    assert part.dtype == torch.float64  # which the Function takes
    assert Part(Single, (logits,)).dtype == torch.float32
    assert Part(Kept, (logits.detach(), torch.tensor([0, 1, 2]))).moving == []


@pytest.mark.parametrize(("kind", "size"), [(OnceOnly, torch.float64), (Single, torch.float32)])
def test_derivatives_of_a_pull_are_differences(kind: Any, size: torch.dtype) -> None:
    x = torch.tensor([0.3, -1.2, 0.0], dtype=torch.float32, requires_grad=True)
    c = torch.tensor([1.0, 2.0, -1.0], requires_grad=True)
    v = torch.tensor([0.5, 1.0, 2.0])
    part = Part(kind, (x,))
    assert part.dtype == size
    total = (Pulled.apply(part, x, c)[0] * v).sum()
    along_x, along_c = torch.autograd.grad(total, (x, c))
    written = {OnceOnly: torch.tanh, Single: lambda x: x**3}[kind]
    (pulled,) = torch.autograd.grad(written(x), x, c, create_graph=True)
    known = torch.autograd.grad((pulled * v).sum(), (x, c))
    for found, other in zip((along_x, along_c), known, strict=True):
        torch.testing.assert_close(found, other, rtol=2e-3, atol=2e-3)


def test_along_nothing_the_derivatives_are_zero() -> None:
    x, c = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    part = Part(OnceOnly, (x,))
    assert part.step([torch.zeros(2)]) == 0
    total = (Pulled.apply(part, x, c)[0] * 0).sum()
    assert all(not g.any() for g in torch.autograd.grad(total, (x, c)))


def test_the_step_has_the_size_of_the_inputs() -> None:
    part = Part(OnceOnly, (torch.tensor([100.0], requires_grad=True),))
    eps = torch.finfo(torch.float64).eps ** (1 / 3)
    assert part.step([torch.tensor([4.0])]) == pytest.approx(eps * 25)


def test_none_is_zero_in_a_sum_of_products() -> None:
    assert float(dot([torch.ones(2), None], [torch.full((2,), 3.0), torch.ones(5)])) == 6
