"""The pass over the samples against single gradients in float64."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.measurement.opened import Opened
from gradnoise.moments.measure import SQUARED, slopes, stream
from gradnoise.operators.gradients import chosen_engine
from gradnoise.per_sample.contract.engine import Chunk
from gradnoise.per_sample.loop import Loop
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from tests import oracles
from tests.cases import CASES, Case, labelled, named


@pytest.mark.parametrize("case", CASES, ids=named)
def test_the_mean_is_the_gradient_of_the_mean_loss(case: Case) -> None:
    model, loss_fn, batch = case.build()
    truth = oracles.dense(model, loss_fn, batch, second=False)
    moments = gn.gradient_moments(model, loss_fn, batch)
    mean = torch.cat([part.flatten() for part in moments.mean.values()])
    torch.testing.assert_close(mean, truth.gradients.mean(0), rtol=1e-10, atol=1e-13)
    assert float(moments.loss) == pytest.approx(float(truth.losses.mean()))
    assert moments.mean.keys() == {n for n, p in model.named_parameters() if p.requires_grad}


def test_uneven_batches_weigh_by_their_samples() -> None:
    model, loss_fn, (x, y) = CASES[0].build()
    whole = gn.gradient_moments(model, loss_fn, (x, y))
    parts = gn.gradient_moments(model, loss_fn, [(x[:5], y[:5]), (x[5:], y[5:])])
    assert float(parts.grad_sq_norm) == pytest.approx(float(whole.grad_sq_norm), rel=1e-12)
    assert float(parts.trace_cov) == pytest.approx(float(whole.trace_cov), rel=1e-12)


def test_intervals_are_the_influence_of_each_sample() -> None:
    model, loss_fn, batch = CASES[0].build()
    moments = gn.gradient_moments(model, loss_fn, batch, population="distribution")
    g = oracles.dense(model, loss_fn, batch, second=False).gradients
    mean = g.mean(0)
    torch.testing.assert_close(moments.slopes, g @ mean, rtol=1e-9, atol=1e-12)
    spread = (g - mean).square().sum(1)
    expected = float(spread.var()) / len(g)
    assert moments.trace_cov.stderr**2 == pytest.approx(expected, rel=1e-8)
    signal = 2 * g @ mean - spread / len(g)
    plain, weakest = float(signal.var()) / len(g), 2 * moments.trace_cov_sq / len(g) ** 2
    expected = max(plain, weakest)
    assert moments.grad_sq_norm.stderr**2 == pytest.approx(expected, rel=1e-8)


def test_no_more_than_two_chunks_are_alive_at_once() -> None:
    model, loss_fn, _ = CASES[0].build()
    problem = Problem.open(model, loss_fn, labelled(), Options(micro_batch=2))
    alive, most = 0, 0

    class Counting(Loop):
        def chunks(self, batch: Any) -> Iterator[Chunk]:
            nonlocal alive, most
            for chunk in super().chunks(batch):
                alive += 1
                most = max(most, alive)
                weakref.finalize(chunk.gradients["0.weight"], dead)
                yield chunk

    def dead() -> None:
        nonlocal alive
        alive -= 1

    assert stream(problem, Counting(problem.objective)).count == 6
    assert 1 <= most <= 2
    assert alive == 0


def test_a_layer_with_a_strong_signal_is_centred_though_others_are_noisy() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"strong": nn.Linear(4, 3, bias=False), "noisy": nn.Linear(4, 3)})
    steady, wild = 1 + 1e-4 * torch.randn(64, 4), 10 * torch.randn(64, 4)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return model["strong"](batch[0]).sum(1) + model["noisy"](batch[1]).sum(1)

    moments = gn.gradient_moments(model, loss, (steady, wild), variance=True)
    spread = steady.double().var(0)
    assert float(moments.layers["strong"].trace_cov) == pytest.approx(
        3 * float(spread.sum()), rel=1e-5
    )
    torch.testing.assert_close(moments.variance["strong.weight"][0], spread, rtol=1e-4, atol=0)  # type: ignore[index]


def two_layers(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    layers = {"strong": nn.Linear(4, 3, bias=False), "noisy": nn.Linear(4, 3, bias=False)}
    return nn.ModuleDict(layers).to(dtype)


def summed_outputs(model: nn.ModuleDict, batch: Any) -> Tensor:
    return model["strong"](batch[0]).sum(1) + model["noisy"](batch[1]).sum(1)


def ends(estimate: gn.Estimate) -> list[float]:
    return [float(estimate), estimate.low, estimate.high]


@pytest.mark.parametrize("engine", ["auto", "hooks", "functional", "backpack", "loop"])
@pytest.mark.parametrize("scale", [1e3, 1e4, 1e5])
def test_intervals_under_a_strong_signal_in_float32_are_those_of_float64(
    scale: float, engine: str
) -> None:
    source = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 128, 4, generator=source)
    data = (scale + noise[0], 5 * noise[1])
    found, exact = (
        gn.gradient_moments(model, summed_outputs, own, engine=kind, population="distribution")
        for model, own, kind in (
            (two_layers(torch.float32), data, engine),
            (two_layers(torch.float64), tuple(part.double() for part in data), "loop"),
        )
    )
    rounding = 8 * torch.finfo(torch.float32).eps * scale  # of a gradient, in units of its noise
    torch.testing.assert_close(found.distances, exact.distances, rtol=rounding, atol=1e-2)
    assert ends(found.trace_cov) == pytest.approx(ends(exact.trace_cov), rel=2e-3)
    assert ends(found.simple_noise_scale) == pytest.approx(ends(exact.simple_noise_scale), rel=2e-3)
    for name, layer in found.layers.items():
        assert ends(layer.trace_cov) == pytest.approx(ends(exact.layers[name].trace_cov), rel=2e-3)
        part = found.restrict([f"{name}.weight"])
        assert ends(part.trace_cov) == ends(layer.trace_cov)


def test_diagnostics_under_a_strong_signal_in_float32_are_those_of_float64() -> None:
    inputs = 1e4 + torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    found, exact = (
        gn.diagnostics(
            nn.Linear(4, 3, bias=False, dtype=dtype),
            lambda model, x: model(x).sum(1),
            inputs.to(dtype),
            population="distribution",
        )
        for dtype in (torch.float32, torch.float64)
    )
    for name in ("hill", "inner_product_test", "orthogonality_test"):
        assert ends(getattr(found, name)) == pytest.approx(ends(getattr(exact, name)), rel=2e-2)
    assert found.hill_gaussian == pytest.approx(exact.hill_gaussian, rel=1e-2)


def test_distances_under_an_optimizers_metric_are_scaled() -> None:
    inputs = 1e4 + torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    model = nn.Linear(4, 1, bias=False)
    optimizer = torch.optim.Adam(model.parameters())
    model(inputs).sum().backward()
    optimizer.step()
    found = gn.gradient_moments(
        model,
        lambda model, x: model(x).sum(1),
        inputs,
        optimizer=optimizer,
        metric="optimizer",
        engine="hooks",
    )
    spread = (float(found.distances.sum()) / (found.count - 1), float(found.trace_cov))
    assert spread[0] == pytest.approx(spread[1], rel=1e-4)


def test_inner_products_of_float32_fit_directions_of_every_size() -> None:
    model, loss_fn, (inputs, labels) = CASES[0].build()
    model.float()
    problem = Problem.open(model, loss_fn, (inputs.float(), labels))
    engine, parameters = chosen_engine(problem, "auto"), problem.objective.parameters
    ones = {name: torch.ones_like(p) for name, p in parameters.items()}
    size = 2.0**-148  # nothing smaller but zero in float32
    plain, tiny = (
        slopes(problem, engine, {name: factor * own.double() for name, own in ones.items()})
        for factor in (1.0, size)
    )
    assert torch.equal(tiny, size * plain)


def enlarged(factor: float) -> tuple[nn.Module, Any, Any]:
    """A small classifier, its losses times a factor."""
    model, criterion, batch = CASES[0].build()
    losses = gn.supervised(criterion)
    return model, lambda model, batch: factor * losses(model, batch), batch


@pytest.mark.parametrize("factor", [1e100, 1e-60])
@pytest.mark.parametrize("call", [gn.gradient_moments, gn.noise_scale, gn.profile, gn.diagnostics])
def test_losses_whose_intervals_overflow_are_refused(call: Any, factor: float) -> None:
    with pytest.raises(gn.LossError, match=r"leave the range of float64. Multiply the loss by"):
        call(*enlarged(factor), population="distribution")


def test_where_all_is_measured_and_no_interval_is_needed_losses_can_be_larger() -> None:
    small, huge = (gn.profile(*enlarged(factor)) for factor in (1.0, 1e100))
    for name in ("simple_noise_scale", "noise_scale", "curvature_noise_scale"):
        assert float(getattr(huge, name)) == pytest.approx(float(getattr(small, name)))


@pytest.mark.parametrize("factor", [1e-40, 1e40])
def test_intervals_do_not_depend_on_the_size_of_the_loss(factor: float) -> None:
    one, other = (
        gn.gradient_moments(*enlarged(f), population="distribution") for f in (1.0, factor)
    )
    for name in ("trace_cov", "grad_sq_norm"):
        first, second = getattr(one, name), getattr(other, name)
        scaled = [end / factor / factor for end in (second.low, second.high)]
        assert scaled == pytest.approx([first.low, first.high], rel=1e-9)


def test_of_many_samples_some_tell_the_square_of_the_covariance() -> None:
    source = torch.Generator().manual_seed(0)
    inputs = torch.randn(2500, 40, generator=source, dtype=torch.float64)
    model = nn.Linear(40, 1, bias=False).double()
    data = inputs, torch.randn(2500, 1, generator=source, dtype=torch.float64)
    opened = Opened.open(model, nn.MSELoss(), data, Options(population="distribution"))
    moments = opened.moments()
    assert moments.per_parameter is not None
    assert moments.per_parameter.signs is not None
    seen = (moments.per_parameter.signs != 0).any(0)
    assert int(seen.sum()) == SQUARED
    gradients = gn.per_sample_gradients(model, nn.MSELoss(), data)["weight"].flatten(1)
    truth = float(torch.cov(gradients.T).square().sum())
    assert 0.7 * truth < moments.trace_cov_sq < 1.4 * truth  # one seed: 28 products of signs
