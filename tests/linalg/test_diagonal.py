"""Diagonals against those of known matrices, entry by entry."""

from __future__ import annotations

import math

import pytest
import torch

from gradnoise import Diagonal, diagonal
from gradnoise.tensors.random import generator
from tests.spectra import INDEX, MATRICES, NOISE, SPECTRA, P, with_spectrum


def test_entries_that_one_element_decides_have_honest_errors() -> None:
    matrix, even = torch.zeros(P, P, dtype=torch.float64), torch.arange(0, P, 2)
    matrix[even, even + 1] = matrix[even + 1, even] = 1.0
    found = [diagonal(matrix, products=12, seed=seed) for seed in range(40)]
    inside = torch.stack([(d.low <= 0) & (d.high >= 0) for d in found])
    assert float(inside.double().mean()) >= 0.93  # with 4 probes: 0.87


@pytest.mark.parametrize("name", SPECTRA)
def test_the_diagonal_is_unbiased_with_honest_errors_entry_by_entry(name: str) -> None:
    matrix = MATRICES[name]
    found = [diagonal(matrix, products=20, seed=seed) for seed in range(40)]
    errors = torch.stack([d.values for d in found]) - matrix.diagonal()
    scores = errors.mean(0) / (errors.std(0) / math.sqrt(40))
    assert float(scores.square().mean()) < 1.8  # mean 39/37, s.d. 0.15 for P independent entries
    inside = [((d.low <= matrix.diagonal()) & (matrix.diagonal() <= d.high)) for d in found]
    assert float(torch.stack(inside).double().mean()) >= 0.93
    stated = torch.stack([d.stderr for d in found]).square().mean().sqrt()
    assert 0.9 <= float(stated / errors.square().mean().sqrt()) <= 1.25


def test_the_diagonal_gains_on_plain_signs_where_the_spectrum_decays() -> None:
    for name, gain in (("1/i", 2.0), ("0.7^i", 100.0), ("flat", 0.5)):
        matrix, ours, plain = MATRICES[name], [], []
        for seed in range(20):
            signs = torch.randint(0, 2, (P, 40), generator=generator(seed)).double() * 2 - 1
            plain.append((signs * (matrix @ signs)).mean(1) - matrix.diagonal())
            ours.append(diagonal(matrix, products=40, seed=seed).values - matrix.diagonal())
        assert float(torch.stack(plain).norm()) > gain * float(torch.stack(ours).norm())


def test_intervals_of_a_diagonal_are_symmetric_around_its_values() -> None:
    found = Diagonal(torch.tensor([1.0]), torch.tensor([0.5]), level=0.95, samples=9)
    assert float(found.high) == pytest.approx(1 + 0.5 * 2.306004135)
    assert float(found.low) == pytest.approx(1 - 0.5 * 2.306004135)


@pytest.mark.parametrize("rank", [0, 1, 3, 9])
def test_a_low_rank_is_found_down_to_rounding(rank: int) -> None:
    matrix = with_spectrum(NOISE * INDEX.le(rank), seed=1)
    entries = diagonal(matrix, products=30)
    torch.testing.assert_close(entries.values, matrix.diagonal(), rtol=0, atol=1e-13)
    assert float(entries.stderr.max()) <= 1e-13
    assert float(entries.stderr.min()) > 0 or rank == 0


def test_zero_and_the_identity_are_exact() -> None:
    eye, zero = torch.eye(P, dtype=torch.float64), torch.zeros(P, P, dtype=torch.float64)
    assert float(diagonal(zero, products=20).values.abs().max()) == 0
    torch.testing.assert_close(
        diagonal(eye, products=20).values, eye.diagonal(), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("name", ["0.7^i", "step", "1/i²"])
def test_the_stated_error_is_not_below_what_float32_resolves(name: str) -> None:
    rounded = MATRICES[name].float()
    assert float(diagonal(rounded, products=60).stderr.min()) >= 1e-8
