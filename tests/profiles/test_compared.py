"""Two profiles side by side: which quantities, at which batch sizes, which layers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

import gradnoise as gn
from gradnoise.learning_rate.units import OF_LIMITS
from gradnoise.problem.optimizer_settings import OptimizerSettings
from gradnoise.profiles.compared import OF_LAYERS, Compared, find_compared
from gradnoise.statistics.change import find_change
from gradnoise.statistics.transform import scaled


def compared(first: gn.Profile, second: gn.Profile) -> Compared:
    return find_compared(first, second, level=0.95, independent=False)


def used(profile: gn.Profile, batch_size: int, lr: float = 0.1) -> gn.Profile:
    return replace(profile, batch_size=batch_size, optimizer=OptimizerSettings("SGD", lr, 0.5))


def times(profile: gn.Profile, name: str, factor: float) -> gn.Profile:
    """The same with one quantity so many times as large."""
    found = scaled(profile.estimates[name], factor)
    return replace(profile, estimates={**profile.estimates, name: found})


def test_quantities_are_sorted_by_whether_they_changed(resolved: gn.Profile) -> None:
    other = times(times(resolved, "sharpness", 3.0), "trace_cov", 0.1)
    found = compared(resolved, other)
    assert found.changed == ("trace_cov", "sharpness")
    assert set(found.unchanged) == set(resolved.estimates) - {"trace_cov", "sharpness"}
    assert found.untold == ()
    assert found.changes["sharpness"].verdict == "rose"


def test_limits_are_compared_at_the_batch_sizes_in_use(resolved: gn.Profile) -> None:
    first, second = used(resolved, 8), used(times(resolved, "sharpness", 2.0), 32)
    small, large = compared(first, second).at_batch
    assert (small.batch_size, large.batch_size) == (8, 32)
    assert set(small.limits) == set(OF_LIMITS)
    assert small.limits["stable_lr"].change.value == pytest.approx(0.5)
    assert repr(small.limits["max_lr"].first) == repr(first.max_lr(8, 0.5))
    assert repr(large.limits["mean_square_lr"].second) == repr(second.mean_square_lr(32, 0.5))
    assert small.regimes == (first.regime(8), second.regime(8))


def test_one_batch_size_is_compared_once(resolved: gn.Profile) -> None:
    assert len(compared(used(resolved, 8), used(resolved, 8)).at_batch) == 1
    assert compared(resolved, resolved).at_batch == ()


def test_limits_that_are_not_of_the_optimizer_are_left_out(resolved: gn.Profile) -> None:
    adam = replace(resolved, batch_size=8, optimizer=OptimizerSettings("Adam", 0.1, kind="adam"))
    found = compared(used(resolved, 8), adam)
    assert found.at_batch[0].limits == {}
    assert found.refused[0] == ""
    assert "not for Adam" in found.refused[1]


def test_quantities_that_one_of_them_lacks_are_named(
    resolved: gn.Profile, flat: gn.Profile
) -> None:
    found = compared(used(resolved, 8), used(flat, 8))
    assert "noise_scale" in found.missing
    assert "sharpness" not in found.changes
    assert "loss" in found.changes
    assert found.at_batch == ()


def test_layers_that_changed_are_found_the_most_first(deep: gn.Profile) -> None:
    names = list(deep.layers)
    grown = {}
    for index, factor in ((5, 3.0), (2, 9.0)):
        layer = deep.layers[names[index]]
        grown[layer.name] = replace(layer, trace_cov=scaled(layer.trace_cov, factor))
    found = compared(deep, replace(deep, layers={**deep.layers, **grown}))
    assert [layer.name for layer in found.layers] == [names[2], names[5]]
    assert list(found.layers[0].changes) == ["trace_cov"]
    assert found.layers_compared == len(names)


def test_layers_are_held_to_the_level_of_all_together(deep: gn.Profile) -> None:
    """A ratio of exp(2.4 standard errors) is a change of one quantity, and not of one of eight."""

    def layer(value: float) -> gn.Layer:
        own, error = next(iter(deep.layers.values())), 0.1
        ends = (value * math.exp(-1.96 * error), value * math.exp(1.96 * error))
        found = gn.Estimate(value, *ends, 0.95, math.nan, 10**6)
        return replace(own, **dict.fromkeys(OF_LAYERS[:3], found), sharpness_share=None)

    names = list(deep.layers)
    value = math.exp(0.1 * 2.4)
    first = replace(deep, layers={name: layer(1.0) for name in names}, population=1000)
    second = replace(first, layers={**first.layers, names[0]: layer(value)}, seed=7)
    pair = (first.layers[names[0]].trace_cov, second.layers[names[0]].trace_cov)
    assert find_change(*pair, independent=False).verdict == "within error"
    far = replace(second, layers={**first.layers, names[0]: layer(math.exp(0.1 * 3.2))})
    alone = find_change(pair[0], far.layers[names[0]].trace_cov, independent=True)
    assert alone.verdict == "rose"
    assert compared(first, far).layers == ()


def test_nothing_is_said_about_layers_of_another_model(deep: gn.Profile) -> None:
    found = compared(deep, replace(deep, model="Other"))
    assert (found.layers, found.layers_compared) == ((), 0)
