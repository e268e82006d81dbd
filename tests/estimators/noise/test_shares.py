"""What each layer holds of λ, GᵀHG and tr(HΣ): dense matrices, then what is not known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.estimators.noise.shares import Shares
from gradnoise.estimators.noise.sums import Parts
from tests import oracles
from tests.cases import CASES, Case, mlp, named
from tests.clouds import split_moments
from tests.coverage import fewest
from tests.oracles import columns


class Muted(nn.Module):
    """One layer without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.heard, self.muted = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.heard(x) + 0 * self.muted(x)


@pytest.mark.parametrize("population", ["dataset", "distribution"])
def test_a_layer_without_a_gradient_has_no_noise_scale(population: str) -> None:
    torch.manual_seed(0)
    data = torch.randn(40, 4).double(), torch.randint(3, (40,))
    p = gn.profile(Muted().double(), nn.CrossEntropyLoss(), data, population=population)
    layer = p.layers["muted"]
    assert float(layer.trace_cov) == layer.noise_share == 0
    assert layer.simple_noise_scale.status is gn.Status.SIGNAL_BELOW_NOISE
    assert float(layer.sharpness_share) == pytest.approx(0, abs=1e-12)
    assert p.layers["heard"].limits_lr
    assert "nan" not in str(p)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_shares_are_those_of_the_dense_hessian(case: Case) -> None:
    """Of six samples 32 sign vectors are all there are, so that nothing is left to chance."""
    model, loss_fn, batch = case.build()
    p = gn.profile(model, loss_fn, batch, tol=1e-10)
    if "sharpness" not in p.estimates:
        assert all(layer.sharpness_share is None for layer in p.layers.values())
        return
    truth = oracles.dense_of(case)
    g, h = truth.gradients.mean(0), truth.hessian
    values, vectors = torch.linalg.eigh(h)
    noise, top = (h @ truth.covariance).diagonal(), vectors[:, -1].square()
    bend, single = g * (h @ g), float(values[-1] - values[-2]) > 1e-6 * float(values[-1])
    for layer in p.layers.values():
        own = columns(model, layer.parameters)
        for found, form in (
            (layer.sharpness_share, top if single else None),
            (layer.curvature_share, bend),
            (layer.curvature_noise_share, noise),
        ):
            assert found is not None
            if not found.is_resolved:
                assert math.isnan(float(found)) or found.status is gn.Status.NOT_SEPARATED
            elif form is not None:
                share = float(form[own].sum() / form.sum())
                assert float(found) == pytest.approx(share, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("samples", [None, 60])
def test_shares_sum_to_one(samples: int | None) -> None:
    torch.manual_seed(0)
    model, data = mlp(), (torch.randn(200, 4), torch.randint(3, (200,)))
    optimizer = torch.optim.SGD(
        [{"params": [p for p in model.parameters() if p.ndim == d]} for d in (2, 1)], lr=0.1
    )
    p = gn.profile(model, nn.CrossEntropyLoss(), data, optimizer=optimizer, max_samples=samples)
    assert list(p.groups) == ["group 0", "group 1"]
    for parts in (p.layers, p.groups):
        for name in ("sharpness_share", "curvature_noise_share"):
            shares = [getattr(part, name) for part in parts.values()]
            assert math.fsum(map(float, shares)) == pytest.approx(1, rel=1e-6)
            expected = gn.Status.RESOLVED if samples is None else gn.Status.NO_INTERVAL
            assert all(share.status is expected for share in shares)
        assert sum(part.limits_lr for part in parts.values()) <= 1
    assert sum(part.size for part in p.groups.values()) == p.parameters
    weights = p.groups["group 0"]
    assert weights.parameters == ("0.weight", "2.weight")
    total = math.fsum(float(part.trace_cov) for part in p.groups.values())
    assert total == pytest.approx(float(p.trace_cov), rel=1e-6)
    assert weights.noise_share == pytest.approx(float(weights.trace_cov) / total, rel=1e-6)


def test_the_error_of_a_share_covers_the_exact_one() -> None:
    torch.manual_seed(0)
    model, x = mlp().double(), torch.randn(40, 4).double()
    loss, y = nn.CrossEntropyLoss(), torch.randint(3, (40,))
    truth = oracles.dense(model, loss, (x, y))
    diagonal = (truth.hessian @ truth.covariance).diagonal()
    hits, count = 0, 25
    for seed in range(count):
        p = gn.profile(model, loss, (x, y), seed=seed, probes=8, tol=0.3)
        layer = p.layers["2"]
        share = float(diagonal[columns(model, layer.parameters)].sum() / diagonal.sum())
        found = layer.curvature_noise_share
        assert found is not None
        hits += found.low <= share <= found.high
    assert hits >= 21 > fewest(count)  # 95 % give fewer than 21 of 25 in 7 sets of seeds of 1000


def test_the_sharpest_layer_limits_the_learning_rate() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)).double()
    nn.init.constant_(model[0].weight, 0.1)
    nn.init.constant_(model[1].weight, 3.0)  # the first layer's gradient is multiplied by it
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0)).double()
    p = gn.profile(model, nn.MSELoss(), (x, x.sum(1, keepdim=True)))
    assert p.layers["0"].limits_lr
    assert not p.layers["1"].limits_lr
    assert "Layer 0 limits the learning rate: it holds " in str(p)
    labels = [text.get_text() for text in p.plot().axes[0].get_legend().get_texts()]
    assert any(label.endswith(" (layer 0)") for label in labels)


class Apart(nn.Module):
    """Two scalars that different samples see: H is diagonal."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x[:, :1]) + self.second(x[:, 1:])


def apart(first: list[float], second: list[float], **options: Any) -> gn.Profile:
    x = torch.stack([torch.tensor(first), torch.tensor(second)], dim=1).double()
    y = torch.ones(len(x), 1).double()
    return gn.profile(Apart().double(), nn.MSELoss(), (x, y), **options)


def test_where_halves_disagree_no_layer_is_named() -> None:
    """Samples of two kinds, about equally steep: a half that holds more of one is steep there."""
    p = apart([1.0] * 50 + [0.0] * 50, [0.0] * 50 + [1.01] * 50, population="distribution")
    assert float(p.layers["second"].sharpness_share) == pytest.approx(1)
    assert not any(layer.limits_lr for layer in p.layers.values())
    assert "Layer second may limit the learning rate: it holds 100%" in str(p)
    assert "halves of the samples disagree" in str(p)


def test_a_direction_not_told_from_the_next_is_no_layers() -> None:
    sure = gn.Estimate(2.0, 2.0, 2.0, 0.95, 0.0, 64)
    layers = split_moments(torch.randn(9, 5, dtype=torch.float64), 9)
    parts = {name: layers.by_groups({name: [name]})[name] for name in "ab"}
    mass, ones = torch.tensor([0.7, 0.3]).double(), torch.ones(3, 2).double()
    shares = Shares(
        ["a", "b"], mass, mass[:0, None], 0.1, sure, sure, sure, Parts(mass, ones, False), False
    )
    found = shares.give(parts)["a"]
    assert found.limits_lr
    assert found.sharpness_share is not None
    ends = found.sharpness_share.low, found.sharpness_share.high
    assert ends == pytest.approx((0.6, 0.8))
    crowded = replace(shares, angle=0.9).give(parts)
    assert crowded["a"].sharpness_share is not None
    assert crowded["a"].sharpness_share.status is gn.Status.NOT_SEPARATED
    assert (crowded["a"].sharpness_share.low, crowded["a"].sharpness_share.high) == (0, 1)
    assert not crowded["a"].limits_lr


def test_a_valley_shares_no_sharpness() -> None:
    toy = gn.toy.NoisyQuadratic(-torch.eye(3), torch.ones(3))
    p = gn.profile(toy.model(), toy.loss_fn, toy.sample(32, seed=0))
    (layer,) = p.layers.values()
    assert layer.sharpness_share is not None
    assert layer.sharpness_share.status is gn.Status.NEGATIVE_CURVATURE
    assert not layer.limits_lr
    assert "Learning rate:" not in str(p)
