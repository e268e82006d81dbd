"""What differs in how two profiles were measured, and what can then be compared."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

import gradnoise as gn
from gradnoise.problem.optimizer_settings import OptimizerSettings
from gradnoise.profiles.alike import (
    QUANTITIES,
    Difference,
    assumption,
    comparable,
    differences,
    rounding,
    same_layers,
)

ADAM = OptimizerSettings("AdamW", 0.001, 0.9, kind="adam")


def test_profiles_that_were_measured_alike_do_not_differ(resolved: gn.Profile) -> None:
    assert differences(resolved, resolved) == ()
    assert comparable(resolved, resolved) == QUANTITIES
    assert same_layers(resolved, resolved)


def test_groups_of_another_size_are_told_once(resolved: gn.Profile) -> None:
    one, two = (replace(resolved, unit="group", group_size=b, objective=f"of {b}") for b in (4, 8))
    assert [one.name for one in differences(one, two)] == ["objective"]


CHANGES: dict[str, tuple[dict[str, Any], str, tuple[str, ...], bool]] = {
    "objective": ({"objective": "weighted"}, "of another objective", (), False),
    "unit": ({"unit": "group", "group_size": 8}, "of another objective", (), False),
    "metric": (
        {"metric": "optimizer", "optimizer": ADAM},
        "only the loss and learning rates",
        ("loss",),
        False,
    ),
    "model": ({"model": "Other"}, "Nothing is said about layers.", QUANTITIES, False),
    "parameters": ({"parameters": 7}, "Nothing is said about layers.", QUANTITIES, False),
    "mode": ({"mode": "eval"}, "A change may come from that (dropout", QUANTITIES, True),
    "random numbers": ({"randomness": "draws"}, "A change may come from that", QUANTITIES, True),
    "population": ({"population": 10**6}, "intervals are about different data", QUANTITIES, True),
    "samples": ({"samples": 32}, "", QUANTITIES, True),
    "seed": ({"seed": 7}, "", QUANTITIES, True),
    "dtype": ({"dtype": "float16"}, "may be one of rounding", QUANTITIES, True),
    "level": ({"level": 0.9}, "brought to one level", QUANTITIES, True),
    "optimizer": ({"optimizer": OptimizerSettings("SGD", 0.1, 0.9)}, "", QUANTITIES, True),
    "batch size": ({"batch_size": 8}, "", QUANTITIES, True),
    "gradnoise": ({"versions": {"gradnoise": "0.0.1"}}, "another way of measur", QUANTITIES, True),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_difference_is_named_with_what_follows(resolved: gn.Profile, name: str) -> None:
    change, said, quantities, layers = CHANGES[name]
    other = replace(resolved, **change)
    found = {one.name: one for one in differences(resolved, other)}
    assert said in found[name].sentence
    assert comparable(resolved, other) == comparable(other, resolved) == quantities
    assert same_layers(resolved, other) is layers


def test_settings_are_told_in_words(resolved: gn.Profile) -> None:
    other = replace(resolved, optimizer=OptimizerSettings("SGD", 0.1, 0.9), population=math.inf)
    told = {one.name: str(one) for one in differences(resolved, other)}
    assert told["optimizer"] == "optimizer: none, then SGD, learning rate 0.1, momentum 0.9."
    assert told["population"].startswith("population: 64, then a distribution. The intervals")


def test_two_optimizers_have_two_metrics(resolved: gn.Profile) -> None:
    adam = replace(resolved, metric="optimizer", optimizer=ADAM)
    prop = replace(resolved, metric="optimizer", optimizer=OptimizerSettings("RMSprop", 0.1))
    assert comparable(adam, prop) == ("loss",)
    assert comparable(adam, adam) == QUANTITIES


def test_what_is_assumed_is_said(resolved: gn.Profile) -> None:
    part = replace(resolved, population=1000)
    other = replace(part, seed=1)  # perhaps all of the same data, whatever the seed
    assert assumption(part, other, False).startswith("Both profiles may be of the same samples")
    assert "as was said" in assumption(part, other, True)
    whole = assumption(resolved, resolved, False)
    assert whole.startswith("Both are of their whole populations")
    assert whole.endswith("the margins of both are added.")
    assert assumption(resolved, resolved, True).endswith("as was said.")


def test_rounding_is_that_of_the_coarser_type(resolved: gn.Profile) -> None:
    single, half = replace(resolved, dtype="float32"), replace(resolved, dtype="bfloat16/float32")
    double = replace(resolved, dtype="float64")
    assert rounding(double, double) < rounding(double, single) < rounding(single, half)


def test_a_difference_without_a_sentence_ends_after_its_values() -> None:
    assert str(Difference("seed", "0", "1")) == "seed: 0, then 1."
