"""B_curv: its value, and what the error of the sharpest direction does to it."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.estimators.curvature.curvature_noise import (
    Turning,
    curvature_noise_scale,
    direction_error,
    turning,
)
from gradnoise.estimators.curvature.extreme_eigenvalue import half_sharpness, sample_curvatures
from gradnoise.linalg.deflation import explore
from gradnoise.linalg.eigen_options import EigenOptions
from gradnoise.linalg.iteration import Eigenpairs
from gradnoise.measurement.opened import Opened
from gradnoise.operators.hessian import SlopesByEngine
from gradnoise.problem.directional import weighted_product
from gradnoise.problem.options import Options
from tests.cases import CORE
from tests.coverage import fewest
from tests.unit_cases import CE, written_out

SOURCE = torch.Generator().manual_seed(5)
X = torch.randn(128, 4, generator=SOURCE).double()
X[:, 0] += 1.0
Y = (X[:, 1] + 0.5 * torch.randn(128, generator=SOURCE) > 0).long()
CLASSES = nn.CrossEntropyLoss(weight=torch.tensor([0.5, 2.0], dtype=torch.float64))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()


def losses_of(model: nn.Module) -> Tensor:
    return nn.functional.cross_entropy(model(X), Y, reduction="none")


def variance_along_top(hessians: Tensor, shares: Tensor) -> float:
    """Var(vᵀH_iv) of samples that are drawn with these probabilities; v of their mean."""
    mean = torch.einsum("n,npq->pq", shares, hessians)
    v = torch.linalg.eigh(mean).eigenvectors[:, -1]
    along = torch.einsum("p,npq,q->n", v, hessians, v)
    return float(shares @ (along - shares @ along).square())


def found_on(criterion: Any, seed: int = 0) -> tuple[Opened, Tensor, Turning]:
    options = Options(population="distribution", seed=seed)
    opened = Opened.open(network(), criterion, (X, Y), options)
    with opened.problem.guard():
        pairs, deflation = explore(opened.hessian(), tol=1e-9, steps=23, seed=seed)
        top = pairs.vectors[:, 0]
        curvatures = sample_curvatures(opened.problem, top)
        halves = half_sharpness(opened.problem, top, EigenOptions(tol=1e-9, seed=seed))
        samples = opened.problem.samples
        found = turning(
            opened.problem, top, curvatures, deflation, halves, samples.halves(seed), samples
        )
    assert found is not None
    return opened, curvatures, found


def test_influences_are_the_derivative_of_the_variance_by_every_sample() -> None:
    model = network()
    _, hessians = written_out(model, list(losses_of(model)))
    _, curvatures, found = found_on(CE)
    gaps = (curvatures - curvatures.mean()).square()
    ours = gaps - gaps.mean() + found.influences
    shares, step = torch.full((128,), 1 / 128, dtype=torch.float64), 1e-5
    by_hand = []
    for j in range(128):
        point = torch.zeros(128, dtype=torch.float64)
        point[j] = 1
        ends = [variance_along_top(hessians, shares + s * (point - shares)) for s in (step, -step)]
        by_hand.append((ends[0] - ends[1]) / (2 * step))
    truth = torch.tensor(by_hand, dtype=torch.float64)
    # eigenvalues below a tenth of the largest are taken for 0; 1/(n - 1) in place of 1/n
    assert float((ours - truth).norm() / truth.norm()) < 0.03
    alone = gaps - gaps.mean()
    assert float((alone - truth).norm() / truth.norm()) > 0.5


def test_weighted_samples_have_the_influences_of_what_stands_for_them() -> None:
    model = network()
    weights = CLASSES.weight[Y]
    shares = weights / weights.mean()
    _, hessians = written_out(model, list(losses_of(model)))
    mean = torch.einsum("n,npq->pq", shares, hessians) / 128
    stand_ins = shares[:, None, None] * hessians - (shares - 1)[:, None, None] * mean
    _, curvatures, found = found_on(CLASSES)
    given = torch.linspace(-1, 2, 128, dtype=torch.float64)
    problem = Opened.open(model, CLASSES, (X, Y), Options()).problem
    product = weighted_product(problem, mean[0], given)
    by_hand = torch.einsum("n,npq,q->p", given, stand_ins, mean[0])
    torch.testing.assert_close(product, by_hand)
    values, vectors = torch.linalg.eigh(mean)
    v = vectors[:, -1]
    torch.testing.assert_close(curvatures, torch.einsum("p,npq,q->n", v, stand_ins, v))
    a = torch.einsum("n,npq,q->p", curvatures - curvatures.mean(), stand_ins, v) / 127
    inverse = torch.where(values < values[-1], 1 / (values[-1] - values), 0.0)
    b = vectors @ (inverse * (vectors.T @ a))
    truth = 4 * torch.einsum("p,npq,q->n", b, stand_ins, v)
    truth -= truth.mean()
    assert float((found.influences - truth).norm() / truth.norm()) < 0.05


def test_halves_tell_the_bias() -> None:
    opened, curvatures, found = found_on(CE)
    samples = opened.problem.samples
    scales = []
    for half in samples.halves(0):
        part = replace(opened.problem, samples=half)
        own = Opened(part, opened.options)
        with part.guard():
            pairs, _ = explore(own.hessian(), tol=1e-9, steps=23, seed=0)
            along = sample_curvatures(part, pairs.vectors[:, 0])
        scales.append(float(along.var() / (along.mean() ** 2 - along.var() / len(along))))
    whole = float(curvatures.var() / (curvatures.mean() ** 2 - curvatures.var() / 128))
    excess = sum(scales) / 2 / whole - 1
    assert excess > 0
    assert found.kept == pytest.approx(math.exp(-excess), rel=1e-4)
    moments = opened.moments()
    estimate = curvature_noise_scale(curvatures, moments, found)
    assert found.kept < 0.98
    assert float(estimate) == pytest.approx(found.kept * whole, rel=5e-3)
    given = curvature_noise_scale(curvatures, moments)
    assert estimate.high - estimate.low > 1.5 * (given.high - given.low)


def test_where_all_samples_were_measured_the_direction_is_as_certain_as_lanczos() -> None:
    loose, tight = (gn.profile(network(), CE, (X, Y), tol=tol) for tol in (1e-2, 1e-9))
    wide, narrow = loose.curvature_noise_scale, tight.curvature_noise_scale
    assert wide.low <= float(narrow) <= wide.high
    assert narrow.high - narrow.low < 1e-3 * (wide.high - wide.low)
    assert wide.low < float(wide) < wide.high
    assert wide.high - float(wide) == pytest.approx(float(wide) - wide.low)


@pytest.mark.parametrize(
    ("residual", "second", "angle"),
    [(0.01, 3.0, 0.01), (0.01, 3.9, 0.1), (0.5, 3.9, 1.0), (0.0, 3.0, 0.0), (0.1, 4.0, 1.0)],
)
def test_the_error_of_the_direction_is_the_residual_over_the_gap(
    residual: float, second: float, angle: float
) -> None:
    one = torch.tensor([4.0], dtype=torch.float64)
    pairs = Eigenpairs(one, torch.tensor([residual]).double(), torch.eye(2)[:, :1], 3, True)
    kernel = torch.diag(torch.tensor([4.0, second, 0.0], dtype=torch.float64))
    found = direction_error(pairs, SimpleNamespace(kernel=kernel))
    assert found == pytest.approx(angle)


def test_no_bowl_has_no_curvature_noise_scale() -> None:
    toy = gn.toy.NoisyQuadratic(-torch.eye(2), torch.ones(2))
    profile = gn.profile(toy.model(), toy.loss_fn, toy.sample(32, 0), population="distribution")
    assert profile.curvature_noise_scale.status is gn.Status.NEGATIVE_CURVATURE
    assert float(profile.stable_lr()) == math.inf


def test_the_curvature_noise_scale_has_no_unit() -> None:
    model, loss_fn, batch = CORE[0].build()
    moments = gn.gradient_moments(model, loss_fn, batch, population="distribution")
    curvatures = 1 + torch.randn(64, generator=torch.Generator().manual_seed(0)).double() ** 2
    found = [curvature_noise_scale(unit * curvatures, moments) for unit in (1.0, 1e-100, 1e100)]
    expected = float(curvatures.var() / curvatures.mean() ** 2)
    for estimate in found:
        assert float(estimate) == pytest.approx(expected, rel=0.1)
        ends = estimate.low, float(estimate), estimate.high
        assert ends == pytest.approx((found[0].low, float(found[0]), found[0].high), rel=1e-9)


def test_the_curvature_noise_scale_of_weighted_samples_covers() -> None:
    """Curvatures that grow with the weight, along one direction, weights 0.2, 1 and 3."""
    kinds = torch.tensor([[0.2, 0.5], [1.0, 1.0], [3.0, 2.0]], dtype=torch.float64)
    weight, curvature = kinds.T
    top = float((weight * curvature).sum() / weight.sum())
    known = float((weight * (curvature - top)).square().mean() / weight.mean() ** 2) / top**2
    source = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):
        w, h = kinds[torch.randint(3, (300,), generator=source)].T
        shares = w / w.mean()
        mean = (shares * h).mean()
        plain = gn.noise_scale_from_gradients(torch.randn(300, 2, generator=source))
        found = curvature_noise_scale(
            shares * h - (shares - 1) * mean, replace(plain, shares=shares)
        )
        covered += found.low <= known <= found.high
    assert fewest(400) <= covered


def test_differences_of_gradients_turn_the_direction_as_much() -> None:
    opened, curvatures, exact = found_on(CE)
    problem = replace(opened.problem, slopes=SlopesByEngine())
    weights = torch.linspace(-1, 1, 128).double()
    with problem.guard():
        vector = torch.randn(23, generator=SOURCE, dtype=torch.float64)
        own = weighted_product(problem, vector, weights)
        expected = weighted_product(opened.problem, vector, weights)
        torch.testing.assert_close(own, expected, rtol=1e-6, atol=1e-6)
        assert not weighted_product(problem, torch.zeros(23).double(), weights).any()
        pairs, deflation = explore(opened.hessian(), tol=1e-9, steps=23)
        top = pairs.vectors[:, 0]
        halves = half_sharpness(problem, top, EigenOptions(tol=1e-9))
        sides = problem.samples.halves(0)
        found = turning(problem, top, curvatures, deflation, halves, sides, problem.samples)
    assert found is not None
    torch.testing.assert_close(found.influences, exact.influences, rtol=1e-4, atol=1e-5)
    assert found.kept == pytest.approx(exact.kept, rel=1e-4)


@pytest.mark.filterwarnings("error")
def test_halves_of_one_sample_tell_no_bias() -> None:
    found = gn.profile(network(), CE, (X[:2], Y[:2]), population="distribution", accuracy=1.0)
    assert found.curvature_noise_scale.value >= 0
