"""The picture of a run: its curves are those of the file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imread

from gradnoise.history.picture import draw
from gradnoise.history.run_file import Run
from gradnoise.history.summary import summary
from tests.run_files import DIGITS, run_of


def line(axes: Any, label: str) -> Any:
    return next(each for each in axes.lines if label in each.get_label())


def test_it_shows_the_columns_of_the_file(tmp_path: Path) -> None:
    run = Run.load(DIGITS)
    figure = draw(run, tmp_path / "run.png", "run.jsonl")
    upper, lower = figure.axes
    assert imread(tmp_path / "run.png").std() > 0.05
    assert upper.get_title() == f"run.jsonl to step {run.last('step'):_.0f}".replace("_", " ")
    assert (upper.get_yscale(), lower.get_yscale()) == ("log", "linear")
    for axes, label, name in (
        (upper, "trΣ/|G|²", "noise_scale"),
        (upper, "batch size B", "batch_size"),
        (lower, "loss of a measured step", "loss"),
    ):
        shown = line(axes, label).get_xydata()
        np.testing.assert_array_equal(shown, np.stack([run.column("step"), run.column(name)], 1))


def test_thirds_are_shown_where_their_value_is_known() -> None:
    run = Run.load(DIGITS)
    found = summary(run)
    assert found is not None
    known = [part for part in found.thirds if part.noise_scale.is_resolved]
    shown = [each for each in draw(run).axes[0].lines if each.get_color() == "black"]
    assert 0 < len(known) == len(shown)
    for part, each in zip(known, shown, strict=True):
        scale = float(part.noise_scale)
        assert each.get_xydata().tolist() == [[part.first, scale], [part.last, scale]]


def test_a_run_without_losses_has_one_panel() -> None:
    (axes,) = draw(run_of({}, {}, {})).axes
    assert axes.get_xlabel() == "step"


def test_a_run_without_a_noise_scale_yet_is_drawn() -> None:
    nothing = {"noise_scale": math.nan, "noise_scale_low": 0.0, "noise_scale_high": math.inf}
    figure = draw(run_of({**nothing, "batch_size": math.nan}), title="")
    assert figure.axes[0].get_title() == "to step 0"


def test_many_losses_have_a_mean() -> None:
    source = np.random.default_rng(0)
    run = run_of(*({"loss": float(loss)} for loss in source.normal(2, 1, 300)))
    mean = line(draw(run).axes[1], "mean of 10 of them").get_ydata()
    assert len(mean) == 30
    assert mean.std() < 0.5
