"""The truths of the analytic problems, against plain sampling and algebra."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

import gradnoise as gn
from tests import oracles

TOYS = {
    "T1": gn.toy.NoisyQuadratic(
        torch.tensor([[2.0, 0.5], [0.5, 1.0]]),
        torch.tensor([1.0, -2.0]),
        centre_cov=torch.tensor([[1.0, 0.3], [0.3, 0.5]]),
    ),
    "T4": gn.toy.LinearRegression(torch.tensor([2.0, 0.5]), torch.tensor([1.0, -1.0]), noise=0.5),
}


@pytest.mark.parametrize("name", TOYS)
def test_truth_is_what_many_samples_show(name: str) -> None:
    toy, n, groups = TOYS[name], 500, 40
    truth = toy.truth()
    found: dict[str, list[float]] = {}
    for seed in range(groups):
        x = toy.sample(n, seed)
        dense = analytic(toy, x)
        g, h, cov = dense.gradients.mean(0), dense.hessian, dense.covariance
        true_h = toy.hessian if name == "T1" else torch.diag(toy.spectrum)
        v = torch.linalg.eigh(true_h)[1][:, -1]
        own = dense.hessians @ v @ v
        true_g = true_h @ (toy.w if name == "T1" else toy.offset)
        for part, value in {
            "loss": dense.losses.mean(),
            "grad_sq_norm": 2 * g @ true_g - true_g @ true_g,  # linear, so without bias
            "trace_cov": cov.trace(),
            "sharpness": v @ h @ v,
            "grad_curvature": true_g @ h @ true_g,
            "trace_hessian_cov": (true_h @ cov).trace(),
            "curvature_noise_scale": own.var() / truth.sharpness**2,
        }.items():
            found.setdefault(part, []).append(float(value))
    for part, values in found.items():
        sample = torch.tensor(values)
        error = 4 * sample.std() / math.sqrt(groups) + 1e-6
        assert abs(sample.mean() - getattr(truth, part)) <= error, part


def analytic(toy: Any, data: Any) -> oracles.Dense:
    """Gradients and Hessians written by hand from the definition of the problem."""
    if isinstance(toy, gn.toy.NoisyQuadratic):
        gaps = toy.w - data
        losses = 0.5 * (gaps @ toy.hessian * gaps).sum(1)
        return oracles.Dense(losses, gaps @ toy.hessian, toy.hessian.expand(len(data), 2, 2))
    x, y = data
    residuals = x @ toy.offset - y
    return oracles.Dense(0.5 * residuals**2, residuals[:, None] * x, x[:, :, None] * x[:, None])


@pytest.mark.parametrize("name", TOYS)
def test_the_model_and_loss_are_those_of_the_definition(name: str) -> None:
    toy = TOYS[name]
    data = toy.sample(5, seed=0)
    truth, written = oracles.dense(toy.model(), toy.loss_fn, data), analytic(toy, data)
    torch.testing.assert_close(truth.losses, written.losses)
    torch.testing.assert_close(truth.gradients, written.gradients)
    torch.testing.assert_close(truth.hessians, written.hessians)


def grid(kurtosis: int, size: int) -> torch.Tensor:
    """Points whose mean, variance and fourth moment per coordinate are 0, 1 and `kurtosis`.

    ±√κ once each among 2κ values: the third moment is 0, and independent coordinates multiply, so
    an average over the grid is the expectation of every polynomial up to fourth degree.
    """
    values = [kurtosis**0.5, -(kurtosis**0.5)] + [0.0] * (2 * kurtosis - 2)
    points = torch.tensor(list(itertools.product(values, repeat=size)), dtype=torch.float64)
    assert torch.allclose(points.var(0, correction=0), torch.ones(size).double())
    return points


def regression(freedom: float, kurtosis: int) -> tuple[Any, Any]:
    spectrum, offset = torch.tensor([2.0, 0.5]), torch.tensor([1.0, -1.0])
    x = grid(kurtosis, 2) * spectrum.double().sqrt()
    y = torch.tensor([0.5, -0.5]).double().repeat(len(x))
    toy = gn.toy.LinearRegression(spectrum, offset, noise=0.5, freedom=freedom)
    return toy, (x.repeat_interleave(2, 0), y)


def softmax(size: int) -> tuple[Any, Any]:
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]])[:, :size]
    toy = gn.toy.SoftmaxRegression(means, torch.tensor([1.0, 0.25])[:size])
    x = (toy.means[:, None] + grid(3, size) * toy.spectrum.sqrt()).reshape(-1, size)
    return toy, (x, torch.arange(3).repeat_interleave(len(x) // 3))


def flipped(flips: int, w: float) -> tuple[Any, Any]:
    labels = torch.tensor([-1.0] * flips + [1.0] * (10 - flips), dtype=torch.float64)
    return gn.toy.FlippedLogistic(flips / 10, w), labels


@pytest.mark.parametrize(
    ("toy", "population"),
    [
        regression(math.inf, 3),
        regression(7.0, 5),  # κ = 3 + 6/(ν - 4)
        regression(10.0, 4),
        softmax(1),
        softmax(2),
        flipped(3, 0.0),
        flipped(2, -0.7),
    ],
    ids=["gaussian", "student7", "student10", "softmax1", "softmax2", "flipped", "flipped away"],
)
def test_truth_is_the_average_over_a_population_with_the_same_moments(
    toy: Any, population: Any
) -> None:
    dense, truth = oracles.dense(toy.model(), toy.loss_fn, population), toy.truth()
    g, h = dense.gradients.mean(0), dense.hessian
    cov = torch.cov(dense.gradients.T, correction=0).reshape(len(g), len(g))
    values, vectors = torch.linalg.eigh(h)
    own = dense.hessians @ vectors[:, -1] @ vectors[:, -1]
    found = {
        "loss": dense.losses.mean(),
        "grad_sq_norm": g @ g,
        "trace_cov": cov.trace(),
        "simple_noise_scale": cov.trace() / (g @ g),
        "sharpness": values[-1],
        "grad_curvature": g @ h @ g,
        "trace_hessian_cov": (h @ cov).trace(),
        "noise_scale": (h @ cov).trace() / (g @ h @ g),
        "curvature_noise_scale": own.var(correction=0) / values[-1] ** 2,
    }
    for part, value in found.items():
        assert getattr(truth, part) == pytest.approx(float(value), rel=1e-11, abs=1e-13), part


def test_heavy_tails_add_their_excess_kurtosis_to_the_noise_scales() -> None:
    plain, heavy = (regression(freedom, 3)[0].truth() for freedom in (math.inf, 6.0))
    assert heavy.noise_scale == pytest.approx(plain.noise_scale + 3)
    assert heavy.simple_noise_scale == pytest.approx(plain.simple_noise_scale + 3)
    assert heavy.sharpness == plain.sharpness


def standard_scores(values: torch.Tensor, expected: Any) -> torch.Tensor:
    """(mean - expected)/s.e. down the columns."""
    return (values.mean(0) - expected).abs() / (values.std(0) / math.sqrt(len(values)))


def test_samples_have_the_moments_that_the_truth_rests_on() -> None:
    heavy = gn.toy.LinearRegression(torch.tensor([2.0, 0.5]), torch.ones(2), 0.5, freedom=20.0)
    x, y = heavy.sample(20_000, seed=1)
    assert (standard_scores(x, 0.0) < 4).all()
    assert (standard_scores(x**2, heavy.spectrum) < 4).all()
    assert (standard_scores(x**4, heavy.spectrum**2 * (3 + 6 / 16)) < 4).all()
    assert (x**4).mean(0)[0] > 4 * 3.1  # that of Gaussians is 4·3
    assert (standard_scores((y**2)[:, None], 0.25) < 4).all()

    mixture, _ = softmax(2)
    x, labels = mixture.sample(20_000, seed=1)
    for k, mean in enumerate(mixture.means):
        own = x[labels == k]
        assert (standard_scores(own, mean) < 4).all()
        assert (standard_scores((own - mean) ** 2, mixture.spectrum) < 4).all()
        assert abs(len(own) - 20_000 / 3) < 4 * math.sqrt(20_000 * 2 / 9)

    labels = gn.toy.FlippedLogistic(0.3).sample(20_000, seed=1)
    assert set(labels.tolist()) == {-1.0, 1.0}
    assert abs(float((labels < 0).sum()) - 6000) < 4 * math.sqrt(4200)


def test_isotropic_regression_without_label_noise_has_noise_scale_d_plus_one() -> None:
    truth = gn.toy.LinearRegression(torch.ones(7), torch.randn(7), noise=0.0).truth()
    assert truth.noise_scale == pytest.approx(8)
    assert truth.simple_noise_scale == pytest.approx(8)


def test_where_the_gradient_vanishes_the_noise_scales_are_infinite() -> None:
    truth = gn.toy.NoisyQuadratic(torch.eye(2), torch.zeros(2)).truth()
    assert truth.noise_scale == truth.simple_noise_scale == math.inf


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: gn.toy.NoisyQuadratic(torch.eye(2), torch.ones(3)), r"`hessian` must be symm"),
        (
            lambda: gn.toy.NoisyQuadratic(torch.eye(2), torch.ones(2), torch.ones(1, 2)),
            r"`centre_cov` must be symmetric of shape \(2, 2\)",
        ),
        (
            lambda: gn.toy.NoisyQuadratic(torch.tensor([[1.0, 2], [0, 1]]), torch.ones(2)),
            r"`hessian` must be symmetric",
        ),
        (lambda: gn.toy.LinearRegression(torch.ones(2), torch.ones(3)), r"vectors of one length"),
        (lambda: gn.toy.LinearRegression(torch.zeros(2), torch.ones(2)), r"must be positive"),
        (lambda: gn.toy.LinearRegression(torch.ones(2), torch.ones(2), -1), r"not negative"),
        (
            lambda: gn.toy.LinearRegression(torch.ones(2), torch.ones(2), freedom=4.0),
            r"`freedom` must be above 4, or Σ is infinite; got 4.0",
        ),
        (lambda: gn.toy.SoftmaxRegression(torch.ones(1, 2)), r"K > 1 classes; got \(1, 2\)"),
        (lambda: gn.toy.SoftmaxRegression(torch.ones(3)), r"must have shape \(K, d\)"),
        (lambda: gn.toy.SoftmaxRegression(torch.ones(2, 2), -torch.ones(2)), r"none of them neg"),
        (lambda: gn.toy.FlippedLogistic(1.0), r"`flip` must be a share between 0 and 1; got 1.0"),
    ],
)
def test_problems_that_do_not_exist_are_refused(build: Any, message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        build()
