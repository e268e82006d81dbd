"""The picture of a spectral density."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from gradnoise import SpectralDensity
from gradnoise.linalg.density.picture import spectral_density
from tests.densities import diagonal


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
    with pytest.raises(ImportError, match="pip install matplotlib"):
        SpectralDensity.of(torch.eye(3)).plot()


def test_the_title_counts_eigenvalues_probes_and_products() -> None:
    seen = SpectralDensity.of(diagonal([-1.0, 0.0, 5.0]), probes=1)
    title = spectral_density(seen, matrix="H").get_title()
    assert title == "Spectrum of H, 3 eigenvalues, from -1.00 to 5.00; 1 probe, 3 products"
