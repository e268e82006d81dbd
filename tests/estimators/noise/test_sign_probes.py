"""Random signs: enumeration, what a Krylov space takes out of them, and when they stop."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch

import gradnoise as gn
from gradnoise.estimators.noise.noise_scale import measure_noise_scale
from gradnoise.moments.measure import stream
from gradnoise.operators.hessian import Hessian
from gradnoise.per_sample.choice import choose
from gradnoise.problem.problem import Problem
from gradnoise.tensors.random import independent_signs
from tests import oracles
from tests.analytic import TOYS
from tests.cases import CORE, network
from tests.enumerated import noise_scale_of


def test_all_sign_vectors_average_to_the_trace() -> None:
    model, loss_fn, batch = CORE[0].build()
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=6)), dtype=torch.float64)
    truth = oracles.dense(model, loss_fn, batch)
    expected = float((truth.hessian @ truth.covariance).trace())
    for steps in (0, 4):
        found = noise_scale_of(Problem.open(model, loss_fn, batch), signs, steps)
        assert float(found.trace_hessian_cov) == pytest.approx(expected, rel=1e-12)


def test_a_space_that_closes_leaves_nothing_to_probes() -> None:
    toy = TOYS["linear regression"]
    inputs, targets = toy.sample(64, seed=0)
    found = gn.noise_scale(toy.model(), toy.loss_fn, (inputs, targets))
    rows = inputs * (inputs @ toy.offset - targets)[:, None]
    hessian = inputs.T @ inputs / 64
    truth = float((hessian @ torch.cov(rows.T)).trace())
    assert float(found.trace_hessian_cov) == pytest.approx(truth, rel=1e-10)
    assert found.trace_hessian_cov.stderr < 1e-6 * truth


def test_probe_error_falls_with_the_number_of_probes() -> None:
    model, loss_fn, batch = network()
    few, many = (
        gn.noise_scale(model, loss_fn, batch, probes=probes, accuracy=0) for probes in (16, 256)
    )
    assert many.trace_hessian_cov.stderr < 0.5 * few.trace_hessian_cov.stderr


def test_probes_stop_when_they_are_sure_enough() -> None:
    model, loss_fn, batch = network()
    problem = Problem.open(model, loss_fn, batch)
    for accuracy, least, most in ((1.0, 8, 8), (0.02, 9, 399), (0.0, 400, 400)):
        ticks: list[int] = []
        with problem.guard():
            engine = choose(problem.objective, problem.largest_batch())
            signs = independent_signs(400, 200, 0)
            scale = measure_noise_scale(
                Hessian.of(problem),
                engine,
                stream(problem, engine),
                signs,
                accuracy=accuracy,
                tick=ticks.append,
            )
        assert least <= len(ticks) <= most
        reached = scale.trace_hessian_cov.stderr / float(scale.trace_hessian_cov)
        assert reached <= (accuracy or 0.02)
    with pytest.raises(gn.ArgumentError, match=r"`accuracy` is a relative error.*got -1"):
        gn.noise_scale(model, loss_fn, batch, accuracy=-1)


def test_what_the_space_knows_is_taken_out_of_the_probes() -> None:
    spectrum = torch.cat([torch.tensor([9.0, 6.0, 4.0, 3.0]), torch.full((56,), 0.05)])
    toy = gn.toy.LinearRegression(spectrum, torch.ones(60))
    inputs, targets = toy.sample(200, seed=0)
    problem = Problem.open(toy.model(), toy.loss_fn, (inputs, targets))
    rows = inputs * (inputs @ toy.offset - targets)[:, None]
    expected = float((inputs.T @ inputs / 200 @ torch.cov(rows.T)).trace())
    signs = independent_signs(64, 200, 0)
    plain, deflated = (noise_scale_of(problem, signs, steps).trace_hessian_cov for steps in (0, 12))
    assert deflated.stderr < 0.02 * plain.stderr
    for found in (plain, deflated):
        assert abs(float(found) - expected) < 4 * found.stderr


@pytest.mark.parametrize("count", [2, 3])
def test_so_few_samples_that_all_signs_fit_are_enumerated(count: int) -> None:
    toy = TOYS["linear regression"]
    data = toy.sample(count, seed=5)
    truth = oracles.dense(toy.model(), toy.loss_fn, data)
    expected = float((truth.hessian @ truth.covariance).trace())
    found = gn.noise_scale(toy.model(), toy.loss_fn, data, probes=4)
    assert found.trace_hessian_cov.is_exact
    assert float(found.trace_hessian_cov) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [500, 600])  # by all samples, and from few at a time
def test_what_is_known_hides_nothing_in_half_precision(count: int) -> None:
    """Of a coarse resolution nearly every value would count as rounding."""
    source = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(10, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=source).div(2).bfloat16())
    inputs = torch.randn(count, 10, generator=source).bfloat16()
    labels = (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()
    loss = torch.nn.CrossEntropyLoss()
    fine, coarse = copy.deepcopy(model).double(), copy.deepcopy(model).bfloat16()
    truth = gn.noise_scale(fine, loss, (inputs.double(), labels), accuracy=0.01).trace_hessian_cov
    for seed in range(3):
        found = gn.noise_scale(coarse, loss, (inputs, labels), seed=seed).trace_hessian_cov
        assert found.low < found.high
        assert abs(float(found) - float(truth)) < 4 * found.stderr + 0.03 * float(truth)
