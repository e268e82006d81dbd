"""The noise scale of spectral descent: transposition, rank, derivatives."""

from __future__ import annotations

import math

import pytest
import torch

import gradnoise as gn
from gradnoise.estimators.diagnostics.spectral import _polar, _spectral_noise
from tests.matrices import measure, rows


def test_sides_are_exchanged_by_transposition() -> None:
    g = rows()
    assert measure("rows", g) == measure("columns", g.mT)


def test_a_rank_deficient_covariance_is_no_obstacle() -> None:
    g = rows(5).repeat(1, 1, 1)
    g[:, 3] = 0
    found = measure("rows", g, population="dataset")
    assert float(found) == pytest.approx(float(measure("rows", g[:, :3], population="dataset")))
    assert math.isfinite(measure("columns", rows(4)).low)


def test_influences_on_the_noise_are_derivatives_by_the_weights() -> None:
    g = rows(12)
    weights = torch.full((12,), 1 / 12, dtype=torch.float64, requires_grad=True)
    centred = g - torch.einsum("n,nij->ij", weights, g) / weights.sum()
    second = torch.einsum("n,nik,njk->ij", weights, centred, centred) / weights.sum()
    spectral = torch.linalg.eigvalsh(second).sqrt().sum()
    (expected,) = torch.autograd.grad(spectral, weights)
    found, influence = _spectral_noise(g - g.mean(0))
    scale = math.sqrt(12 / 11)  # Σ with 1/(n - 1)
    assert found == pytest.approx(scale * spectral.item(), rel=1e-12)
    torch.testing.assert_close(influence - influence.mean(), expected / scale)


def test_the_polar_factor_attains_the_sum_of_singular_values() -> None:
    matrix = rows(1)[0]
    matrix[3] = matrix[0]  # of rank three
    polar, values = _polar(matrix), torch.linalg.svdvals(matrix)
    assert float((polar * matrix).sum()) == pytest.approx(float(values.sum()), rel=1e-12)
    found = torch.linalg.svdvals(polar)
    torch.testing.assert_close(found, torch.tensor([1.0, 1, 1, 0]).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gn.spectral_noise_scale(rows(), side="left"), "`side` must be one of rows, col"),
        (lambda: gn.spectral_noise_scale(rows()[0], side="rows"), "must be of matrices"),
    ],
)
def test_what_is_no_matrix_is_refused(call, message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        call()
