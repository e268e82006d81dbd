"""The largest eigenpair from a space of starts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gradnoise import OperatorError
from gradnoise.linalg.convert import as_operator
from gradnoise.linalg.refine import Refinement, partly_random, refine
from tests.spectra import with_spectrum

SPECTRUM = torch.tensor([9.0, 7.0, -6.0, 4.0, *torch.linspace(-1, 1, 56).tolist()]).double()


def starts(count: int) -> list[Tensor]:
    source = torch.Generator().manual_seed(1)
    return list(torch.randn(count, 60, generator=source, dtype=torch.float64))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("tol", [1e-1, 1e-3, 1e-8])
def test_it_is_the_largest_eigenpair_with_its_residual(count: int, tol: float) -> None:
    matrix, ticks = with_spectrum(SPECTRUM), list[int]()
    found, _ = refine(as_operator(matrix), starts(count), tol=tol, tick=ticks.append)
    value, vector = float(found.values[0]), found.vectors[:, 0]
    residual = float((matrix @ vector - value * vector).norm())
    assert found.converged
    assert float(vector.norm()) == pytest.approx(1, rel=1e-12)
    assert float(found.residuals[0]) == pytest.approx(residual, rel=1e-3, abs=1e-12)
    assert residual <= tol * value
    assert value <= 9 + 1e-9
    assert 9 - value <= residual**2 / (9 - 7 - residual) + 1e-9  # its error is about the square
    assert sum(ticks) == found.matvecs


def test_a_better_start_saves_products() -> None:
    matrix = with_spectrum(SPECTRUM)
    top = torch.linalg.eigh(matrix).eigenvectors[:, -1]
    near = top + 0.1 * starts(1)[0] / starts(1)[0].norm()
    cold, warm = (refine(as_operator(matrix), [s], tol=1e-3)[0] for s in (starts(1)[0], near))
    assert warm.matvecs < cold.matvecs
    assert refine(as_operator(matrix), [top], tol=1e-3)[0].matvecs == 1


def test_the_product_with_a_start_is_known() -> None:
    matrix = with_spectrum(SPECTRUM)
    first, second = starts(2)
    _, space = refine(as_operator(matrix), [first, second], tol=1e-2)
    before = space.matvecs
    for vector in (first, second, first - 3 * second):
        torch.testing.assert_close(space.image(vector), matrix @ vector, rtol=1e-9, atol=1e-9)
    assert space.matvecs == before


def test_the_product_with_a_start_is_right_after_the_basis_was_begun_anew() -> None:
    matrix = with_spectrum(SPECTRUM)
    space, (first, second) = Refinement(as_operator(matrix), 8), starts(2)
    waiting = [first, second]
    for _ in range(5):
        space.add(waiting)
        waiting = [space.top()[2]]
    assert len(space.basis) < space.matvecs  # begun anew
    torch.testing.assert_close(space.image(second), matrix @ second, rtol=1e-9, atol=1e-9)


def test_partly_random_a_start_leads_from_a_wrong_eigenvector_to_the_largest() -> None:
    matrix = torch.diag(SPECTRUM)
    wrong = torch.eye(60, dtype=torch.float64)[1]
    found, _ = refine(as_operator(matrix), [wrong], tol=1e-2)
    assert (float(found.values[0]), float(found.residuals[0])) == (7.0, pytest.approx(0, abs=1e-9))
    found, _ = refine(as_operator(matrix), [partly_random(wrong, 0)], tol=1e-2)
    assert float(found.values[0]) == pytest.approx(9, rel=1e-3)
    assert float(partly_random(-torch.ones(1), 0).abs()) == pytest.approx(1.3)


def test_starts_that_say_the_same_cost_one_product() -> None:
    matrix = torch.diag(torch.tensor([3.0, 1.0], dtype=torch.float64))
    first = torch.tensor([1.0, 0.0], dtype=torch.float64)
    found, space = refine(as_operator(matrix), [first, 2 * first, 0 * first], tol=1e-3)
    assert (found.matvecs, float(found.values[0])) == (1, 3.0)
    torch.testing.assert_close(space.image(first), 3 * first)


def test_a_basis_that_is_full_goes_on_with_its_best() -> None:
    matrix = with_spectrum(SPECTRUM)
    space = Refinement(as_operator(matrix), 8)  # basis and products: four of each
    waiting = starts(2)
    for _ in range(60):
        space.add(waiting)
        assert len(space.basis) <= 4
        torch.testing.assert_close(space.basis @ matrix, space.images, rtol=1e-8, atol=1e-8)
        value, vector, residual = space.top()
        torch.testing.assert_close(matrix @ vector - value * vector, residual, rtol=1e-6, atol=1e-8)
        waiting = [residual]
    assert space.top()[0] == pytest.approx(9, rel=1e-8)


def test_a_space_that_closes_ends_it() -> None:
    found, _ = refine(as_operator(torch.tensor([[2.0]])), [torch.ones(1)], tol=1e-3)
    assert (float(found.values[0]), found.matvecs, found.converged) == (2.0, 1, True)


def test_negative_eigenvalues_alone() -> None:
    matrix = -with_spectrum(SPECTRUM.abs() + 1)
    found, _ = refine(as_operator(matrix), starts(2), tol=1e-6)
    assert float(found.values[0]) == pytest.approx(
        float(torch.linalg.eigvalsh(matrix)[-1]), rel=1e-5
    )


def test_a_product_that_is_not_finite_is_refused() -> None:
    matrix = torch.diag(torch.tensor([1.0, float("nan")]))
    with pytest.raises(OperatorError, match="product 1 with the operator is not finite"):
        refine(as_operator(matrix), [torch.ones(2)], tol=1e-3)


def test_it_goes_on_while_the_second_pair_may_become_the_first() -> None:
    matrix, eye = torch.diag(SPECTRUM), torch.eye(60, dtype=torch.float64)
    known, hidden = eye[1], eye[0] + 0.7 * eye[5:9].sum(0) / 2
    value = float(hidden @ matrix @ hidden) / float(hidden @ hidden)
    assert value < 7  # below the eigenvalue of the first start, which has no residual
    found, _ = refine(as_operator(matrix), [known, hidden], tol=1e-2)
    assert float(found.values[0]) == pytest.approx(9, rel=1e-2)


def test_known_products_are_not_taken_again() -> None:
    matrix = with_spectrum(SPECTRUM)
    top = torch.linalg.eigh(matrix).eigenvectors[:, -1]
    near = [top + 0.3 * start / start.norm() for start in starts(2)]
    known = [(vector, matrix @ vector) for vector in near]
    found, space = refine(as_operator(matrix), [], known=known, tol=1e-6)
    asked, _ = refine(as_operator(matrix), near, tol=1e-6)
    assert found.matvecs == asked.matvecs - 2
    assert float(found.values[0]) == pytest.approx(9, rel=1e-10)
    for vector in near:
        torch.testing.assert_close(space.image(vector), matrix @ vector, rtol=1e-9, atol=1e-9)


def test_a_known_product_of_what_the_basis_has_already_is_left_out() -> None:
    matrix = with_spectrum(SPECTRUM)
    space, vector = Refinement(as_operator(matrix), 20), starts(1)[0]
    assert space.add_known(vector, matrix @ vector) == 1
    close = vector + 0.01 * starts(2)[1]
    assert space.add_known(close, matrix @ close) == 0
    assert len(space.basis) == 1


def test_known_eigenvectors_need_no_product() -> None:
    matrix = with_spectrum(SPECTRUM)
    top = torch.linalg.eigh(matrix).eigenvectors[:, -1]
    found, _ = refine(as_operator(matrix), [], known=[(top, matrix @ top)], tol=1e-6)
    assert found.converged
    assert found.matvecs <= 1  # the rival is looked for
