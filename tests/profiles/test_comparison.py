"""`Profile.compare`: false alarms, power, odd profiles, values."""

from __future__ import annotations

import functools
import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
import torch

import gradnoise as gn
from gradnoise.profiles.alike import QUANTITIES, SIGNED
from gradnoise.statistics.change import find_change

REGRESSION = gn.toy.LinearRegression(torch.tensor([3.0, 1.0]), torch.ones(2), noise=0.5)


@functools.cache
def measured(seed: int, samples: int = 200, offset: float = 1.0) -> gn.Profile:
    """Fresh samples of a distribution."""
    toy = gn.toy.LinearRegression(torch.tensor([3.0, 1.0]), torch.full((2,), offset), noise=0.5)
    data = toy.sample(samples, seed=seed)
    return gn.profile(toy.model(), toy.loss_fn, data, population="distribution", seed=seed)


@functools.cache
def parts() -> list[gn.Profile]:
    """All 56 choices of five of eight samples."""
    inputs, targets = REGRESSION.sample(8, seed=3)
    return [
        gn.profile(
            REGRESSION.model(), REGRESSION.loss_fn, (inputs[list(pick)], targets[list(pick)]),
            population=8, seed=seed,
        )
        for seed, pick in enumerate(itertools.combinations(range(8), 5))
    ]  # fmt: skip


@functools.cache
def all_of_them() -> gn.Profile:
    return gn.profile(REGRESSION.model(), REGRESSION.loss_fn, REGRESSION.sample(8, seed=3))


@pytest.mark.parametrize("name", QUANTITIES)
def test_false_alarms_are_rare_over_all_pairs_of_samples(name: str) -> None:
    """Enumerated: every two of all samples of five out of eight.

    An alarm by margins that are added up needs an interval that misses the truth. In squares alarms
    are no more frequent than 5 %, or than a single interval misses it (trΣ of five samples: 11 %).
    """
    truth, estimates = float(all_of_them().estimates[name]), [p.estimates[name] for p in parts()]
    misses = [not e.low * (1 - 1e-9) <= truth <= e.high * (1 + 1e-9) for e in estimates]
    signed, alarms = name in SIGNED, 0
    for i, j in itertools.product(range(len(estimates)), repeat=2):
        pair = estimates[i], estimates[j]
        assert not find_change(*pair, signed=signed).changed or misses[i] or misses[j]
        alarms += bool(find_change(*pair, signed=signed, independent=True).changed)
    allowed = max(0.05, sum(misses) / len(misses))
    assert alarms / len(estimates) ** 2 <= allowed


def test_a_true_change_is_found() -> None:
    """Twice as far from the minimum |G|² is 4 times as large, and λ is the same."""
    found = measured(0).compare(measured(1, offset=2.0))
    assert {"loss", "grad_sq_norm", "trace_cov"} <= set(found.changed)
    assert "sharpness" not in found.changed
    assert found.changes["grad_sq_norm"].change.low < 4 < found.changes["grad_sq_norm"].change.high


def test_the_same_model_on_other_samples_has_not_changed() -> None:
    for seed in range(2, 12, 2):
        assert measured(seed).compare(measured(seed + 1)).changed == ()


def test_independence_that_is_said_makes_intervals_shorter() -> None:
    pair = measured(2), measured(3)
    related, apart = (pair[0].compare(pair[1], independent=word) for word in (False, True))
    for name in QUANTITIES:
        wide, narrow = related.changes[name].change, apart.changes[name].change
        assert wide.low <= narrow.low <= narrow.high <= wide.high
    assert "as was said" in apart.assumption


def test_exact_numbers_of_two_checkpoints_differ_where_they_do(resolved: gn.Profile) -> None:
    assert resolved.loss.is_exact
    nearly = replace(resolved.loss, value=1.01 * resolved.loss.value)
    nearly = replace(nearly, low=nearly.value, high=nearly.value)
    other = replace(resolved, estimates={**resolved.estimates, "loss": nearly})
    assert resolved.compare(other).changed == ("loss",)
    assert resolved.compare(resolved).changed == ()


def test_the_level_is_the_higher_one_or_as_asked_for() -> None:
    low = replace(measured(2), level=0.9)
    assert low.compare(measured(3)).level == 0.95
    wide = measured(2).compare(measured(3), level=0.999)
    assert wide.level == 0.999
    plain = measured(2).compare(measured(3))
    assert wide.changes["loss"].change.low < plain.changes["loss"].change.low


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_that_is_none_is_refused(level: float) -> None:
    with pytest.raises(gn.ArgumentError, match="`level` is a coverage between 0 and 1"):
        measured(2).compare(measured(3), level=level)


def test_something_else_is_refused() -> None:
    other: Any = "p.json"
    with pytest.raises(gn.ArgumentError, match="`other` must be a Profile; got str"):
        measured(2).compare(other)


KINDS = ("resolved", "bounds_only", "negative", "flat", "deep")


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_any_two_profiles_can_be_compared(
    first: str, second: str, request: pytest.FixtureRequest
) -> None:
    pair = request.getfixturevalue(first), request.getfixturevalue(second)
    found = pair[0].compare(pair[1])
    assert str(found).startswith("first, then second")
    assert found.changed == () or first != second
    values = found.to_dict()
    assert (values["first"], values["second"]) == ("first", "second")
    assert json.loads(json.dumps(values, allow_nan=False))["verdict"] == list(found.verdict)


def test_unresolved_profiles_never_seem_to_have_changed(bounds_only: gn.Profile) -> None:
    for name in ("simple_noise_scale", "noise_scale"):
        found = bounds_only.compare(bounds_only).changes[name]
        assert found.verdict == "cannot tell"
