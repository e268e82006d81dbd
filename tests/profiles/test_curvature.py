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
from gradnoise.estimators.curvature.curvature_noise import curvature_noise_scale
from gradnoise.estimators.curvature.extreme_eigenvalue import sample_curvatures
from gradnoise.linalg.deflation import explore
from gradnoise.measurement.opened import Opened
from gradnoise.operators.products import Finite
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from gradnoise.profiles.curvature import CurvatureResults, Effort, find_curvature
from gradnoise.tensors.trees import map_samples
from tests import oracles
from tests.cases import labelled, mlp
from tests.many import regression


def test_effort_out_of_range_is_refused() -> None:
    with pytest.raises(gn.ArgumentError, match="`probes` must be a whole number from 2 on; got 1"):
        Effort(probes=1)
    with pytest.raises(gn.ArgumentError, match=r"`accuracy` is a relative error such as 0\.15"):
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


def test_the_error_of_the_direction_is_in_the_interval_of_b_curv() -> None:
    """Wider than with the direction taken as known, and of another value."""
    torch.manual_seed(0)
    data = torch.randn(128, 6).double(), torch.randint(3, (128,))
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    options = Options(population="distribution")
    opened = Opened.open(model, nn.CrossEntropyLoss(), data, options)
    with opened.problem.guard():
        top = explore(opened.hessian(), tol=1e-3, steps=8)[0].vectors[:, 0]
        known = curvature_noise_scale(sample_curvatures(opened.problem, top), opened.moments())
    found = gn.profile(
        model, nn.CrossEntropyLoss(), data, population="distribution"
    ).curvature_noise_scale
    assert float(found) != pytest.approx(float(known), rel=1e-3)
    assert found.high - found.low > 1.5 * (known.high - known.low)


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


def wide(tensors: Any) -> Any:
    return map_samples(lambda t: t.double() if t.is_floating_point() else t, tensors)


@pytest.mark.parametrize("population", ["dataset", "distribution"])
def test_without_second_derivatives_the_whole_profile_is_there(population: str) -> None:
    model, (x, _) = mlp().double(), labelled()
    options: dict[str, Any] = {"population": population, "tol": 1e-6, "accuracy": 0.0}
    found = gn.profile(model, lambda m, x: Once.apply(m(x)).sum(-1), x, **options)
    known = gn.profile(model, lambda m, x: m(x).square().sum(-1), x, **options)
    assert found.estimates.keys() == known.estimates.keys()
    for name, own in known.estimates.items():
        for field in ("value", "low", "high"):
            expected = getattr(own, field)
            size = abs(own.value) if math.isfinite(own.value) else 1.0
            assert getattr(found.estimates[name], field) == pytest.approx(
                expected, rel=1e-5, abs=1e-6 * size, nan_ok=True
            )
    assert found.layers.keys() == known.layers.keys()
    assert float(found.layers["0"].curvature_share) == pytest.approx(
        float(known.layers["0"].curvature_share), rel=1e-5, nan_ok=True
    )
    said = "second derivatives of Once are differences of that operation alone"
    assert said in found.warnings[-1]


def test_in_the_metric_of_an_optimizer_differences_are_in_it_too() -> None:
    """The part of a weight decay that is added to the gradient as well."""
    model, (x, _) = mlp().double(), labelled()
    adam = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1)
    model(x).square().sum().backward()
    adam.step()
    found, known = (
        gn.profile(model, loss_fn, x, optimizer=adam, population="distribution", tol=1e-6)
        for loss_fn in (
            lambda m, x: Once.apply(m(x)).sum(-1),
            lambda m, x: m(x).square().sum(-1),
        )
    )
    assert found.metric == "optimizer"
    for name, own in known.estimates.items():
        expected = pytest.approx(own.value, rel=1e-4, nan_ok=True)
        assert found.estimates[name].value == expected, name
        assert found.estimates[name].high == pytest.approx(own.high, rel=1e-4, nan_ok=True), name


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
    "embedding bag": lambda: (nn.EmbeddingBag(10, 4), squares, torch.randint(0, 10, (5, 5))),
    "attention": lambda: (Flash(), squares, torch.randn(5, 5, 4)),
    "ctc": lambda: (
        nn.Linear(4, 5),
        alignment_loss,
        (torch.randn(5, 6, 4), torch.randint(1, 5, (5, 2))),
    ),
    "distances": lambda: (
        nn.Linear(4, 3),
        lambda m, x: torch.cdist(m(x)[:, None], x.new_zeros(len(x), 2, 3)).square().sum((1, 2)),
        torch.randn(5, 4),
    ),
    "margins": lambda: (
        nn.Linear(4, 3),
        lambda m, b: F.multi_margin_loss(m(b[0]), b[1], reduction="none"),
        (torch.randn(5, 4), torch.randint(0, 3, (5,))),
    ),
    "compiled": lambda: (
        torch.compile(nn.Linear(4, 3), backend="aot_eager"),
        squares,
        torch.randn(5, 4),
    ),
}


# what some versions of torch differentiate twice after all
TWICE = {
    "distances": torch.__version__ >= "2.14",
    "compiled": True,  # the original code runs
}


@pytest.mark.parametrize("name", ONCE_ONLY)
def test_what_torch_differentiates_once_alone_has_its_curvature(name: str) -> None:
    torch.manual_seed(0)
    model, loss_fn, batch = ONCE_ONLY[name]()
    model, batch = model.double(), wide(batch)
    truth = oracles.differenced(getattr(model, "_orig_mod", model), loss_fn, batch)
    values, vectors = torch.linalg.eigh(truth.hessian)
    mean = truth.gradients.mean(0)
    spread = ((truth.hessians @ vectors[:, -1]) @ vectors[:, -1]).var()
    # of five samples, 40 probes are all sign vectors
    p = gn.profile(model, loss_fn, batch, tol=1e-6, accuracy=0.0, probes=40)
    assert float(p.sharpness) == pytest.approx(float(values[-1]), rel=1e-4)
    assert float(p.grad_curvature) == pytest.approx(float(mean @ truth.hessian @ mean), rel=1e-4)
    trace = float((truth.hessian * truth.covariance).sum())
    assert p.trace_hessian_cov.low <= trace * (1 + 1e-4)
    assert p.trace_hessian_cov.high >= trace * (1 - 1e-4)
    assert float(p.curvature_noise_scale) == pytest.approx(
        float(spread / values[-1] ** 2), rel=1e-3, abs=1e-6, nan_ok=True
    )
    said = [warning for warning in p.warnings if "differences" in warning]
    assert len(said) == (not TWICE.get(name, False))
    if name == "attention":
        assert said[0].startswith("curvature is from differences of gradients")
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


def test_the_error_of_differences_is_in_the_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, batch = Flash(), torch.randn(5, 5, 4)
    monkeypatch.setattr(Finite, "resolution", 0.01)
    p = gn.profile(model, squares, batch, tol=1e-4)
    for found, times in ((p.sharpness, 1.0), (p.grad_curvature, 1.5), (p.trace_hessian_cov, 1.5)):
        assert found.high - found.value >= 0.0099 * times * found.value
        assert found.value - found.low >= 0.0099 * times * found.value
    assert "relative error of about 0.01" in p.warnings[-1]


@pytest.mark.parametrize("population", ["dataset", "distribution", 2000])
def test_of_many_samples_the_cheap_way_agrees_with_the_full_one(population: str | int) -> None:
    model, criterion, batch = regression()
    cheap, full = (
        gn.profile(model, criterion, batch, population=population, accuracy=accuracy)
        for accuracy in (0.15, 0.001)
    )
    for name, value in full.estimates.items():
        ours, rounding = cheap.estimates[name], 1e-3 * abs(float(value))
        assert ours.low <= value.high + rounding, name
        assert value.low <= ours.high + rounding, name
        assert ours.is_resolved, name
    if population == "dataset":
        for name in ("noise_scale", "trace_hessian_cov"):
            half = (cheap.estimates[name].high - cheap.estimates[name].low) / 2
            assert half <= 0.15 * float(cheap.estimates[name]) * 1.001
        assert cheap.grad_curvature.stderr == 0
        assert float(cheap.grad_curvature) == pytest.approx(float(full.grad_curvature), rel=1e-9)


def test_of_many_samples_an_interrupted_profile_leaves_all_as_found() -> None:
    model, _, batch = regression()
    model.weight.grad = torch.ones_like(model.weight)
    before, state = model.weight.detach().clone(), torch.get_rng_state()
    for stop in (3, 30, 60, 90):
        calls = 0

        def losses(net: nn.Module, data: Any, last: int = stop) -> Tensor:
            nonlocal calls
            calls += 1
            if calls == last:
                raise KeyboardInterrupt
            return F.mse_loss(net(data[0]), data[1], reduction="none").mean(1)

        with pytest.raises(KeyboardInterrupt):
            gn.profile(model, losses, batch, micro_batch=100)
        torch.testing.assert_close(model.weight.detach(), before, rtol=0, atol=0)
        torch.testing.assert_close(model.weight.grad, torch.ones_like(before), rtol=0, atol=0)
        assert model.weight.requires_grad
        assert torch.equal(state, torch.get_rng_state())
        assert not model._forward_hooks


def test_the_curvature_that_is_known_is_that_of_the_samples_that_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, criterion, batch = regression()
    gaps = []

    def checked(problem: Problem, directions: Tensor, curvatures: Tensor) -> None:
        own = sample_curvatures(problem, directions[0])
        gaps.append(float((own - curvatures).abs().max() / own.abs().max()))

    monkeypatch.setattr("gradnoise.profiles.curvature.measure_curvature_spread", checked)
    for population in ("dataset", "distribution"):
        gn.profile(model, criterion, batch, population=population)
    assert len(gaps) == 2
    assert max(gaps) < 1e-9
