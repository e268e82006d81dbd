"""Linear regression: exact averages over grids with the moments of its inputs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import gradnoise as gn
from tests import oracles
from tests.toys import (
    assert_defined,
    assert_dynamics,
    assert_samples_show,
    assert_truth,
    grid,
    standard_scores,
)

TOY = gn.toy.LinearRegression(torch.tensor([2.0, 0.5]), torch.tensor([1.0, -1.0]), noise=0.5)


def written(data: Any) -> oracles.Dense:
    """Gradients and Hessians from the definition ½(xᵀw - y)²."""
    x, y = data
    residuals = x @ TOY.offset - y
    return oracles.Dense(0.5 * residuals**2, residuals[:, None] * x, x[:, :, None] * x[:, None])


def regression(freedom: float, kurtosis: int) -> tuple[Any, Any]:
    """The problem and a population whose inputs have this fourth moment."""
    x = grid(kurtosis, 2) * TOY.spectrum.sqrt()
    y = torch.tensor([0.5, -0.5]).double().repeat(len(x))
    toy = gn.toy.LinearRegression(TOY.spectrum, TOY.offset, noise=0.5, freedom=freedom)
    return toy, (x.repeat_interleave(2, 0), y)


HEAVY = [(math.inf, 3), (7.0, 5), (10.0, 4)]  # κ = 3 + 6/(ν - 4)


def test_the_model_and_loss_are_those_of_the_definition() -> None:
    assert_defined(TOY, written)


@pytest.mark.parametrize(("freedom", "kurtosis"), HEAVY)
def test_the_truth_is_the_average_over_a_population_with_the_same_moments(
    freedom: float, kurtosis: int
) -> None:
    assert_truth(*regression(freedom, kurtosis))


@pytest.mark.parametrize(("freedom", "kurtosis"), HEAVY)
def test_the_noise_of_the_dynamics_is_that_of_the_population(freedom: float, kurtosis: int) -> None:
    assert_dynamics(*regression(freedom, kurtosis), TOY.offset)


def test_the_truth_is_what_many_samples_show() -> None:
    assert_samples_show(TOY, torch.diag(TOY.spectrum), TOY.spectrum * TOY.offset, written)


def test_heavy_tails_add_their_excess_kurtosis_to_the_noise_scales() -> None:
    gaussian, heavy = (regression(freedom, 3)[0].truth() for freedom in (math.inf, 6.0))
    assert heavy.noise_scale == pytest.approx(gaussian.noise_scale + 3)
    assert heavy.simple_noise_scale == pytest.approx(gaussian.simple_noise_scale + 3)
    assert heavy.sharpness == gaussian.sharpness


def test_samples_have_the_moments_that_the_truth_uses() -> None:
    """Within 4 standard errors, for a fixed seed."""
    heavy = gn.toy.LinearRegression(torch.tensor([2.0, 0.5]), torch.ones(2), 0.5, freedom=20.0)
    x, y = heavy.sample(20_000, seed=1)
    assert (standard_scores(x, 0.0) < 4).all()
    assert (standard_scores(x**2, heavy.spectrum) < 4).all()
    assert (standard_scores(x**4, heavy.spectrum**2 * (3 + 6 / 16)) < 4).all()
    assert (x**4).mean(0)[0] > 4 * 3.1  # that of Gaussians is 4·3
    assert (standard_scores((y**2)[:, None], 0.25) < 4).all()


def test_isotropic_inputs_without_label_noise_have_the_noise_scale_d_plus_one() -> None:
    truth = gn.toy.LinearRegression(torch.ones(7), torch.randn(7), noise=0.0).truth()
    assert truth.noise_scale == pytest.approx(8)
    assert truth.simple_noise_scale == pytest.approx(8)


@pytest.mark.parametrize(
    ("batch", "digits"), [(1, 0.1756), (4, 0.4119), (32, 0.6259), (1000, 0.6653)]
)
def test_the_mean_square_limit_solves_its_scalar_equation(batch: int, digits: float) -> None:
    """1 = (ε/B) Σ_a c_a/(2 - εc_a(1 + 1/B)), from the diagonal of the second moments."""
    c = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2]).double()
    limit = gn.toy.LinearRegression(c, torch.ones(5), noise=0.5).mean_square_lr(batch)
    assert limit == pytest.approx(digits, abs=6e-5)
    right = limit / batch * float((c / (2 - limit * c * (1 + 1 / batch))).sum())
    assert right == pytest.approx(1, abs=1e-9)


def test_isotropic_inputs_have_their_mean_square_limit_in_closed_form() -> None:
    """(2/c)/(1 + (d + 1)/B)."""
    isotropic = gn.toy.LinearRegression(2 * torch.ones(4), torch.ones(4))
    assert isotropic.mean_square_lr(3) == pytest.approx(2 / (2 * (1 + 5 / 3)), rel=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: gn.toy.LinearRegression(torch.ones(2), torch.ones(3)), r"vectors of one length"),
        (lambda: gn.toy.LinearRegression(torch.zeros(2), torch.ones(2)), r"must be positive"),
        (lambda: gn.toy.LinearRegression(torch.ones(2), torch.ones(2), -1), r"not negative"),
        (
            lambda: gn.toy.LinearRegression(torch.ones(2), torch.ones(2), freedom=4.0),
            r"`freedom` must be above 4, or Σ is infinite; got 4.0",
        ),
    ],
)
def test_a_regression_that_does_not_exist_is_refused(build: Any, message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        build()
