"""Numbers that cannot be are refused when a file is read, with what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.profiles.possible import check_possible

Change = Callable[[dict[str, Any]], Any]
IMPOSSIBLE: dict[str, tuple[Change, str]] = {
    "ends swapped": (
        lambda c: c["estimates"]["trace_cov"].update(low=5.0, high=4.0),
        r"trace_cov: low = 5 is above high = 4",
    ),
    "value outside": (
        lambda c: c["estimates"]["loss"].update(value=1e9),
        r"loss: value = 1e\+09 is outside of",
    ),
    "an end that is nan": (
        lambda c: c["estimates"]["loss"].update(low="nan"),
        "loss: an end of the interval is nan",
    ),
    "level in percent": (lambda c: c.update(level=95), "level = 95, and not between 0 and 1"),
    "level of one estimate": (
        lambda c: c["estimates"]["loss"].update(level=1.5),
        "loss: level = 1.5, and not between",
    ),
    "negative noise scale": (
        lambda c: c["estimates"]["noise_scale"].update(value=-4.0, low=-5.0, high=-3.0),
        r"noise_scale is negative \(-4\)",
    ),
    "negative noise scale of a layer": (
        lambda c: c["layers"]["0"]["simple_noise_scale"].update(value=-1.0, low=-2.0, high=0.0),
        r"layer '0', simple_noise_scale is negative",
    ),
    "a bound of a noise scale below zero": (
        lambda c: c["estimates"]["noise_scale"].update(value="nan", low="-inf", high=-1.0),
        r"noise_scale is negative \(-1\)",
    ),
    "a share that is outside": (
        lambda c: c["layers"]["0"]["curvature_share"].update(value=2.0, low=0.1, high=0.2),
        r"layer '0', curvature_share: value = 2 is outside",
    ),
    "a layer of half a parameter": (lambda c: c["layers"]["0"].update(size=0.5), "size = 0.5"),
    "negative error": (
        lambda c: c["estimates"]["loss"].update(stderr=-1.0),
        "loss: stderr = -1 is negative",
    ),
    "half a sample": (
        lambda c: c["estimates"]["loss"].update(samples=-1),
        "loss: samples = -1",
    ),
    "more samples than there are": (
        lambda c: c.update(samples=1000),
        "1000 samples out of a population of 500",
    ),
    "no samples": (lambda c: c.update(samples=0), "samples = 0, and not a whole number from 1"),
    "a model that is a number": (lambda c: c.update(model=3), "model = 3, and not a text"),
    "another metric": (lambda c: c.update(metric="polar"), "metric = 'polar', and not one of"),
    "another unit": (lambda c: c.update(unit="batch"), "unit = 'batch', and not one of"),
    "an empty batch": (lambda c: c.update(batch_size=0), "batch_size = 0, and not a whole"),
    "negative rate": (lambda c: c["optimizer"].update(lr=-0.1), "learning rate -0.1 is negative"),
    "momentum of one": (lambda c: c["optimizer"].update(momentum=1.0), "momentum 1 is not"),
    "a date in words": (lambda c: c.update(date="yesterday"), "date = 'yesterday', and not ISO"),
    "a date without offset": (lambda c: c.update(date="2026-11-30T10:00:00"), "and not ISO 8601"),
    "a number as place": (lambda c: c.update(environment={"threads": 4}), "not a text"),
}
FILE = Path(__file__).parent / "files" / "schema_1.json"


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_file_with_numbers_that_cannot_be_is_refused(name: str, tmp_path: Path) -> None:
    change, said = IMPOSSIBLE[name]
    contents = json.loads(FILE.read_text("utf-8"))
    change(contents)
    edited = tmp_path / "edited.json"
    edited.write_text(json.dumps(contents), "utf-8")
    with pytest.raises(gn.ProfileFileError, match=rf"edited.json is a damaged profile .*{said}"):
        gn.Profile.load(edited)


def test_a_model_without_gradients_can_be_saved(tmp_path: Path) -> None:
    loss = lambda m, batch: 0 * m(batch).square().sum(1)  # noqa: E731
    p = gn.profile(nn.Linear(3, 2), loss, torch.randn(8, 3), batch_size=4)
    p.save(tmp_path / "p.json")
    assert gn.Profile.load(tmp_path / "p.json").to_dict() == p.to_dict()


@pytest.mark.parametrize("name", ["resolved", "bounds_only", "negative", "flat", "deep"])
def test_what_was_measured_is_possible(name: str, request: pytest.FixtureRequest) -> None:
    check_possible(request.getfixturevalue(name))
