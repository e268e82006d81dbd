"""Broadened densities on a grid."""

from __future__ import annotations

import numpy as np
import pytest

from gradnoise import SpectralDensity
from gradnoise.linalg.density.curve import Curve
from tests.densities import SPECTRA, broadened, diagonal


def test_the_default_width_is_resolved_and_the_area_is_one() -> None:
    for values in SPECTRA.values():
        curve = SpectralDensity.of(diagonal(values), probes=8, steps=30).curve
        step = curve.grid[1] - curve.grid[0]
        assert step < curve.width
        assert curve.density.sum() * step == pytest.approx(1, abs=1e-3)
        assert curve.quadrature_error.sum() <= 0.02 * curve.density.sum()
        assert (curve.low <= curve.density).all()
        assert (curve.density <= curve.high).all()


def test_on_a_given_grid_a_closed_rule_gives_the_broadened_spectrum_itself() -> None:
    grid = np.linspace(-1.0, 3.0, 17)
    curve = SpectralDensity.of(diagonal([2.0] * 9)).broaden(grid=grid, width=0.3)
    assert isinstance(curve, Curve)
    assert curve.width == 0.3
    np.testing.assert_array_equal(curve.grid, grid)
    np.testing.assert_array_equal(curve.quadrature_error, 0.0)
    np.testing.assert_allclose(curve.density, broadened(np.array([2.0]), grid, 0.3), atol=1e-12)
