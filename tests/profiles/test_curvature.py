"""The curvature half of a profile: missing second derivatives, and errors of the user's code."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import gradnoise as gn
from gradnoise.measurement.opened import Opened
from gradnoise.problem.options import Options
from gradnoise.profiles.curvature import CurvatureResults, Effort, find_curvature
from tests import oracles
from tests.cases import labelled, mlp


def test_effort_out_of_range_is_refused() -> None:
    with pytest.raises(gn.ArgumentError, match="`probes` must be a whole number from 2 on; got 1"):
        Effort(probes=1)
    with pytest.raises(gn.ArgumentError, match=r"`accuracy` is a relative error such as 0\.05"):
        Effort(accuracy=-0.1)


def test_layers_have_shares_where_curvature_was_measured() -> None:
    layers = gn.gradient_moments(mlp().double(), nn.CrossEntropyLoss(), labelled()).layers
    assert CurvatureResults({}).shared(layers) is layers
    profile = gn.profile(mlp().double(), nn.CrossEntropyLoss(), labelled(), probes=4)
    shares = [float(layer.curvature_share) for layer in profile.layers.values()]
    assert sum(shares) == pytest.approx(1)


def test_progress_is_told_as_the_work_goes_on() -> None:
    started: list[tuple[str, int | None]] = []
    done: list[int] = []

    def stage(name: str, total: int | None) -> Any:
        started.append((name, total))
        return done.append

    opened = Opened.open(mlp().double(), nn.CrossEntropyLoss(), labelled(), Options())
    with opened.problem.guard():
        results = find_curvature(opened, opened.moments(), stage, Effort(probes=4))
    assert started == [("sharpness (Lanczos)", None), ("noise scale (probes)", 4)]
    assert sum(done) >= results.matvecs
    assert set(results.estimates) == {
        *("noise_scale", "sharpness", "grad_curvature"),
        *("trace_hessian_cov", "curvature_noise_scale"),
    }


class Once(torch.autograd.Function):
    """x² whose derivative cannot be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * grad


def test_without_second_derivatives_the_gradient_part_is_still_there() -> None:
    model = mlp().double()
    batch = labelled()[0]
    p = gn.profile(model, lambda m, x: Once.apply(m(x)).sum(-1), batch)
    assert p.simple_noise_scale.is_resolved
    with pytest.raises(
        gn.NotMeasuredError, match=r"`noise_scale` was not measured.*no second deriv"
    ):
        _ = p.noise_scale
    with pytest.raises(gn.NotMeasuredError, match="`sharpness` was not measured"):
        p.stable_lr()
    assert "curvature was not measured" in str(p)


class ShortOfMemory(torch.autograd.Function):
    """x whose derivative raises where it is to be differentiated again."""

    error: RuntimeError

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise ShortOfMemory.error
        return grad.clone()


class Flash(nn.Module):
    """Attention that insists on a kernel without second derivatives."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.linear(x).unsqueeze(1).chunk(3, dim=-1)
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(q, k, v)


def squares(model: nn.Module, batch: Any) -> Tensor:
    return model(batch).square().flatten(1).sum(1)


def alignment_loss(model: nn.Module, batch: Any) -> Tensor:
    scores, count = model(batch[0]).log_softmax(-1).transpose(0, 1), len(batch[0])
    lengths = torch.full((count,), 6), torch.full((count,), 2)
    return F.ctc_loss(scores, batch[1], *lengths, reduction="none")


ONCE_ONLY: dict[str, Any] = {
    "embedding bag": lambda: (nn.EmbeddingBag(10, 4), squares, torch.randint(0, 10, (8, 5))),
    "attention": lambda: (Flash(), squares, torch.randn(8, 5, 4)),
    "ctc": lambda: (
        nn.Linear(4, 5),
        alignment_loss,
        (torch.randn(8, 6, 4), torch.randint(1, 5, (8, 2))),
    ),
    "distances": lambda: (
        nn.Linear(4, 3),
        lambda m, x: torch.cdist(m(x)[:, None], torch.zeros(len(x), 2, 3)).square().sum((1, 2)),
        torch.randn(8, 4),
    ),
    "margins": lambda: (
        nn.Linear(4, 3),
        lambda m, b: F.multi_margin_loss(m(b[0]), b[1], reduction="none"),
        (torch.randn(8, 4), torch.randint(0, 3, (8,))),
    ),
    "compiled": lambda: (
        torch.compile(nn.Linear(4, 3), backend="aot_eager"),
        squares,
        torch.randn(8, 4),
    ),
}


# what some versions of torch differentiate twice after all
TWICE = {
    "distances": torch.__version__ >= "2.14",
    "compiled": True,  # the original code runs
}


@pytest.mark.parametrize("name", ONCE_ONLY)
def test_what_torch_differentiates_once_alone_leaves_the_gradient_part(name: str) -> None:
    torch.manual_seed(0)
    model, loss_fn, batch = ONCE_ONLY[name]()
    p = gn.profile(model, loss_fn, batch)
    assert float(p.trace_cov) > 0
    if TWICE.get(name):
        written = getattr(model, "_orig_mod", model)
        largest = torch.linalg.eigvalsh(oracles.dense(written, loss_fn, batch).hessian)[-1]
        assert float(p.sharpness) == pytest.approx(float(largest), rel=1e-3)
        return
    note = "curvature was not measured: torch cannot differentiate a part of the model twice"
    assert any(warning.startswith(note) for warning in p.warnings)
    with pytest.raises(gn.CurvatureError, match="differentiate a part of the model twice"):
        gn.Hessian(model, loss_fn, batch, hvp="kept")
    assert gn.Hessian(model, loss_fn, batch).hvp == "finite"


class BugError(RuntimeError):
    """Of the user's own code."""


def evaluations(measure: Any, fails_from: float = math.inf) -> int:
    """How often a measurement evaluates the losses; from this number on it raises."""
    calls = [0]

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        calls[0] += 1
        if calls[0] >= fails_from:
            raise BugError("a bug in my loss_fn")
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none")

    torch.manual_seed(0)
    measure(mlp().double(), loss_fn, labelled(), population="distribution")
    return calls[0]


def test_an_error_of_the_users_own_is_raised_wherever_curvature_meets_it() -> None:
    gradient_part = evaluations(gn.gradient_moments)
    whole = evaluations(gn.profile)
    assert whole > gradient_part + 20
    for number in range(gradient_part + 1, whole + 1, 3):
        with pytest.raises(BugError, match="a bug in my loss_fn"):
            evaluations(gn.profile, fails_from=number)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 3 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory"),
    ],
)
def test_memory_that_is_short_is_no_lack_of_second_derivatives(error: RuntimeError) -> None:
    ShortOfMemory.error = error
    measured = mlp().double(), lambda m, x: ShortOfMemory.apply(m(x)).sum(-1), labelled()[0]
    for call in (gn.profile, gn.sharpness, gn.Hessian):
        with pytest.raises(type(error), match="memory"):
            call(*measured)


def test_a_hessian_that_is_not_finite_does_not_take_the_gradients_with_it() -> None:
    model = nn.Linear(3, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    loss = lambda m, x: m.weight.abs().pow(1.5).sum() + (x - m.weight).square().sum(1)  # noqa: E731
    profile = gn.profile(model, loss, torch.randn(20, 3).double())
    assert profile.trace_cov.is_exact
    assert any("curvature was not measured" in warning for warning in profile.warnings)
