"""Custom autograd Functions that hide their second derivatives are found and differenced."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.problem.custom_functions import custom_functions, differenced, hiding
from tests import oracles
from tests.cases import labelled
from tests.kernels import Kept, OnceOnly, Opaque


class Good(Function):
    """tanh, written so that it can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * (1 - ctx.saved_tensors[0].tanh() ** 2)


class Kinked(Function):
    """ReLU: no curvature beside its kinks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * (ctx.saved_tensors[0] > 0)


class StraightThrough(Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> Tensor:
        return grad


class Noisy(Function):
    """Draws anew at every call."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        factor = torch.rand_like(x)
        ctx.save_for_backward(factor)
        return x * factor

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0]


class NewStyle(Function):
    """`forward` without a context, two results, an argument that is no tensor."""

    @staticmethod
    def forward(x: Tensor, power: int, w: Tensor) -> tuple[Tensor, Tensor]:
        return x**power * w, x.argmax(-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, power, w = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(power * x ** (power - 1) * w, x**power)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> Any:
        slope, of_weight = ctx.saved_tensors
        return grad * slope, None, (grad * of_weight).sum(0)


class OnlySingle(Opaque):
    """A kernel for float32 alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            raise TypeError
        return Opaque.forward(ctx, x)


def points() -> Tensor:
    x = torch.randn(5, 4, dtype=torch.float64)
    x[:, :2] = 0  # where ReLU has its kink
    return x.requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("kind", "hides"),
    [
        *((kind, True) for kind in (Opaque, OnceOnly)),
        *((kind, False) for kind in (Good, Kinked, StraightThrough, Noisy)),
    ],
)
def test_what_hides_second_derivatives_is_told_from_what_does_not(
    kind: Any, hides: bool, dtype: torch.dtype
) -> None:
    x = points().to(dtype)
    before = dict(vars(kind))
    assert custom_functions(kind.apply(x).sum(1)) == [kind]
    assert hiding([kind], lambda: kind.apply(x)) == [kind] * hides
    assert {k: v for k, v in vars(kind).items() if k != "_backward_cls"} == {
        k: v for k, v in before.items() if k != "_backward_cls"
    }


def test_the_graph_of_torchs_own_operations_has_no_custom_function() -> None:
    assert custom_functions(points().exp().sum(1)) == []


def second(losses: Any, x: Tensor) -> list[Tensor]:
    """∇ℓ, Hu and uᵀH_iu, through ones that weigh the samples."""
    value = losses(x)
    w = torch.ones_like(value, requires_grad=True)
    u = torch.linspace(-1, 1, x.numel()).reshape(x.shape).to(x)
    (g,) = torch.autograd.grad(value, x, w, create_graph=True)
    (product,) = torch.autograd.grad((g * u).sum(), x, create_graph=True)
    (each,) = torch.autograd.grad((product * u).sum(), w)
    return [g.detach(), product.detach(), each]


def test_kept_derivatives_are_found_and_right_in_a_composition() -> None:
    x, y = points(), torch.arange(5) % 4

    def inner(loss: Any) -> Any:
        return lambda x: loss(2 * x.tanh(), y).square()

    assert hiding([Kept], lambda: inner(Kept.apply)(x)) == [Kept]
    with differenced([Kept]):
        found = second(inner(Kept.apply), x)
    known = second(inner(lambda z, y: F.cross_entropy(z, y, reduction="none")), x)
    for own, other in zip(found, known, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-7, atol=1e-8)


def test_functions_of_the_new_style_and_of_several_tensors() -> None:
    x, w = points(), torch.rand(4, dtype=torch.float64, requires_grad=True)
    assert hiding([NewStyle], lambda: NewStyle.apply(x, 3, w)) == [NewStyle]

    def losses(function: Any) -> Any:
        return lambda x: (function(x, w * x.mean())[0] + x).square().sum(1)

    with differenced([NewStyle]):
        found = second(losses(lambda x, w: NewStyle.apply(x, 3, w)), x)
    known = second(losses(lambda x, w: (x**3 * w, None)), x)
    for own, other in zip(found, known, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-7)


def test_a_kernel_for_one_dtype_is_differenced_in_it() -> None:
    x = points().float()
    assert hiding([OnlySingle], lambda: OnlySingle.apply(x)) == [OnlySingle]
    with differenced([OnlySingle]):
        found = second(lambda x: OnlySingle.apply(x).square().sum(1), x)
    known = second(lambda x: x.tanh().square().sum(1), x)
    for own, other in zip(found, known, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-2, atol=1e-2)


def test_an_error_leaves_the_function_as_it_was() -> None:
    before = (Kept.forward, Kept.backward)
    fails = pytest.raises(KeyError, match="of the user's")
    with fails, differenced([Kept]):
        assert Kept.backward is not before[1]
        raise KeyError("of the user's")
    assert (Kept.forward, Kept.backward) == before


def fused(model: nn.Module, batch: Any) -> Tensor:
    return Kept.apply(model(batch[0]), batch[1])


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, None])
def test_a_fused_cross_entropy_has_the_curvature_of_the_plain_one(activation: Any) -> None:
    """With ReLU too, whose kinks differences of the whole gradient would meet."""
    layers = [nn.Linear(4, 5), activation(), nn.Linear(5, 3)] if activation else [nn.Linear(4, 3)]
    model = nn.Sequential(*layers).double()
    batch = labelled()
    options: dict[str, Any] = {"population": "distribution", "tol": 1e-7, "accuracy": 0.0}
    found = gn.profile(model, fused, batch, **options)
    known = gn.profile(model, nn.CrossEntropyLoss(), batch, **options)
    for name, own in known.estimates.items():
        for field in ("value", "low", "high"):
            expected = pytest.approx(getattr(own, field), rel=1e-5, abs=1e-9, nan_ok=True)
            assert getattr(found.estimates[name], field) == expected, (name, field)
    assert "second derivatives of Kept are differences" in found.warnings[-1]
    largest = torch.linalg.eigvalsh(oracles.dense(model, nn.CrossEntropyLoss(), batch).hessian)[-1]
    for hvp in ("auto", "kept", "fresh"):
        value = gn.sharpness(model, fused, batch, hvp=hvp, tol=1e-8).values[0]
        assert float(value) == pytest.approx(float(largest), rel=1e-6)
    gauss, plain = (
        gn.sharpness(model, loss_fn, batch, operator="gauss-newton", tol=1e-8).values[0]
        for loss_fn in (fused, nn.CrossEntropyLoss())
    )
    assert float(gauss) == pytest.approx(float(plain), rel=1e-6)
