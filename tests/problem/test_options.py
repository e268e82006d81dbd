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
    assert Options() == Options(metric="auto", max_samples=4096, level=0.95, seed=0)
    optimizer = torch.optim.SGD(linear().parameters())
    assert Options(metric="optimizer", optimizer=optimizer).optimizer is optimizer


@pytest.mark.parametrize(
    ("name", "auto"),
    [("SGD", False), ("AdamW", True), ("RMSprop", True), ("Adagrad", True), ("Adadelta", False)],
)
def test_auto_is_the_metric_of_an_adaptive_optimizer_whose_scales_are_known(
    name: str, auto: bool
) -> None:
    optimizer = getattr(torch.optim, name)(linear().parameters(), lr=0.1)
    assert Options(optimizer=optimizer).own_metric is auto
    assert Options(optimizer=optimizer, metric="optimizer").own_metric
    assert not Options(optimizer=optimizer, metric="euclidean").own_metric


def test_without_an_optimizer_auto_is_euclidean() -> None:
    assert not Options().own_metric


def test_a_subclass_is_treated_as_what_it_is_derived_from() -> None:
    own = type("Mine", (torch.optim.RMSprop,), {})
    assert Options(optimizer=own(linear().parameters())).own_metric
