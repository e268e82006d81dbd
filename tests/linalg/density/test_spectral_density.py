"""Spectral densities of operators and models whose spectrum is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise import ArgumentError, SpectralDensity
from tests import oracles
from tests.cases import CORE, Case, named
from tests.densities import SPECTRA, broadened, diagonal, holds


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": 0}, r"`probes` must be a whole number from 1 on; got 0"),
        ({"steps": 3}, r"`steps` must be a whole number from 4 on; got 3"),
        ({"level": 1.0}, r"`level` is a coverage"),
    ],
)
def test_options_that_make_no_sense_are_errors(options: dict[str, float], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        SpectralDensity.of(torch.eye(3), **options)


def test_a_mean_loss_is_what_is_measured() -> None:
    model = nn.Linear(2, 1, bias=False)
    data = (torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1))
    seen = gn.spectral_density(model, nn.MSELoss(), data, probes=300)
    assert holds(seen.trace, 5.0, 10.0)
    assert float(seen.trace) == pytest.approx(5, abs=0.3)
