"""Frobenius norms against those of known matrices."""

from __future__ import annotations

import math

import pytest
import torch

from gradnoise import frobenius_norm
from gradnoise.tensors.random import generator
from tests.spectra import INDEX, MATRICES, NOISE, SPECTRA, P, measured, with_spectrum


@pytest.mark.parametrize(("name", "gain"), [("1/i", 10), ("0.7^i", 1e3), ("flat", 0.4)])
def test_the_norm_gains_on_the_plain_mean_of_squares(name: str, gain: float) -> None:
    matrix = MATRICES[name]
    plain = torch.stack(
        [
            (matrix @ torch.randn(P, 40, generator=generator(s), dtype=torch.float64)).norm()
            / math.sqrt(40)
            for s in range(60)
        ]
    )
    ours = measured(frobenius_norm, matrix, matrix.norm(), 60, products=40)[0]
    assert float((plain - matrix.norm()).norm()) > gain * float(ours.norm())


@pytest.mark.parametrize("rank", [0, 1, 3, 9])
def test_a_low_rank_is_found_down_to_rounding(rank: int) -> None:
    matrix = with_spectrum(NOISE * INDEX.le(rank), seed=1)
    norm = frobenius_norm(matrix, products=30)
    assert norm.low <= float(matrix.norm()) <= norm.high
    assert norm.stderr <= 1e-13


def test_zero_and_the_identity_are_exact() -> None:
    eye, zero = torch.eye(P, dtype=torch.float64), torch.zeros(P, P, dtype=torch.float64)
    assert float(frobenius_norm(zero, products=20)) == 0
    assert float(frobenius_norm(eye, products=20)) == pytest.approx(math.sqrt(P), rel=1e-13)


@pytest.mark.parametrize("name", SPECTRA)
def test_the_square_is_unbiased_and_the_intervals_hold(name: str) -> None:
    matrix = MATRICES[name]
    errors, _, coverage = measured(frobenius_norm, matrix, matrix.norm(), 200, products=20)
    assert coverage >= 0.9
    squares = (errors + matrix.norm()).square() - matrix.norm().square()
    assert abs(float(squares.mean())) <= 4 * float(squares.std()) / math.sqrt(200)


@pytest.mark.parametrize("name", ["0.7^i", "step", "1/i²"])
def test_the_stated_error_is_not_below_what_float32_resolves(name: str) -> None:
    rounded = MATRICES[name].float()
    truth = rounded.double().norm()
    _, stderr, coverage = measured(frobenius_norm, rounded, truth, 40, products=60)
    assert coverage >= 0.85
    assert float(stderr.min()) >= 1e-7
