"""Where a spectral radius crosses one, and the basis of symmetric matrices."""

import numpy as np
import pytest

from gradnoise.learning_rate.second_moments import stability_limit, symmetric_basis


@pytest.mark.parametrize("crossing", [0.25, 0.5, 0.9999])
def test_the_stability_limit_is_where_the_radius_crosses_one(crossing):
    assert stability_limit(lambda lr: 1 + lr * (lr - crossing), 1.0) == pytest.approx(crossing)


def test_without_a_crossing_the_stability_limit_is_the_upper_end():
    assert stability_limit(lambda lr: 1 - lr, 0.5) == 0.5
    assert stability_limit(lambda lr: 1.0, 0.5) == 0.5


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_basis_of_symmetric_matrices_is_orthonormal_and_complete(size):
    basis = symmetric_basis(size)
    assert basis.shape == (size**2, size * (size + 1) // 2)
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-15)
    matrix = np.arange(size**2).reshape(size, size)
    flat = (matrix + matrix.T).reshape(-1)
    np.testing.assert_allclose(basis @ (basis.T @ flat), flat, atol=1e-14)
