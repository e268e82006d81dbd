"""Options check themselves, before anything is read or computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gradnoise as gn
from gradnoise.problem.options import Options
from tests.refusals import CE, X, Y, linear

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a level of one": ({"level": 1.0}, r"`level` is a coverage between 0 and 1, .*got 1\.0"),
    "a negative seed": ({"seed": -1}, r"`seed` must be a whole number from 0 on; got -1"),
    "an unknown metric": ({"metric": "adam"}, r"`metric` must be one of euclidean, .*'adam'"),
    "no optimizer": ({"metric": "optimizer"}, r"needs `optimizer`, .*got NoneType"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_out_of_range_are_refused(name: str) -> None:
    options, message = REFUSED[name]
    with pytest.raises(gn.ArgumentError, match=message):
        Options(**options)
    with pytest.raises(gn.ArgumentError, match=message):
        gn.profile(linear(), CE, (X, Y), **options)


def test_the_defaults_are_in_range() -> None:
    assert Options() == Options(metric="euclidean", max_samples=4096, level=0.95, seed=0)
    optimizer = torch.optim.SGD(linear().parameters())
    assert Options(metric="optimizer", optimizer=optimizer).optimizer is optimizer
