"""Random signs and directions: reproducible, and complete where all of them fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gradnoise.tensors import random
from gradnoise.tensors.random import (
    Normals,
    generator,
    independent_signs,
    is_complete,
    random_signs,
    random_vector,
    scattered_signs,
)


def test_a_generator_draws_the_same_numbers_from_the_same_seed() -> None:
    first, second, other = (torch.randn(9, generator=generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_no_draw_touches_the_global_random_state() -> None:
    before = torch.get_rng_state()
    random_vector(4, generator(0), torch.device("cpu"))
    random_signs(3, 9, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("count", "size", "complete"),
    [(1, 1, True), (4, 3, True), (3, 3, False), (2**31, 32, True), (2**32, 33, False)],
)
def test_half_of_all_sign_vectors_are_complete(count: int, size: int, complete: bool) -> None:
    assert is_complete(count, size) == complete


@pytest.mark.parametrize("size", [1, 2, 5])
def test_complete_signs_are_every_sign_vector_once_up_to_a_factor(size: int) -> None:
    signs = random_signs(2**size, size, seed=0)
    assert signs.shape == (2 ** (size - 1), size)
    both = torch.cat([signs, -signs])
    assert set(both.flatten().tolist()) == {-1.0, 1.0}
    assert len({tuple(row) for row in both.tolist()}) == 2**size


def test_complete_signs_average_to_the_trace_exactly() -> None:
    matrix = torch.arange(16, dtype=torch.float64).reshape(4, 4)
    signs = random_signs(8, 4, seed=0)
    forms = torch.einsum("ia,ab,ib->i", signs, matrix, signs)
    assert float(forms.mean()) == float(matrix.trace())


def test_fewer_signs_are_independent_ones() -> None:
    signs = random_signs(100, 20, seed=1)
    assert signs.shape == (100, 20)
    assert signs.dtype == torch.float64
    assert torch.equal(signs, independent_signs(100, 20, seed=1))
    assert torch.equal(signs.abs(), torch.ones_like(signs))
    assert not torch.equal(signs, random_signs(100, 20, seed=2))
    assert abs(float(signs.sum())) < 4 * 2000**0.5  # 4 standard errors, of a fixed seed


def test_a_random_vector_is_a_gaussian_one_of_length_one() -> None:
    vector = random_vector(7, generator(5), torch.device("cpu"))
    gaussian = torch.randn(7, generator=generator(5), dtype=torch.float64)
    assert float(vector.norm()) == pytest.approx(1, rel=1e-15)
    torch.testing.assert_close(vector, gaussian / gaussian.norm())
    assert vector.dtype == torch.float64


@pytest.mark.parametrize(("count", "size", "most"), [(8, 640, 640), (3, 10, 12), (4, 40, 20)])
def test_scattered_signs_meet_samples_once(count: int, size: int, most: int) -> None:
    signs = scattered_signs(count, size, 0, most)
    used = min(size, most)
    assert sorted((signs != 0).sum(0).tolist()) == [0] * (size - used) + [1] * used
    per_row = (signs != 0).sum(1)
    assert int(per_row.max() - per_row.min()) <= 1
    entries = signs[signs != 0].abs()
    torch.testing.assert_close(entries, torch.full_like(entries, (count * size / used) ** 0.5))
    many = torch.cat([scattered_signs(count, size, seed, most) for seed in range(400)])
    found = many.T @ many / len(many)
    torch.testing.assert_close(found, torch.eye(size).double(), atol=0.3, rtol=0)


@pytest.mark.parametrize("size", [1, 15, 100, 1000])
def test_parts_of_random_numbers_are_drawn_alone(size: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(random, "BLOCK", 64)
    source = generator(0)
    whole, after = Normals(size, source).entries(0, size), torch.rand(1, generator=source)
    for start, stop in ((0, size), (0, 0), (size // 3, size // 2), (size - 1, size), (size, size)):
        other = generator(0)
        part = Normals(size, other).entries(start, stop)
        assert torch.equal(part, whole[start:stop])
        assert torch.equal(torch.rand(1, generator=other), after)  # moved on by as much


def test_blocks_of_random_numbers_are_independent(monkeypatch: Any) -> None:
    monkeypatch.setattr(random, "BLOCK", 1024)
    numbers = Normals(64 * 1024, generator(0)).entries(0, 64 * 1024).view(64, 1024)
    gaps = numbers @ numbers.T / 1024 - torch.eye(64)
    assert float(gaps.abs().max()) < 6 * (2 / 1024) ** 0.5
    assert float(numbers.mean()) == pytest.approx(0, abs=4 / 256)
