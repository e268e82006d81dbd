"""tr(HΣ) from few samples at a time, where they are the population."""

from __future__ import annotations

import math

import pytest
import torch

import gradnoise as gn
from gradnoise.estimators.curvature.few_samples import chances, near_spectrum
from gradnoise.estimators.noise.drawn_probes import FIRST, drawn_noise_scale, drawn_probes
from gradnoise.estimators.noise.sign_probes import Known, Probed
from gradnoise.linalg.convert import as_operator
from gradnoise.linalg.deflation import Deflation, krylov_deflation
from gradnoise.operators.gradients import PerSampleGradients
from gradnoise.tensors.trees import flatten
from tests.many import opened, regression, written


def drawn(
    count: int, near: Deflation | None = None, accuracy: float = 1e-9, seed: int = 0
) -> Probed:
    own = opened()
    with own.problem.guard():
        moments, hessian = own.moments(), own.hessian()
        near = near or near_spectrum(hessian, chances(moments), seed)
        rows = PerSampleGradients.of(own.problem, engine=own.engine)
        mean = flatten([*moments.mean.values()])
        known = Known.of(near, rows, mean)
        return drawn_probes(hessian, mean, moments, known, accuracy=accuracy, most=count, seed=seed)


@pytest.mark.parametrize("wrong", [False, True])
def test_values_are_right_on_average_whatever_is_taken_out(wrong: bool) -> None:
    model, _, batch = regression()
    near = None
    if wrong:  # of another matrix altogether
        other = torch.randn(5, 5, generator=torch.Generator().manual_seed(0)).double()
        near = krylov_deflation(as_operator(other + other.T), steps=3)
    found = drawn(1500, near)
    truth = written(batch, model).trace
    error = float(found.traces.std()) / math.sqrt(1500)
    assert abs(float(found.traces.mean()) - truth) < 4 * error < 0.2 * truth
    torch.testing.assert_close(found.parts.sum(1), found.traces)


def test_they_spread_as_they_do_where_they_are_drawn_again() -> None:
    """The interval has the errors of signs, Σ and H in it."""
    own = opened()
    model, _, batch = regression()
    truth, inside = written(batch, model).trace, 0
    with own.problem.guard():
        moments, hessian = own.moments(), own.hessian()
        image = hessian @ flatten([*moments.mean.values()])
        for seed in range(60):
            near = near_spectrum(hessian, chances(moments), seed)
            found = drawn_noise_scale(
                hessian, own.engine, moments, near, image, accuracy=0.3, seed=seed
            )
            inside += found.trace_hessian_cov.low <= truth <= found.trace_hessian_cov.high
            assert float(found.grad_curvature) == pytest.approx(
                written(batch, model).along, rel=1e-9
            )
            assert found.grad_curvature.stderr == 0
    assert 53 <= inside <= 60


@pytest.mark.parametrize("accuracy", [0.3, 0.1])
def test_they_stop_where_the_interval_is_short_enough(accuracy: float) -> None:
    model, criterion, batch = regression()
    found = gn.noise_scale(model, criterion, batch, accuracy=accuracy)
    half = (found.hessian.high - found.hessian.low) / 2
    assert half <= accuracy * float(found.hessian)
    most = 600 if accuracy == 0.1 else 100
    assert FIRST <= len(drawn(most, accuracy=accuracy).traces) < most


def test_they_end_where_there_are_as_many_as_may_be() -> None:
    assert len(drawn(30, accuracy=1e-9).traces) == 30


def test_a_curvature_that_is_the_same_for_all_samples_leaves_no_error() -> None:
    toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([3.0, 1.0, 0.6])).double(), torch.ones(3))
    centres = toy.sample(600, seed=0)
    found = gn.noise_scale(toy.model(), toy.loss_fn, centres)
    cube = torch.linalg.matrix_power(toy.hessian.double(), 3)
    expected = float((cube @ torch.cov(centres.double().T)).trace())
    assert float(found.trace_hessian_cov) == pytest.approx(expected, rel=1e-5)
    assert found.trace_hessian_cov.stderr <= 1e-5 * expected


def test_without_noise_there_is_none() -> None:
    model, criterion, (inputs, targets) = regression(1)
    same = inputs.expand(600, 5).clone(), targets.expand(600, 1).clone()
    found = gn.noise_scale(model, criterion, same)
    assert (float(found.trace_hessian_cov), float(found.hessian)) == (0.0, 0.0)
