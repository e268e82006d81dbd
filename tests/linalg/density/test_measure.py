"""Means over a spectrum, their intervals, and where these hold the truth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gradnoise import ArgumentError, SpectralDensity, Status
from gradnoise.linalg.density.measure import SpectralMeasure
from tests.densities import SIZE, SPECTRA, Array, broadened, diagonal, gauss_rules, holds
from tests.spectra import with_spectrum


def covered(seen: SpectralMeasure, values: Array, width: float, grid: Array) -> dict[str, float]:
    curve, scale = seen.broaden(width=width, grid=grid), float(np.abs(values).max())
    truth = broadened(values, grid, width)
    rounding = 1e-9 * truth.max()
    inside = (curve.low - rounding <= truth) & (truth <= curve.high + rounding)
    return {
        "trace": holds(seen.trace, values.sum(), SIZE * scale),
        "norm": holds(seen.frobenius_norm, float(np.linalg.norm(values)), SIZE * scale),
        "negative": holds(seen.share_negative, float((values < -1e-12).mean())),
        "density": float(inside[truth > 1e-4 * truth.max()].mean()),
    }


@pytest.mark.parametrize("name", SPECTRA)
def test_intervals_hold_the_truth_in_nine_of_ten_seeds(name: str) -> None:
    values = SPECTRA[name]
    starts = np.random.default_rng(0).standard_normal((200, 3, SIZE))
    starts /= np.linalg.norm(starts, axis=-1, keepdims=True)
    width = 0.3 * float(np.ptp(values)) / 16  # narrow: the quadrature error counts
    grid = np.linspace(values.min() - 2 * width, values.max() + 2 * width, 25)
    zero = 1e-12 * float(np.abs(values).max())
    found = []
    for probes in starts:
        rules = tuple(gauss_rules(values, probes, 16))
        seen = SpectralMeasure(SIZE, rules, steps=16, zero=zero, level=0.95)
        found.append(covered(seen, values, width, grid))
    for quantity in found[0]:
        assert np.mean([run[quantity] for run in found]) >= 0.9, quantity


def test_intervals_say_something() -> None:
    # covering is easy for an interval without end: these are about as narrow as they can be
    values = SPECTRA["partly negative"]
    seen = SpectralDensity.of(diagonal(values), probes=16, steps=60)
    spread = math.sqrt(2 * values.var() / (16 * (SIZE + 2)))
    assert seen.trace.stderr == pytest.approx(SIZE * spread, rel=0.2)
    assert seen.trace.high - seen.trace.low == pytest.approx(2 * 1.96 * SIZE * spread, rel=0.2)
    share = seen.share_negative
    assert share.high - share.low < 2 * 1.96 * math.sqrt(0.5 * 0.5 * 2 / (16 * 102)) + 0.06


def test_a_mean_of_any_function_and_its_quadrature_error() -> None:
    values = SPECTRA["bulk and outliers"]
    seen = SpectralDensity.of(diagonal(values), probes=50, steps=60)
    mean = seen.mean(np.log)
    assert mean.value == pytest.approx(np.log(values).mean(), abs=3 * mean.stderr)
    assert holds(mean, float(np.log(values).mean()))
    assert mean.high - mean.low < 5 * mean.stderr
    coarse = SpectralDensity.of(diagonal(SPECTRA["wishart"]), probes=50, steps=6)
    truth, needle = 0.0, coarse.mean(lambda x: 1.0 * (np.abs(x - 1) < 1e-3))
    assert holds(needle, truth)
    with pytest.raises(ArgumentError, match=r"`function` must be finite on the spectrum"):
        SpectralDensity.of(diagonal([-1.0, 1.0])).mean(lambda x: x * math.nan)


def test_what_crowds_at_zero_is_not_said_to_be_negative() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([np.zeros(300), 1e-3 * rng.standard_normal(100), [1.0, 5.0]])
    share = SpectralDensity.of(diagonal(values), steps=8).share_negative
    assert share.status is Status.NOT_SEPARATED
    assert math.isnan(share.value)
    assert "more `steps`" in share.status.remedy
    assert holds(share, float((values < 0).mean()))
    aside = SpectralDensity.of(diagonal(values), steps=8).cumulative(-0.5)
    assert aside.is_resolved
    assert float(aside) == pytest.approx(0, abs=1e-6)


def test_a_zero_or_a_negative_eigenvalue_in_float32_is_told_apart() -> None:
    values = [0.0] * 40 + [-0.1] * 10 + [10.0]
    seen = SpectralDensity.of(with_spectrum(values).float(), probes=64, steps=12)
    assert float(seen.share_negative) == pytest.approx(10 / 51, abs=0.03)
    assert seen.share_negative.high < 0.3


def test_edges_lie_inside_the_spectrum() -> None:
    values = SPECTRA["partly negative"]
    for steps in (4, 10, 100):
        seen = SpectralDensity.of(diagonal(values), steps=steps)
        assert values[0] - 1e-12 <= seen.lower_edge <= seen.upper_edge <= values[-1] + 1e-12
    assert (seen.lower_edge, seen.upper_edge) == pytest.approx((values[0], values[-1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0.0}, r"`width` must be positive; got 0.0"),
        ({"width": math.nan}, r"`width` must be positive; got nan"),
        ({"width": 1e-5}, r"4 steps do not resolve a `width` of 1e-05.*use more `steps`"),
        ({"grid": [0.0, math.inf]}, r"`grid` must be a finite vector; got shape \(2,\)"),
        ({"grid": []}, r"`grid` must be a finite vector; got shape \(0,\)"),
    ],
)
def test_a_curve_that_cannot_be_drawn_is_an_error(options: dict[str, Any], message: str) -> None:
    seen = SpectralDensity.of(diagonal(SPECTRA["wishart"]), steps=4)
    with pytest.raises(ArgumentError, match=message):
        seen.broaden(**options)
