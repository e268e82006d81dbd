"""The noisy quadratic: its definition, and exact averages over a few centres."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gradnoise as gn
from gradnoise.toy.dynamics import stationary_covariance
from tests import oracles
from tests.toys import assert_defined, assert_dynamics, assert_samples_show, assert_truth

HESSIAN = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
CENTRE_COV = torch.tensor([[1.0, 0.3], [0.3, 0.5]])
TOY = gn.toy.NoisyQuadratic(HESSIAN, torch.tensor([1.0, -2.0]), CENTRE_COV)


def centres() -> Tensor:
    """Four centres with mean 0 and covariance S."""
    columns = torch.linalg.cholesky(CENTRE_COV.double()).T * 2**0.5
    return torch.cat([columns, -columns])


def written(data: Tensor) -> oracles.Dense:
    """Gradients and Hessians from the definition ½(w - c)ᵀH(w - c)."""
    gaps = TOY.w - data
    losses = 0.5 * (gaps @ TOY.hessian * gaps).sum(1)
    return oracles.Dense(losses, gaps @ TOY.hessian, TOY.hessian.expand(len(data), 2, 2))


def test_the_model_and_loss_are_those_of_the_definition() -> None:
    assert_defined(TOY, written)


def test_the_truth_is_the_average_over_centres_with_the_same_moments() -> None:
    assert_truth(TOY, centres())


def test_the_truth_is_what_many_samples_show() -> None:
    assert_samples_show(TOY, TOY.hessian, TOY.hessian @ TOY.w, written)


def test_the_noise_of_the_dynamics_is_that_of_the_centres_wherever_it_starts() -> None:
    assert_dynamics(TOY, centres(), TOY.w)
    assert_dynamics(TOY, centres(), torch.zeros(2))


def test_centres_have_the_covariance_asked_for_even_a_singular_one() -> None:
    singular = gn.toy.NoisyQuadratic(HESSIAN, torch.ones(2), torch.diag(torch.tensor([4.0, 0.0])))
    drawn = singular.sample(20_000, seed=0)
    assert drawn.shape == (20_000, 2)
    assert float(drawn[:, 1].abs().max()) == 0
    # standard error of a variance: 4·√(2/20 000) = 0.04; fixed seed
    assert float(drawn[:, 0].var()) == pytest.approx(4, abs=4 * 0.04)


def test_sgd_settles_at_the_lyapunov_equation() -> None:
    toy = gn.toy.NoisyQuadratic(HESSIAN, torch.zeros(2), CENTRE_COV)
    cov = toy.hessian @ toy.centre_cov @ toy.hessian
    found = toy.dynamics().stationary(0.4, 8)
    torch.testing.assert_close(found, stationary_covariance(toy.hessian, cov, 0.05, lr=0.4))
    flow = stationary_covariance(toy.hessian, cov, 0.05)
    residual = toy.hessian @ flow + flow @ toy.hessian - 0.05 * cov
    assert float(residual.abs().max()) < 1e-14


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
    ],
)
def test_matrices_that_do_not_fit_are_refused(build: Any, message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        build()
