"""Moments, intervals and shares of layers and parameter groups, held to dense float64 blocks."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.estimators.from_arrays.gradients import noise_scale_from_gradients
from gradnoise.estimators.noise.noise_scale import Parts
from gradnoise.estimators.noise.shares import Shares
from gradnoise.moments.layer import UNGROUPED, by_group
from gradnoise.moments.moments import GradientMoments
from gradnoise.moments.per_parameter import Blocks
from gradnoise.profiles.layer_table import limiting_layer
from gradnoise.tensors.random import random_signs
from tests import oracles
from tests.cases import CASES, CORE, Case, mlp, named
from tests.clouds import moments_of_cloud

BY_NAME = {case.name: case for case in CASES}


def columns(model: nn.Module, names: tuple[str, ...]) -> Tensor:
    """Positions of some parameters in the flat gradient."""
    sizes = {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}
    kept = torch.tensor([name in names for name in sizes])
    return kept.repeat_interleave(torch.tensor(list(sizes.values()))).nonzero()[:, 0]


def split(gradients: Tensor, population: float = math.inf, probes: int = 8) -> GradientMoments:
    """Moments of rows split over two parameters, a: the first two columns, b: the rest."""
    n, parts = len(gradients), {"a": gradients[:, :2], "b": gradients[:, 2:]}
    signs = random_signs(probes, n, seed=0)
    noises = {k: signs @ (g - g.mean(0)) / math.sqrt(n - 1) for k, g in parts.items()}
    return replace(
        moments_of_cloud(gradients, population),
        mean={name: g.mean(0) for name, g in parts.items()},
        centred_sq={k: float((g - g.mean(0)).square().sum()) for k, g in parts.items()},
        blocks=Blocks(
            sq_norms={name: g.square().sum(1) for name, g in parts.items()},
            slopes={name: g @ g.mean(0) for name, g in parts.items()},
            signs=signs,
            grams={name: u @ u.T for name, u in noises.items()},
        ),
    )


@pytest.mark.parametrize("population", ["distribution", 40])
@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_layer_is_measured_as_if_it_were_alone(case: Case, population: str | int) -> None:
    model, loss_fn, batch = case.build()
    g = oracles.dense(model, loss_fn, batch, second=False).gradients
    moments = gn.gradient_moments(model, loss_fn, batch, population=population)
    size = math.inf if population == "distribution" else float(population)
    for layer in moments.layers.values():
        own = g[:, columns(model, layer.parameters)]
        assert layer.size == own.shape[1]
        trace, signal = oracles.trace_cov(own), oracles.grad_sq_norm(own, size)
        assert float(layer.trace_cov) == pytest.approx(trace, rel=1e-8, abs=1e-12)
        assert float(layer.grad_sq_norm) == pytest.approx(signal, rel=1e-8, abs=1e-12)
        alone, part = moments_of_cloud(own, size), moments.restrict(layer.parameters)
        found, truth = part.deviations()[1:], alone.deviations()[1:]
        torch.testing.assert_close(found, truth, rtol=1e-8, atol=1e-12)
        for name in ("trace_cov", "grad_sq_norm", "simple_noise_scale"):  # but for the probes
            first = getattr(replace(part, trace_cov_sq=math.nan, pulls=None), name)
            second = getattr(replace(alone, trace_cov_sq=math.nan, pulls=None), name)
            assert first.status is second.status or not own.any()
            ends = pytest.approx((second.low, second.high), rel=1e-6, abs=1e-10)
            assert (first.low, first.high) == ends or not own.any()


@pytest.mark.parametrize("case", CORE, ids=named)
def test_layers_sum_to_the_whole(case: Case) -> None:
    model, loss_fn, batch = case.build()
    moments = gn.gradient_moments(model, loss_fn, batch, population="distribution")
    layers = moments.layers.values()
    for name in ("trace_cov", "grad_sq_norm"):
        total = math.fsum(float(getattr(layer, name)) for layer in layers)
        assert total == pytest.approx(float(getattr(moments, name)), rel=1e-10)
    assert math.fsum(layer.noise_share for layer in layers) == pytest.approx(1, rel=1e-12)
    assert sorted(n for layer in layers for n in layer.parameters) == sorted(moments.mean)
    assert moments.blocks is not None
    total = sum(moments.restrict([name]).deviations()[1:] for name in moments.mean)
    torch.testing.assert_close(total, moments.deviations()[1:], rtol=1e-9, atol=1e-12)


def test_the_only_layer_is_the_whole() -> None:
    model, x = nn.Sequential(nn.Linear(3, 2)), torch.randn(30, 3)
    moments = gn.gradient_moments(model, nn.MSELoss(), (x, x[:, :2]), population=100)
    (layer,) = moments.layers.values()
    assert layer.trace_cov == moments.trace_cov
    assert layer.simple_noise_scale == moments.simple_noise_scale


def test_all_batches_of_a_small_population_average_to_its_truth() -> None:
    g = torch.randn(5, 5, dtype=torch.float64)
    drawn = [split(g[list(pick)], 5).layers for pick in itertools.combinations(range(5), 3)]
    (first,) = (key for key in drawn[0])  # both parameters belong to the root
    assert first == ""
    for name, own in (("a", g[:, :2]), ("b", g[:, 2:])):
        parts = [
            split(g[list(pick)], 5).restrict([name]) for pick in itertools.combinations(range(5), 3)
        ]
        signal = math.fsum(float(part.grad_sq_norm) for part in parts) / len(parts)
        trace = math.fsum(float(part.trace_cov) for part in parts) / len(parts)
        assert signal == pytest.approx(float(own.mean(0).square().sum()), rel=1e-12, abs=1e-14)
        assert trace == pytest.approx(float(own.var(0).sum()), rel=1e-12)


def test_with_all_sign_vectors_the_probes_of_a_layer_are_exact() -> None:
    g = torch.randn(4, 7, dtype=torch.float64) + 1
    part, alone = split(g).restrict(["b"]), moments_of_cloud(g[:, 2:])
    assert part.trace_cov_sq == pytest.approx(alone.trace_cov_sq, rel=1e-12)
    torch.testing.assert_close(part.pulls, alone.pulls, rtol=1e-11, atol=1e-13)


def test_with_many_sign_vectors_they_are_near() -> None:
    g = torch.randn(40, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    part, alone = split(g, probes=1000).restrict(["b"]), moments_of_cloud(g[:, 2:])
    assert part.trace_cov_sq == pytest.approx(alone.trace_cov_sq, rel=0.1)
    assert alone.pulls is not None
    assert part.pulls is not None
    assert float(part.pulls[1, 1]) == pytest.approx(float(alone.pulls[1, 1]), rel=0.06)


def test_nineteen_intervals_in_twenty_hold_the_truth_of_a_layer() -> None:
    """Linear regression, x ~ N(0, C): Σ = (q + s²) C + CδδᵀC, of two parameters."""
    c, offset = torch.tensor([2.0, 1.0, 1.0, 0.5, 0.5]), torch.tensor([1.0, 0.0, 0.5, 0.5, 0.5])
    toy = gn.toy.LinearRegression(c, offset, noise=0.5)
    residual, slope = float(c @ offset**2) + 0.25, (c * offset).double()
    count, hits = 300, dict.fromkeys(itertools.product("ab", range(3)), 0)
    for seed in range(count):
        x, y = toy.sample(64, seed=seed)
        moments = split(x * (x @ offset.double() - y)[:, None])
        for name, own in (("a", slice(0, 2)), ("b", slice(2, 5))):
            signal = float(slope[own].square().sum())
            trace = residual * float(c[own].sum()) + signal
            part = moments.restrict([name])
            for k, (found, truth) in enumerate(
                [
                    (part.grad_sq_norm, signal),
                    (part.trace_cov, trace),
                    (part.simple_noise_scale, trace / signal),
                ]
            ):
                hits[name, k] += found.low <= truth <= found.high
    error = math.sqrt(0.95 * 0.05 / count)
    for key, hit in hits.items():
        assert -3 * error < hit / count - 0.95 < 4 * error, (key, hit / count)


def test_arrays_by_name_have_the_same_layers() -> None:
    model, loss_fn, batch = CASES[0].build()
    gradients = gn.per_sample_gradients(model, loss_fn, batch)
    passed = gn.gradient_moments(model, loss_fn, batch, population=40)
    found = noise_scale_from_gradients(gradients, population=40)
    for name, layer in found.layers.items():
        assert float(layer.trace_cov) == pytest.approx(float(passed.layers[name].trace_cov))
        torch.testing.assert_close(
            found.restrict(layer.parameters).deviations()[1:],
            passed.restrict(layer.parameters).deviations()[1:],
        )
    whole = noise_scale_from_gradients(torch.cat([g.flatten(1) for g in gradients.values()], 1))
    assert whole.trace_cov_sq == pytest.approx(found.trace_cov_sq)


def test_merged_moments_keep_their_layers_without_intervals() -> None:
    g = torch.randn(20, 5, dtype=torch.float64) + 1
    merged, whole = split(g[:8]).merge(split(g[8:])), split(g)
    part = merged.restrict(["b"])
    torch.testing.assert_close(part.sq_norms, whole.restrict(["b"]).sq_norms)
    assert float(part.trace_cov) == pytest.approx(float(whole.restrict(["b"]).trace_cov))
    assert part.trace_cov.status is gn.Status.NO_INTERVAL


def test_what_cannot_be_restricted_is_refused() -> None:
    moments = split(torch.randn(6, 5, dtype=torch.float64))
    for names in ([], ["a", "c"]):
        with pytest.raises(gn.ArgumentError, match="one or more of the parameters a, b; got"):
            moments.restrict(names)
    with pytest.raises(gn.ArgumentError, match="do not tell single parameters apart"):
        replace(moments, blocks=None).restrict(["a"])


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
    truth = oracles.dense(model, loss_fn, batch)
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
    assert hits / count > 0.95 - 3 * math.sqrt(0.95 * 0.05 / count)


def test_parameters_of_no_group_are_named_and_others_passed_over() -> None:
    a, b, c, other = (torch.zeros(1) for _ in range(4))
    found = by_group({"a": a, "b": b, "c": c}, [[a, other], [], [b, a]])
    assert found == {"group 0": ["a"], "group 1": [], "group 2": ["b"], UNGROUPED: ["c"]}


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
    said = " ".join(str(p).split())
    assert "Layer second may limit the learning rate: it holds 100%" in said
    assert "two halves of the samples disagree" in said


def test_a_direction_not_told_from_the_next_is_no_layers() -> None:
    sure = gn.Estimate(2.0, 2.0, 2.0, 0.95, 0.0, 64)
    layers = split(torch.randn(9, 5, dtype=torch.float64), 9)
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
    assert "another direction is about as sharp" in limiting_layer(crowded)


def test_a_valley_shares_no_sharpness() -> None:
    toy = gn.toy.NoisyQuadratic(-torch.eye(3), torch.ones(3))
    p = gn.profile(toy.model(), toy.loss_fn, toy.sample(32, seed=0))
    (layer,) = p.layers.values()
    assert layer.sharpness_share is not None
    assert layer.sharpness_share.status is gn.Status.NEGATIVE_CURVATURE
    assert not layer.limits_lr
    assert "Learning rate:" not in str(p)


@pytest.mark.parametrize("name", ["MLP with cross-entropy", "tied weights"])
def test_blocks_alone_are_those_of_the_dense_hessian(name: str) -> None:
    model, loss_fn, batch = BY_NAME[name].build()
    truth = oracles.dense(model, loss_fn, batch)
    scales = gn.layer_noise_scales(model, loss_fn, batch, tol=1e-10)
    assert list(scales) == list(gn.gradient_moments(model, loss_fn, batch).layers)
    for scale in scales.values():
        own = columns(model, scale.parameters)
        h, c, g = truth.hessian[own][:, own], truth.covariance[own][:, own], truth.gradients
        mean, noise = g.mean(0)[own], scale.noise
        top = float(torch.linalg.eigvalsh(h)[-1])
        assert float(scale.sharpness) == pytest.approx(top, rel=1e-7)
        assert float(noise.trace_hessian_cov) == pytest.approx(float((h @ c).trace()), rel=1e-7)
        assert float(noise.grad_curvature) == pytest.approx(float(mean @ h @ mean), rel=1e-7)
        assert float(noise.trace_cov) == pytest.approx(float(c.trace()), rel=1e-9)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_layers_are_named_as_modules_or_given_by_their_parameters() -> None:
    model, loss_fn, batch = CASES[0].build()
    by_name = gn.layer_noise_scales(model, loss_fn, batch, layers=["0", "2.bias", ""])
    assert by_name["0"].parameters == ("0.weight", "0.bias")
    assert by_name["2.bias"].parameters == ("2.bias",)
    assert len(by_name[""].parameters) == 4
    given = {"weights": ["0.weight", "2.weight"]}
    assert gn.layer_noise_scales(model, loss_fn, batch, layers=given)["weights"].parameters == (
        "0.weight",
        "2.weight",
    )
    with pytest.raises(gn.ArgumentError, match="names 'head', which holds no trainable"):
        gn.layer_noise_scales(model, loss_fn, batch, layers="head")
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_frozen_layer_is_no_layer_and_stays_frozen() -> None:
    model, loss_fn, batch = CASES[0].build()
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    scales = gn.layer_noise_scales(model, loss_fn, batch, population="distribution")
    assert list(scales) == ["2"]
    assert not math.isnan(scales["2"].sharpness.stderr)
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]
