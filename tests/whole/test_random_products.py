"""What trace, Frobenius norm and diagonal have in common."""

from __future__ import annotations

import pytest
import torch

from gradnoise import Hessian, diagonal, frobenius_norm, trace
from gradnoise.tensors.random import generator
from tests.spectra import MATRICES


def test_the_seed_decides_and_the_global_state_does_not_matter() -> None:
    matrix = MATRICES["1/i"]
    for estimator in (trace, frobenius_norm, lambda a, **o: diagonal(a, **o).values[0]):
        first, other = (float(estimator(matrix, products=20, seed=s)) for s in (1, 2))
        torch.manual_seed(5)
        before = torch.get_rng_state()
        assert float(estimator(matrix, products=20, seed=1)) == first != other
        assert torch.equal(torch.get_rng_state(), before)


def test_the_scale_of_the_matrix_is_the_scale_of_the_estimates() -> None:
    matrix = MATRICES["±1/i"]
    for scale in (2.0**-200, 2.0**200):
        for estimator in (trace, frobenius_norm):
            one, scaled = (estimator(a, products=20) for a in (matrix, matrix * scale))
            for field in ("value", "low", "high", "stderr"):
                expected = getattr(one, field) * scale
                assert getattr(scaled, field) == pytest.approx(expected, rel=1e-9)


def test_the_hessian_of_a_model_is_an_operator_like_any_other() -> None:
    inputs = torch.randn(40, 30, generator=generator(0))
    model = torch.nn.Linear(30, 1, bias=False)
    hessian = Hessian(model, torch.nn.MSELoss(), (inputs, torch.zeros(40, 1)))
    matrix = 2 * inputs.double().T @ inputs.double() / 40
    assert float(trace(hessian)) == pytest.approx(float(matrix.trace()), rel=1e-5)
    for estimator in (trace, frobenius_norm):
        ours, dense = (float(estimator(a, products=12)) for a in (hessian, matrix))
        assert ours == pytest.approx(dense, rel=1e-4)
    ours, dense = (diagonal(a, products=12).values for a in (hessian, matrix))
    torch.testing.assert_close(ours, dense, rtol=1e-3, atol=1e-4)


@pytest.mark.cuda
def test_a_gpu_gives_the_same_numbers() -> None:
    matrix = MATRICES["1/i"]
    for estimator in (trace, frobenius_norm):
        here, there = (float(estimator(a, products=20)) for a in (matrix, matrix.cuda()))
        assert there == pytest.approx(here, rel=1e-10)
    found = diagonal(matrix.cuda(), products=20).values
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), diagonal(matrix, products=20).values)
