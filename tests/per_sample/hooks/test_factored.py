"""Gradients in factors: sums from the factors are those of the gradients written out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.per_sample.hooks import factored as factored_module
from gradnoise.per_sample.hooks.factored import (
    Asked,
    Deferred,
    FactoredGradients,
    Materialised,
    Summed,
)
from tests import oracles
from tests.cases import SAMPLES, labelled, mlp
from tests.engines import flat, summary
from tests.factored_cases import (
    COUNT,
    FIXED,
    convolution,
    lookup,
    normal,
    outer,
    pulled,
    single,
    viewed,
)
from tests.layer_cases import Function, squares

FACTORED: dict[str, Callable[[], FactoredGradients]] = {
    "one position: product": lambda: outer(1),
    "one position of rows": single,
    "one position in groups": lambda: outer(1, groups=3),
    "few positions: Gram": lambda: outer(2, p=16, q=16),
    "many positions: written out": lambda: outer(9),
    "groups": lambda: outer(2, groups=2, p=16, q=16),
    "rows looked up": lookup,
    "at hand": lambda: Materialised(normal(COUNT, 3, 2)),
    "a scalar": lambda: Materialised(normal(COUNT)),
    "computed": lambda: Deferred(
        COUNT, torch.Size([3]), FIXED.__getitem__, ("written out", "test")
    ),
    "windows": lambda: convolution(5),
    "wide windows, grouped": lambda: convolution(5, channels=16),
    "grouped convolution": lambda: convolution(4, channels=32, groups=2),
    "tied": lambda: Summed([outer(2), lookup(), outer(1), lookup(2)]),
    "tied, without a short way": lambda: Summed(
        [lookup(), Materialised(normal(COUNT, 5, 2)), outer()]
    ),
    "two calls of one position": lambda: Summed([single(), single()]),
    "tied to one position": lambda: Summed([lookup(), single()]),
    "tied in groups": lambda: Summed([lookup(rows=10), outer(groups=2)]),
    "disjoint views": lambda: Summed(viewed(slice(0, 2), slice(2, 6))),
    "overlapping views": lambda: Summed(viewed(slice(0, 3), slice(2, 6))),
    "equal views": lambda: Summed(viewed(slice(0, 3), slice(0, 3))),
    "computed from a parameter": pulled,
}


@pytest.mark.parametrize("chunk", [1, 10**6])
@pytest.mark.parametrize("name", FACTORED)
def test_sums_are_those_of_the_gradients(
    name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factored_module, "CHUNK_BYTES", chunk)
    factored = FACTORED[name]()
    gradients = factored.gradients(slice(0, COUNT))
    assert gradients.shape == (COUNT, *factored.shape)
    parts = [factored.gradients(slice(i, i + 1)) for i in range(COUNT)]
    torch.testing.assert_close(torch.cat(parts), gradients)
    directions, scale = normal(2, *factored.shape), normal(*factored.shape).exp()
    for squared in (False, True):
        found = factored.measure(Asked(directions, squared, scale))
        scaled = (gradients * scale).reshape(COUNT, -1).double()
        torch.testing.assert_close(found.sq_norms, scaled.square().sum(1))
        found = factored.measure(Asked(directions, squared))
        rows = gradients.reshape(COUNT, -1).double()
        torch.testing.assert_close(found.total.double(), gradients.sum(0).double())
        torch.testing.assert_close(found.sq_norms, rows.square().sum(1))
        torch.testing.assert_close(found.dots, rows @ directions.reshape(2, -1).T)
        assert (found.squares is None) is not squared
        if found.squares is not None:
            torch.testing.assert_close(found.squares, gradients.double().square().sum(0))
    assert all(factored.method())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    model, loss_fn, (inputs, labels) = mlp(), nn.CrossEntropyLoss(), labelled()
    truth = oracles.dense(model.double(), loss_fn, (inputs, labels), second=False).gradients
    found = summary(model.to(dtype), loss_fn, (inputs.to(dtype), labels))
    assert all(norm.dtype == torch.float64 for norm in found.sq_norms.values())
    norms = torch.stack(list(found.sq_norms.values())).sum(0)
    digits = 16 * torch.finfo(dtype).eps
    torch.testing.assert_close(norms, truth.square().sum(1), rtol=digits, atol=0)
    torch.testing.assert_close(flat(found.total).double(), truth.sum(0), rtol=0.1, atol=digits)


def test_squares_beyond_float16_are_summed_in_float32() -> None:
    model = nn.Linear(4, 3).half()
    inputs = 300 * torch.ones(SAMPLES, 4, dtype=torch.float16)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).float().sum(1)

    found = summary(model, loss, inputs)  # 300² = 90 000 overflows float16
    expected = torch.full((SAMPLES,), 12 * 300.0**2).double()
    torch.testing.assert_close(found.sq_norms["weight"], expected)


def test_overflow_in_half_precision_is_reported() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3)).half()
    inputs = 100 * torch.ones(SAMPLES, 4, dtype=torch.float16)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return 1e6 * model(x).float().sum(1)

    with pytest.raises(gn.LossError, match=r"not finite .*overflow in half precision"):
        gn.per_sample_sq_norms(model, loss, inputs, engine="hooks")


@pytest.mark.parametrize("operation", ["linear", "derived", "einsum", "subtract"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32_everywhere(operation: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    forwards = {
        "linear": lambda s, x: F.linear(x, s.w),
        "derived": lambda s, x: F.linear(x, s.w * 1.0),
        "einsum": lambda s, x: torch.einsum("ni,oi->no", x, s.w),
        "subtract": lambda s, x: x - s.w[0],
    }
    model = Function(forwards[operation], w=(4, 4)).to(dtype)
    inputs = (1 + 0.05 * torch.randn(64, 4)).to(dtype)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).float().square().sum(1)

    moments = gn.gradient_moments(model, loss, inputs, engine="hooks")
    singles = oracles.dense(model, loss, inputs, second=False).gradients.double()
    spread = float(singles.var(0).sum())  # each rounded to half precision once
    assert float(moments.trace_cov) == pytest.approx(spread, rel=0.1)


def test_unmended_norms_of_terms_that_cancel_are_nan() -> None:
    rows, product = lookup(positions=1), single()  # an embedding tied to the head
    product.left[1] = -torch.eye(5, dtype=torch.float64)[rows.ids[1, 0]]
    product.right[1] = rows.values[1, 0] * (1 + 1e-9)
    summed = Summed([rows, product])
    mended, plain = (summed.measure(Asked(mend=mend)).sq_norms for mend in (True, False))
    assert plain.isnan().nonzero().tolist() == [[1]]
    assert bool(mended.isfinite().all())
    torch.testing.assert_close(mended[plain.isfinite()], plain[plain.isfinite()])


def test_uses_that_cancel_keep_their_digits() -> None:
    """The two branches of a siamese network see nearly the same: norms are never negative."""
    torch.manual_seed(0)
    model = Function(lambda s, a, b: s.f(a) - s.f(b), f=nn.Linear(64, 64))
    first = torch.randn(40, 64)
    batch = first, first + 1e-3 * torch.randn(40, 64)
    norms = gn.per_sample_sq_norms(model, squares, batch, engine="auto")
    exact = tuple(part.double() for part in batch)
    truth = oracles.dense(model.double(), squares, exact, second=False).gradients.square().sum(1)
    torch.testing.assert_close(norms, truth, rtol=0.02, atol=0)
