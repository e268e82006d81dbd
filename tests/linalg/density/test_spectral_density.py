"""Spectral densities against spectra that are known."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

import gradnoise as gn
from gradnoise import ArgumentError, Estimate, OperatorError, SpectralDensity, Status
from gradnoise.linalg.density.quadrature import gauss_rule
from gradnoise.tensors.random import generator, random_vector
from tests import oracles
from tests.cases import CORE, Case, named
from tests.fuzz import examples
from tests.linalg.test_lanczos import NotFinite, with_spectrum

Array = NDArray[np.float64]
SIZE = 100


def wishart(size: int = SIZE) -> Array:
    x = np.random.default_rng(0).standard_normal((size, 2 * size))
    return np.linalg.eigvalsh(x @ x.T / (2 * size))


def hessian_like() -> Array:
    """Two thirds zeros, a bulk on both sides, ten outliers."""
    bulk = 0.05 * np.random.default_rng(1).standard_normal(SIZE)
    values = np.where(np.arange(SIZE) < 0.67 * SIZE, 0.0, bulk)
    return np.concatenate([values[:-10], np.linspace(2, 20, 10)])


def softmax_at_zero() -> Array:
    """T7: (1/K)(I - 11ᵀ/K) ⊗ XᵀX/n, for K = 5 classes and 20 features."""
    x = np.random.default_rng(2).standard_normal((50, 20)) / np.arange(1, 21)
    classes = np.linalg.eigvalsh((np.eye(5) - 1 / 5) / 5)
    return np.kron(classes, np.linalg.eigvalsh(x.T @ x / 50))


SPECTRA = {
    "wishart": wishart(),
    "partly negative": wishart() - 1,
    "bulk and outliers": np.concatenate([wishart()[:-3], [8.0, 30.0, 100.0]]),
    "like a Hessian": hessian_like(),
    "softmax at zero": softmax_at_zero(),
    "decaying": 1 / np.arange(1.0, SIZE + 1) ** 2,
}


def diagonal(values: Any) -> Tensor:
    """Random directions see no difference between this and any other basis."""
    return torch.diag(torch.as_tensor(np.asarray(values, dtype=float)))


def holds(estimate: Estimate, truth: float, scale: float = 1.0) -> bool:
    rounding = 1e-9 * scale
    return estimate.low - rounding <= truth <= estimate.high + rounding


def broadened(values: Array, grid: Array, width: float) -> Array:
    bumps = np.exp(-(((grid[:, None] - values) / width) ** 2) / 2)
    return bumps.mean(1) / (width * math.sqrt(2 * math.pi))


@examples(40)
@given(
    st.lists(st.integers(-5, 5), min_size=2, max_size=6, unique=True),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_a_rule_with_a_node_per_distinct_eigenvalue_is_exact(
    distinct: list[int], copies: int, seed: int
) -> None:
    values = sorted(map(float, distinct)) * copies
    matrix = with_spectrum(*values, seed=seed)
    start = random_vector(len(values), generator(seed), torch.device("cpu"))
    rule = gauss_rule(matrix, start, steps=50)
    assert rule.is_closed
    np.testing.assert_allclose(rule.nodes, sorted(distinct), atol=1e-8)
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    seen = (vectors.T @ start).square().numpy()
    expected = [seen[np.abs(eigenvalues.numpy() - x) < 1e-6].sum() for x in sorted(distinct)]
    np.testing.assert_allclose(rule.weights, expected, atol=1e-8)


def test_k_steps_match_2k_moments_and_no_more() -> None:
    values = np.linspace(-1, 1, 60) ** 3
    start = random_vector(60, generator(0), torch.device("cpu"))
    rule = gauss_rule(diagonal(values), start, steps=5)
    for degree in range(11):
        truth = float((start.square().numpy() * values**degree).sum())
        found = float((rule.weights * rule.nodes**degree).sum())
        assert (abs(found - truth) < 1e-13) == (degree <= 9)


def test_an_eigenvalue_far_away_leaves_no_ghosts() -> None:
    values = np.append(np.linspace(0, 1, 99), 1e6)
    start = random_vector(100, generator(0), torch.device("cpu"))
    rule = gauss_rule(diagonal(values), start, steps=100)
    np.testing.assert_allclose(rule.nodes, values, atol=1e-8)


@pytest.mark.parametrize("steps", [1, 4, 12, 30])
@pytest.mark.parametrize("name", SPECTRA)
def test_the_bounds_of_a_share_hold_what_a_vector_sees(name: str, steps: int) -> None:
    values = SPECTRA[name]
    start = random_vector(SIZE, generator(steps), torch.device("cpu"))
    rule = gauss_rule(diagonal(values), start, steps)
    for x in np.linspace(values.min() - 0.1, values.max() + 0.1, 23):
        low, high = rule.share_below(float(x))
        truth = float(start.square().numpy()[values < x].sum())
        assert low - 1e-9 <= truth <= high + 1e-9
        assert low - 1e-9 <= rule.weights[rule.nodes < x].sum() <= high + 1e-9


def test_the_bounds_of_a_share_are_reached() -> None:
    # two moments, mean 0 and variance 1: at least 0 and at most 1/(1 + x²) below -x (Cantelli)
    start = torch.full((2,), 0.5**0.5, dtype=torch.float64)
    rule = gauss_rule(diagonal([-1.0, 1.0]), start, steps=1)
    assert rule.share_below(-2.0) == pytest.approx((0.0, 1 / 5))
    assert rule.share_below(2.0) == pytest.approx((4 / 5, 1.0))


def test_of_one_eigenvalue_everything_is_exact() -> None:
    for value, sign in ((1.0, 0.0), (-2.0, 1.0), (0.0, 0.0)):
        seen = SpectralDensity.of(diagonal([value] * 9), probes=3)
        assert seen.matvecs == 3
        assert (seen.lower_edge, seen.upper_edge) == pytest.approx((value, value))
        for estimate, truth in (
            (seen.trace, 9 * value),
            (seen.frobenius_norm, 3 * abs(value)),
            (seen.share_negative, sign),
        ):
            assert [estimate.value, estimate.low, estimate.high] == pytest.approx([truth] * 3)
        np.testing.assert_allclose(
            seen.density, broadened(np.array([value]), seen.grid, seen.curve.width), atol=1e-9
        )


def test_one_parameter_and_more_steps_than_parameters() -> None:
    assert float(SpectralDensity.of(torch.tensor([[-3.0]])).trace) == pytest.approx(-3)
    seen = SpectralDensity.of(diagonal([-1.0, 2.0, 5.0]), probes=200, steps=80)
    assert seen.matvecs == 600
    assert all(len(nodes) == 3 for nodes in seen.nodes)
    assert float(seen.share_negative) == pytest.approx(1 / 3, abs=0.05)


def covered(seen: SpectralDensity, values: Array, width: float, grid: Array) -> dict[str, float]:
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
    matrix = diagonal(values)
    width = 0.3 * float(np.ptp(values)) / 16  # narrow: the quadrature error counts
    grid = np.linspace(values.min() - 2 * width, values.max() + 2 * width, 25)
    found = [
        covered(SpectralDensity.of(matrix, probes=3, steps=16, seed=seed), values, width, grid)
        for seed in range(200)
    ]
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


def test_the_default_width_is_resolved_and_the_area_is_one() -> None:
    for values in SPECTRA.values():
        curve = SpectralDensity.of(diagonal(values), probes=8, steps=30).curve
        step = curve.grid[1] - curve.grid[0]
        assert step < curve.width
        assert curve.density.sum() * step == pytest.approx(1, abs=1e-3)
        assert curve.quadrature_error.sum() <= 0.02 * curve.density.sum()
        assert (curve.low <= curve.density).all()
        assert (curve.density <= curve.high).all()


def test_a_zero_or_a_negative_eigenvalue_in_float32_is_told_apart() -> None:
    values = [0.0] * 40 + [-0.1] * 10 + [10.0]
    seen = SpectralDensity.of(with_spectrum(*values).float(), probes=64, steps=12)
    assert float(seen.share_negative) == pytest.approx(10 / 51, abs=0.03)
    assert seen.share_negative.high < 0.3


def test_edges_lie_inside_the_spectrum() -> None:
    values = SPECTRA["partly negative"]
    for steps in (4, 10, 100):
        seen = SpectralDensity.of(diagonal(values), steps=steps)
        assert values[0] - 1e-12 <= seen.lower_edge <= seen.upper_edge <= values[-1] + 1e-12
    assert (seen.lower_edge, seen.upper_edge) == pytest.approx((values[0], values[-1]))


@pytest.mark.parametrize("case", CORE[:3], ids=named)
def test_a_models_hessian_gives_the_rules_of_the_dense_one(case: Case) -> None:
    model, loss_fn, batch = case.build()
    matrix = oracles.dense(model, loss_fn, batch).hessian
    seen = gn.spectral_density(model, loss_fn, batch, probes=2, steps=12, seed=3)
    expected = SpectralDensity.of(matrix, probes=2, steps=12, seed=3)
    for ours, dense in zip(seen.rules, expected.rules, strict=True):
        np.testing.assert_allclose(ours.nodes, dense.nodes, atol=1e-7)
        np.testing.assert_allclose(ours.weights, dense.weights, atol=1e-7)


def test_the_seed_decides_and_more_probes_begin_with_the_same() -> None:
    matrix = diagonal(SPECTRA["wishart"])
    first, again, more, other = (
        SpectralDensity.of(matrix, probes=probes, steps=6, seed=seed)
        for probes, seed in ((2, 1), (2, 1), (3, 1), (2, 2))
    )
    assert all(map(np.array_equal, first.nodes, again.nodes))
    assert all(map(np.array_equal, first.nodes, more.nodes[:2]))
    assert not np.array_equal(first.nodes[0], other.nodes[0])
    ticks: list[int] = []
    SpectralDensity.of(matrix, probes=3, steps=4, tick=ticks.append)
    assert ticks == [1, 1, 1]


def test_text_is_short_and_honest() -> None:
    text = repr(SpectralDensity.of(diagonal(SPECTRA["partly negative"]), probes=2, steps=10))
    assert "P = 100: 2 probes, 20 products" in text
    assert "or below" in text
    assert len(text.splitlines()) == 6
    assert max(map(len, text.splitlines())) < 100


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [0.0, 0.0], [-1.0, 0.0, 5.0, 100.0]])
def test_a_picture_is_made(values: list[float], tmp_path: Path) -> None:
    seen = SpectralDensity.of(diagonal(values))
    figure = seen.plot(tmp_path / "spectrum.png")
    assert (tmp_path / "spectrum.png").stat().st_size > 10_000
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    words = " ".join(text.get_text() for text in axes.get_legend().get_texts())
    assert ("of the eigenvalues" in words) == (min(values) < 0)
    narrow = seen.plot(width=0.01)
    assert "broadened by 0.01" in narrow.axes[0].get_legend().get_texts()[1].get_text()


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(ImportError, match=r"pip install 'gradnoise\[plot\]'"):
        SpectralDensity.of(torch.eye(3)).plot()


EYE = torch.eye(3)


@pytest.mark.parametrize(
    ("operator", "options", "error", "message"),
    [
        (NotFinite(), {}, OperatorError, r"product 1 with the operator is not finite"),
        (torch.zeros(0, 0), {}, OperatorError, r"not empty; got shape \(0, 0\)"),
        (torch.zeros(2, 3), {}, OperatorError, r"square operator.*got shape \(2, 3\)"),
        (torch.zeros(3), {}, OperatorError, r"got shape \(3,\)"),
        (EYE, {"probes": 0}, ArgumentError, r"`probes` must be a whole number from 1 on; got 0"),
        (EYE, {"steps": 3}, ArgumentError, r"`steps` must be a whole number from 4 on; got 3"),
        (EYE, {"level": 1.0}, ArgumentError, r"`level` is a coverage"),
    ],
)
def test_what_makes_no_sense_is_an_error(
    operator: Any, options: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        SpectralDensity.of(operator, **options)


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


def test_a_mean_loss_is_what_is_measured() -> None:
    model = nn.Linear(2, 1, bias=False)
    data = (torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1))
    seen = gn.spectral_density(model, nn.MSELoss(), data, probes=300)
    assert holds(seen.trace, 5.0, 10.0)
    assert float(seen.trace) == pytest.approx(5, abs=0.3)
