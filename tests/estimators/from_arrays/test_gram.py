"""Gram matrices and running sums: the same numbers, or a refusal where digits are lost."""

from __future__ import annotations

import math

import pytest
import torch

import gradnoise as gn
from tests.numbers import rows, same


@pytest.mark.parametrize("population", ["dataset", "distribution", 100])
@pytest.mark.parametrize("signal", [0.0, 1.0, 30.0])
def test_inner_products_give_the_same_estimates(population: str | int, signal: float) -> None:
    g = rows(signal=signal)
    whole = gn.noise_scale_from_gradients(g, population=population)
    found = gn.noise_scale_from_gram((g @ g.T).numpy(), population=population)
    same(found, whole.simple_noise_scale, rel=1e-8)
    same(found.grad_sq_norm, whole.grad_sq_norm, rel=1e-8)
    same(found.trace_cov, whole.trace_cov, rel=1e-8)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("population", ["dataset", "distribution", 100])
def test_sums_give_the_same_values(population: str | int, squared: bool) -> None:
    g = rows()
    whole = gn.noise_scale_from_gradients(g, population=population)
    total = g.sum(0) if not squared else float(g.sum(0).square().sum())
    found = gn.noise_scale_from_sums(40, total, g.square().sum(), population=population)
    assert float(found) == pytest.approx(float(whole.simple_noise_scale), rel=1e-12)
    assert float(found.grad_sq_norm) == pytest.approx(float(whole.grad_sq_norm), rel=1e-12)
    assert float(found.trace_cov) == pytest.approx(float(whole.trace_cov), rel=1e-12)
    exact = population == "dataset"
    assert found.is_exact == exact
    assert exact or found.status is gn.Status.NO_INTERVAL


def test_sums_without_signal_have_no_value() -> None:
    found = gn.noise_scale_from_sums(4, 0.0, 12.0)  # |G|² = -1
    assert float(found.grad_sq_norm) == -1.0
    assert float(found.trace_cov) == 4.0
    assert math.isnan(float(found))
    assert (found.low, found.high) == (0.0, math.inf)
    assert found.status is gn.Status.SIGNAL_BELOW_NOISE


def test_sums_of_three_good_digits_pass_and_others_are_refused() -> None:
    g = rows(signal=0.0)
    for shift, dtype, refused in (
        (3.0, torch.float32, False),
        (1e3, torch.float32, True),
        (1e3, torch.float64, False),
        (1e7, torch.float64, True),
    ):
        strong = g + shift
        sums = strong.sum(0).to(dtype), strong.square().sum().to(dtype)
        truth = float(torch.cov(strong.T).trace())
        if refused:
            with pytest.raises(gn.ArgumentError, match="fewer than three digits are left"):
                gn.noise_scale_from_sums(40, *sums)
        else:
            found = gn.noise_scale_from_sums(40, *sums)
            assert float(found.trace_cov) == pytest.approx(truth, rel=1e-3)


def test_the_resolution_of_sums_can_be_told() -> None:
    g = rows(signal=1e3)
    sums = g.sum(0), g.square().sum()
    assert gn.noise_scale_from_sums(40, *sums).trace_cov
    with pytest.raises(gn.ArgumentError, match=r"known to 1\.0e-07"):
        gn.noise_scale_from_sums(40, *sums, resolution=1e-7)


def test_a_gram_matrix_in_which_the_noise_drowns_is_refused() -> None:
    g = rows(signal=1e3).float()
    with pytest.raises(gn.ArgumentError, match="noise_scale_from_gradients"):
        gn.noise_scale_from_gram(g @ g.T)


@pytest.mark.parametrize(
    ("gram", "message"),
    [
        (torch.eye(3)[:2], r"\(n, n\) matrix"),
        (torch.ones(1, 1), "two samples or more"),
        (torch.tensor([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        (-torch.eye(2), "squared norms on its diagonal"),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "larger than the norms allow"),
        (torch.full((2, 2), math.inf), "finite"),
    ],
)
def test_what_is_no_gram_matrix_is_refused(gram: torch.Tensor, message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        gn.noise_scale_from_gram(gram)


@pytest.mark.parametrize(
    ("sums", "message"),
    [
        ((1, 1.0, 1.0), "`samples` must be a whole number from 2 on"),
        ((4, torch.ones(2, 2), 1.0), "`total` must be a vector"),
        ((4, 1.0, torch.ones(2)), "`sum_sq_norms` one number"),
        ((4, -1.0, 1.0), "cannot be negative"),
        ((4, 100.0, 1.0), "not of the same gradients"),  # Σ‖g‖² ≥ ‖Σg‖²/n
    ],
)
def test_what_are_no_sums_is_refused(sums: tuple, message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        gn.noise_scale_from_sums(*sums)


@pytest.mark.parametrize("resolution", [-1.0, 1.0, math.nan])
def test_a_resolution_is_a_relative_rounding(resolution: float) -> None:
    with pytest.raises(gn.ArgumentError, match="`resolution` is a relative rounding such as 1e-7"):
        gn.noise_scale_from_sums(4, torch.tensor([12.0]), 46.0, resolution=resolution)
