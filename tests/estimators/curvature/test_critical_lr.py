"""The critical learning rate: quadratics in closed form, then models, precisions and intervals."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import gradnoise as gn
from gradnoise.estimators.curvature import critical_lr as module
from tests.coverage import fewest, most

H = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, 0.3], [0.0, 0.3, 0.2]], dtype=torch.float64)
TOY = gn.toy.NoisyQuadratic(H, torch.tensor([1.0, -2.0, 0.5]))
X = TOY.sample(20, seed=0)

MAKERS: dict[str, Any] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01),
    "heavy ball": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "Nesterov with decay": lambda p: torch.optim.SGD(
        p, lr=1e-3, momentum=0.9, nesterov=True, weight_decay=0.1
    ),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.2),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
}


def step(model: nn.Module, loss_fn: Any, data: Any, optimizer: Any) -> None:
    optimizer.zero_grad()
    loss_fn(model, data).mean().backward()
    optimizer.step()


def trained(name: str, steps: int = 3) -> tuple[nn.Module, Any]:
    model = TOY.model()
    optimizer = MAKERS[name](list(model.parameters()))
    for _ in range(steps):
        step(model, TOY.loss_fn, X, optimizer)
    optimizer.zero_grad()
    return model, optimizer


def in_closed_form(model: Any, optimizer: Any, made: Tensor, judged: Tensor) -> float:
    """2gᵀu/uᵀHu with u from a step that is taken; it moves the model."""
    w = model.w.detach().clone()
    step(model, TOY.loss_fn, made, optimizer)
    u = (w - model.w.detach()) / optimizer.param_groups[0]["lr"]
    return float(2 * (H @ (w - judged.mean(0))) @ u / (u @ H @ u))


@pytest.mark.parametrize("rate", [1.0, 1e-5, 1e4])
@pytest.mark.parametrize("name", MAKERS)
def test_of_a_quadratic_it_is_the_closed_form(name: str, rate: float) -> None:
    model, optimizer = trained(name)
    optimizer.param_groups[0]["lr"] *= 1.0 if name == "Adafactor" else rate  # it caps its rate
    found = gn.critical_lr(model, TOY.loss_fn, X, optimizer)
    assert found.is_exact
    assert found.samples == 20
    assert float(found) == pytest.approx(in_closed_form(model, optimizer, X, X), rel=1e-6)


def test_along_the_gradient_it_is_twice_the_best_step() -> None:
    model, optimizer = trained("SGD")
    p = gn.profile(model, TOY.loss_fn, X)
    found = gn.critical_lr(model, TOY.loss_fn, X, optimizer)
    expected = 2 * float(p.grad_sq_norm) / float(p.grad_curvature)
    assert float(found) == pytest.approx(expected)


def test_a_batch_makes_the_step_and_all_samples_judge_it() -> None:
    model, optimizer = trained("heavy ball")
    found = gn.critical_lr(model, TOY.loss_fn, X, optimizer, batch_size=1, seed=3)
    choices = [in_closed_form(*twins(model, optimizer), x[None], X) for x in X]
    assert found.is_exact
    assert min(abs(float(found) / value - 1) for value in choices) < 1e-6
    assert len({round(value, 6) for value in choices}) == 20


def twins(model: nn.Module, optimizer: Any) -> tuple[nn.Module, Any]:
    """Copies of both, of which one moves the other."""
    memo: dict[int, Any] = {}
    return copy.deepcopy(model, memo), copy.deepcopy(optimizer, memo)


def test_a_gradient_and_a_few_forward_passes_are_all() -> None:
    model, optimizer = trained("Adam")
    passes: list[bool] = []

    def loss_fn(own: Any, batch: Tensor) -> Tensor:
        if len(batch) == len(X):
            passes.append(own.w.requires_grad)
        return TOY.loss_fn(own, batch)

    gn.critical_lr(model, loss_fn, X, optimizer)
    checks, gradients, forward = 2, 1, passes.count(False)
    assert passes.count(True) == checks + gradients
    assert forward <= 6


class Attention(nn.Module):
    """A GPT of one block whose fused attention has no second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.mix = nn.Embedding(11, 16), nn.Linear(16, 48)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 11)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        q, k, v = self.mix(self.norm(x)).chunk(3, -1)
        parts = [part.unflatten(-1, (2, 8)).transpose(1, 2) for part in (q, k, v)]
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            mixed = F.scaled_dot_product_attention(*parts, is_causal=True)
        return self.head(x + mixed.transpose(1, 2).flatten(2))


def next_token(model: nn.Module, ids: Tensor) -> Tensor:
    logits = model(ids[:, :-1]).float()
    return F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").mean(1)


def language(steps: int = 5) -> tuple[nn.Module, Tensor, Any]:
    torch.manual_seed(0)
    model, ids = Attention(), torch.randint(11, (32, 9)).cumsum(1) % 11
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        step(model, next_token, ids, optimizer)
    optimizer.zero_grad()
    return model, ids, optimizer


def loss_after(model: nn.Module, loss_fn: Any, data: Any, optimizer: Any, lr: float) -> float:
    """The loss after one step of copies of the model and of its optimizer, at this rate."""
    twin, own = twins(model, optimizer)
    own.param_groups[0]["lr"] = lr
    if lr:
        step(twin, loss_fn, data, own)
    with torch.no_grad():
        return float(loss_fn(twin, data).mean())


def test_a_fused_attention_needs_no_second_derivatives() -> None:
    model, ids, optimizer = language()
    with pytest.raises(gn.CurvatureError, match="twice"):
        gn.sharpness(model, next_token, ids, hvp="kept")
    found = float(gn.critical_lr(model, next_token, ids, optimizer))
    here = loss_after(model, next_token, ids, optimizer, 0.0)
    assert loss_after(model, next_token, ids, optimizer, 0.98 * found) < here
    assert loss_after(model, next_token, ids, optimizer, 1.02 * found) > here


@pytest.mark.parametrize("autocast", [False, True], ids=["parameters", "autocast"])
def test_half_precision_gives_about_the_same(autocast: bool) -> None:
    model, ids, optimizer = language()
    wide = float(gn.critical_lr(model, next_token, ids, optimizer))
    if not autocast:
        model = model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = gn.critical_lr(model, next_token, ids, optimizer)
    assert float(found) == pytest.approx(wide, rel=0.1)


def test_everything_is_left_bit_for_bit() -> None:
    model, ids, optimizer = language()
    model.register_forward_hook(lambda module, *_: setattr(module, "calls", 1))
    next(iter(model.parameters())).grad = torch.ones(11, 16)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    versions = [p._version for p in model.parameters()]
    held, random = vars(model).copy(), torch.get_rng_state()
    gn.critical_lr(model, next_token, ids, optimizer, max_samples=20)
    after = (model.state_dict(), optimizer.state_dict())
    for old, new in zip(tensors(before), tensors(after), strict=True):
        assert torch.equal(old, new)
    assert versions == [p._version for p in model.parameters()]
    assert vars(model) == held
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.requires_grad for p in model.parameters())
    assert [p.grad is None for p in model.parameters()] == [False] + [True] * 6


def tensors(states: Any) -> list[Tensor]:
    model, optimizer = states
    inner = [t for own in optimizer["state"].values() for t in own.values()]
    return [*model.values(), *inner]


def test_the_gradient_is_clipped_before_the_step() -> None:
    model, optimizer = trained("SGD")
    free = float(gn.critical_lr(model, TOY.loss_fn, X, optimizer))
    clipped = float(gn.critical_lr(model, TOY.loss_fn, X, optimizer, max_norm=0.5))
    norm = float((H @ (model.w.detach() - X.mean(0))).norm())
    assert clipped == pytest.approx(free * norm / 0.5, rel=1e-5)


def test_where_the_step_leads_uphill_there_is_no_descent() -> None:
    model, _ = trained("SGD")
    uphill = torch.optim.SGD(model.parameters(), lr=0.1, maximize=True)
    found = gn.critical_lr(model, TOY.loss_fn, X, uphill)
    assert found.status is gn.Status.NO_DESCENT
    assert (found.low, found.high) == (0, 0.1)
    assert str(found) == "at most 0.100 (no descent)"
    part = gn.critical_lr(model, TOY.loss_fn, X, uphill, population="distribution")
    assert part.status is gn.Status.NO_DESCENT


def linear_loss(model: Any, batch: Tensor) -> Tensor:
    return batch @ model.w


def test_a_loss_that_only_falls_does_not_rise() -> None:
    model, optimizer = trained("SGD")
    slopes = 1 + 0.1 * torch.randn(20, 3).double()
    found = gn.critical_lr(model, linear_loss, slopes, optimizer)
    assert found.status is gn.Status.NO_RISE
    assert found.low >= 1e4
    assert math.isinf(found.high)
    part = gn.critical_lr(model, linear_loss, slopes, optimizer, population="distribution")
    assert part.status is gn.Status.NO_RISE


def test_without_any_step_nothing_rises() -> None:
    model, _ = trained("SGD")
    with torch.no_grad():
        model.w.copy_(X[0])  # type: ignore[operator, union-attr]
    still = torch.optim.SGD(model.parameters(), lr=0.1)
    found = gn.critical_lr(model, TOY.loss_fn, X[:1].repeat(4, 1), still)
    assert found.status is gn.Status.NO_RISE
    assert str(found) == "unknown (no rise)"


@pytest.mark.parametrize("mean", [0.0, 0.3], ids=["uphill", "downhill"])
def test_signs_that_the_samples_do_not_determine_are_not_told(mean: float) -> None:
    """Slopes ±1 about a small mean: whether the other samples fall or rise is not known."""
    model, optimizer = trained("SGD")
    slopes = mean + torch.tensor([1.0, -1.0] * 10).double()[:, None] * torch.ones(3)
    found = [
        gn.critical_lr(model, linear_loss, slopes, optimizer, population="distribution", seed=seed)
        for seed in (2, 3, 4, 5)
    ]
    assert {e.status for e in found} == {gn.Status.SIGNAL_BELOW_NOISE}
    assert all((e.low, e.high) == (0, math.inf) for e in found)


def test_a_fall_that_rounding_hides_is_not_told() -> None:
    """In float32 the loss of 10⁶ has no digits for a fall of 10⁻³."""
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(0.03)

    def loss_fn(model: Any, batch: Tensor) -> Tensor:
        return model(batch).square()[:, 0] + 1e6

    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    found = gn.critical_lr(layer, loss_fn, torch.ones(4, 1), optimizer)
    assert found.status is gn.Status.SIGNAL_BELOW_NOISE
    wide = gn.critical_lr(layer.double(), loss_fn, torch.ones(4, 1).double(), optimizer)
    assert float(wide) == pytest.approx(1, rel=1e-4)


def test_a_loss_that_is_not_finite_has_risen() -> None:
    layer = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.fill_(1.0)

    def loss_fn(model: Any, batch: Tensor) -> Tensor:
        return -model(batch)[:, 0] + 0 * (1.5 - model(batch)[:, 0]).sqrt()

    optimizer = torch.optim.SGD(layer.parameters(), lr=30.0)
    found = gn.critical_lr(layer, loss_fn, torch.ones(4, 1).double(), optimizer)
    assert float(found) == pytest.approx(0.5, rel=1e-3)


REPEATS = 200


@pytest.mark.parametrize("samples", [32, 128])
@pytest.mark.parametrize("weak", [False, True], ids=["clear", "weak"])
def test_intervals_hold_the_rate_of_the_distribution(
    samples: int, weak: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the u that was measured: it comes from half of the samples, L from the distribution."""
    toy = gn.toy.NoisyQuadratic(H, TOY.w * (0.3 if weak else 1.0))
    taken: list[Tensor] = []
    plain = module.next_update

    def noted(*args: Any) -> list[Tensor]:
        taken.append(plain(*args)[0])
        return [taken[-1]]

    monkeypatch.setattr(module, "next_update", noted)
    hits = narrow = 0
    for seed in range(REPEATS):
        model = toy.model()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, eps=1.0)
        data = toy.sample(samples, seed)
        found = gn.critical_lr(model, toy.loss_fn, data, optimizer, population="distribution")
        u = taken[-1]
        truth = max(0.0, float(2 * (H @ toy.w) @ u / (u @ H @ u)))
        hits += found.low <= truth <= found.high
        centre = float(found) if found.is_resolved else math.inf
        narrow += abs(truth - centre) <= min(found.high - centre, centre - found.low) / 2
    assert fewest(REPEATS) <= hits
    assert narrow <= most(REPEATS, 0.75)


def test_with_more_samples_the_interval_closes_on_the_whole() -> None:
    model, optimizer = trained("AdamW")
    part = gn.critical_lr(model, TOY.loss_fn, X, optimizer, max_samples=12, batch_size=4)
    assert part.samples == 12
    assert part.low < float(part) < part.high
    wider = gn.critical_lr(
        model, TOY.loss_fn, X, optimizer, max_samples=12, batch_size=4, population=2000
    )
    assert wider.high - wider.low > part.high - part.low


def test_options_out_of_range_are_refused() -> None:
    model, optimizer = trained("SGD")
    for name, value in (("batch_size", 0), ("max_norm", 0.0), ("level", 1.0), ("seed", -1)):
        with pytest.raises(gn.ArgumentError, match=f"`{name}`"):
            gn.critical_lr(model, TOY.loss_fn, X, optimizer, **{name: value})
    with pytest.raises(gn.ArgumentError, match="`batch_size` = 21 is more than 20"):
        gn.critical_lr(model, TOY.loss_fn, X, optimizer, batch_size=21)
    with pytest.raises(gn.ArgumentError, match=r"torch\.optim\.Optimizer; got NoneType"):
        gn.critical_lr(model, TOY.loss_fn, X, None)  # type: ignore[arg-type]
