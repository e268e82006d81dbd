"""What a Krylov space knows of a matrix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gradnoise import OperatorError, lanczos
from gradnoise.linalg.convert import as_operator
from gradnoise.linalg.deflation import CUT, Deflation, explore, krylov_deflation
from gradnoise.linalg.krylov import Krylov
from tests.spectra import with_spectrum

SPECTRUM = torch.tensor([9.0, -6.0, 4.0, 2.0, *torch.linspace(-1, 1, 56).tolist()]).double()


def start(size: int) -> Tensor:
    vector = torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return vector / vector.norm()


@pytest.mark.parametrize(("steps", "restart"), [(1, False), (5, False), (20, False), (20, True)])
def test_forms_and_images_are_those_of_both_projections(steps: int, restart: bool) -> None:
    matrix = with_spectrum(SPECTRUM)
    krylov = Krylov(as_operator(matrix), 30, start(60))
    for _ in range(steps):
        krylov.extend()
    if restart:
        krylov.restart(krylov.ritz[0].argsort()[-8:])
        krylov.extend()
    found = Deflation(krylov)
    y = found.directions[:-1].T
    known = y @ y.T @ matrix + matrix @ y @ y.T - y @ y.T @ matrix @ y @ y.T
    u, v = torch.randn(2, 60, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x, z = found.coordinates(u), found.coordinates(v)
    assert float(found.form(x, z)) == pytest.approx(float(u @ known @ v), rel=1e-10)
    torch.testing.assert_close(found.image(x), known @ u, rtol=1e-9, atol=1e-10)


def test_what_is_left_has_no_large_eigenvalue() -> None:
    matrix = with_spectrum(SPECTRUM)
    pairs, found = explore(as_operator(matrix), tol=1e-3, steps=40)
    assert float(pairs.values) == pytest.approx(9)
    rest = matrix - torch.stack([found.image(found.coordinates(e)) for e in torch.eye(60).double()])
    assert float(torch.linalg.eigvalsh(rest).abs().max()) < 2 * CUT * 9


def test_steps_are_taken_beyond_the_eigenpair_until_the_space_closes() -> None:
    for steps in (20, 30):
        ticks: list[int] = []
        operator = as_operator(with_spectrum(SPECTRUM))
        pairs, found = explore(operator, tol=1e-1, steps=steps, tick=ticks.append)
        assert pairs.matvecs < 20
        assert len(ticks) == steps
        same = krylov_deflation(operator, steps=steps)
        torch.testing.assert_close(found.kernel.diagonal().sum(), same.kernel.diagonal().sum())
    low_rank = torch.diag(torch.tensor([3.0, 2.0, 0.0, 0.0, 0.0, 0.0]).double())
    _, found = explore(as_operator(low_rank), tol=1e-3, steps=30)
    x = found.coordinates(torch.ones(6).double())
    assert float(found.form(x, x)) == pytest.approx(5)  # all there is


def test_the_eigenpair_is_the_one_that_lanczos_finds() -> None:
    bulk = 1 + 0.002 * torch.rand(999, generator=torch.Generator().manual_seed(0)).double()
    matrix = torch.diag(torch.cat([bulk, torch.tensor([1.2]).double()]))
    for seed in range(30):
        one = lanczos(matrix, seed=seed)
        other, _ = explore(as_operator(matrix), tol=1e-3, steps=2, seed=seed)
        assert float(other.values) == float(one.values) == pytest.approx(1.2, rel=1e-3)
        assert (other.bound, other.matvecs) == (one.bound, one.matvecs)
    with pytest.raises(OperatorError, match=r"square operator.*got shape \(2, 3\)"):
        explore(as_operator(torch.zeros(2, 3)), tol=1e-3, steps=5)


def test_the_resolvent_is_that_of_the_ritz_vectors_and_zero_beside_them() -> None:
    matrix = with_spectrum(torch.tensor([9.0, -6.0, 4.0, 2.0, 0.0, 0.0]).double())
    krylov = Krylov(as_operator(matrix), 6, start(6))
    while not krylov.is_closed:
        krylov.extend()
    found, (values, vectors) = Deflation(krylov), torch.linalg.eigh(matrix)
    x, top = start(6), vectors[:, -1]
    inverse = torch.where(values < 8.9, 1 / (9 - values), 0.0)
    truth = vectors @ (inverse * (vectors.T @ x))
    torch.testing.assert_close(found.resolvent(x, top, 9.0, 1e-3), truth, rtol=1e-9, atol=1e-10)
    inverse = torch.where(values < 8.9, 1 / (9 - values).clamp(min=6), 0.0)
    truth = vectors @ (inverse * (vectors.T @ x))
    torch.testing.assert_close(found.resolvent(x, top, 9.0, 6.0), truth, rtol=1e-9, atol=1e-10)


def test_ritz_vectors_are_ranked_and_no_more_are_kept_than_asked_for() -> None:
    matrix = with_spectrum(SPECTRUM)
    found = krylov_deflation(as_operator(matrix), steps=20, most=3)
    values = found.kernel.diagonal()[:-1]
    assert len(values) == 3
    torch.testing.assert_close(values[found.ranked], torch.tensor([9.0, 4.0, -6.0]).double())
    torch.testing.assert_close(matrix @ found.top, 9 * found.top, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("count", "share", "kept"),
    [
        (1, 0.5, [9.0, -6.0]),
        (1, 0.4, [9.0, 4.0, -6.0]),
        (3, 0.5, [9.0, 4.0, -6.0]),
        (2, 1, [9, -6]),
    ],
)
def test_the_leading_ritz_vectors_are_those_of_the_largest_values_in_size(
    count: int, share: float, kept: list[float]
) -> None:
    matrix = with_spectrum(SPECTRUM)
    found = krylov_deflation(as_operator(matrix), steps=20).leading(count, share)
    values = found.kernel.diagonal()
    torch.testing.assert_close(found.kernel, values.diag())
    torch.testing.assert_close(values.sort(descending=True).values, torch.tensor(kept).double())
    images = found.directions @ matrix
    torch.testing.assert_close(images, values[:, None] * found.directions, rtol=1e-4, atol=1e-4)
    few = krylov_deflation(as_operator(matrix), steps=20, most=2)
    assert len(few.leading(3, 0.5).directions) == 2  # no more than there are
