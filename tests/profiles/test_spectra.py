"""The spectra of H and Σ that a profile keeps."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.measurement.opened import Opened
from gradnoise.problem.options import Options
from gradnoise.profiles.spectra import Spectrum, find_spectra
from gradnoise.show.progress import progress_bar
from tests.reports import quadratic_profile

TOY = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))


def test_a_profile_has_none_unless_they_are_asked_for() -> None:
    assert quadratic_profile(1.0).spectra == {}


def test_they_are_those_of_the_hessian_and_of_the_covariance() -> None:
    data = TOY.sample(64, seed=0)
    p = gn.profile(TOY.model(), TOY.loss_fn, data, spectra=True)
    gradients = gn.per_sample_gradients(TOY.model(), TOY.loss_fn, data)
    rows = torch.cat([g.flatten(1) for g in gradients.values()], 1).double()
    noise = torch.linalg.eigvalsh(torch.cov(rows.T))
    assert (p.spectra["H"].lowest, p.spectra["H"].highest) == pytest.approx((1.0, 4.0))
    seen = p.spectra["Σ"]
    assert (seen.lowest, seen.highest) == pytest.approx(tuple(noise.tolist()), rel=1e-5)
    assert p.spectra["H"].size == seen.size == 2


def test_they_are_in_the_cost() -> None:
    plain, more = quadratic_profile(1.0), quadratic_profile(1.0, spectra=True)
    products = sum(seen.products for seen in more.spectra.values())
    assert products >= 4
    assert more.cost.passes > plain.cost.passes + products


def test_those_of_groups_are_in_samples() -> None:
    torch.manual_seed(0)
    data = torch.randn(96, 5), torch.randint(3, (96,))
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    p = gn.profile(model, nn.CrossEntropyLoss(), data, group_size=12, spectra=True)
    top = gn.covariance(model, nn.CrossEntropyLoss(), data, k=1, group_size=12, hessian=False)
    assert p.spectra["Σ"].highest == pytest.approx(float(top.pairs.values[0]), rel=0.02)


def found(curvature: bool) -> tuple[set[str], str]:
    options = Options(max_samples=None)
    opened = Opened.open(TOY.model(), TOY.loss_fn, TOY.sample(64, seed=0), options)
    with opened.problem.guard(), progress_bar(False) as stage:
        spectra, why = find_spectra(opened, stage, curvature=curvature, memory_budget=2**30)
    return set(spectra), why


def test_without_curvature_there_is_that_of_the_covariance() -> None:
    assert found(True) == ({"H", "Σ"}, "")
    assert found(False) == ({"Σ"}, "")


def test_what_cannot_be_measured_is_a_note_and_the_profile_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise gn.OperatorError("a product is not finite")

    monkeypatch.setattr("gradnoise.profiles.spectra.SpectralDensity.of", refuse)
    p = gn.profile(TOY.model(), TOY.loss_fn, TOY.sample(64, seed=0), spectra=True)
    assert p.spectra == {}
    assert "spectra were not measured: a product is not finite" in p.warnings
    assert float(p.sharpness) == pytest.approx(4.0)


def test_the_curve_is_short_and_keeps_its_area_and_its_peaks() -> None:
    matrix = torch.diag(torch.cat([torch.linspace(0, 1, 90), torch.tensor([3.0, 7.0])])).double()
    seen = gn.SpectralDensity.of(matrix, probes=2, steps=40)
    kept = Spectrum.of(seen)
    assert len(kept.grid) < 0.6 * len(seen.curve.grid)
    assert max(kept.density) == pytest.approx(seen.curve.density.max(), rel=1e-5)
    assert np.trapezoid(kept.density, kept.grid) == pytest.approx(1, abs=0.02)
    lines = list(zip(kept.low, kept.density, kept.high, strict=True))
    assert all(low <= y <= high for low, y, high in lines)
    assert any(low < 0.9 * y and 1.1 * y < high for low, y, high in lines)


def test_a_factor_scales_eigenvalues_and_keeps_the_area() -> None:
    seen = gn.SpectralDensity.of(torch.diag(torch.tensor([1.0, 2.0, 5.0])))
    one, ten = Spectrum.of(seen), Spectrum.of(seen, 10.0)
    assert (ten.lowest, ten.highest) == pytest.approx((10.0, 50.0))
    assert ten.width == pytest.approx(10 * one.width)
    assert np.trapezoid(ten.density, ten.grid) == pytest.approx(
        np.trapezoid(one.density, one.grid), rel=1e-3
    )


def test_it_is_read_back(tmp_path: Path) -> None:
    p = quadratic_profile(1.0, spectra=True)
    assert Spectrum.from_dict({**asdict(p.spectra["H"])}) == p.spectra["H"]
    p.save(tmp_path / "p.json")
    assert gn.Profile.load(tmp_path / "p.json") == p
