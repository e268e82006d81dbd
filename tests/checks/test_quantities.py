"""Numbers of rules are those of the profile, or it is said why there is none."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

import gradnoise as gn
from gradnoise.checks.quantities import NotThereError, quantity, usable
from gradnoise.problem.optimizer_settings import OptimizerSettings
from tests.checks.profiles import estimate, measured, with_scale

SGD = OptimizerSettings("SGD", 0.1, 0.9)


def test_limits_are_those_at_the_setting_in_use() -> None:
    p = replace(measured(), optimizer=SGD)
    assert repr(quantity(p, "max_lr")) == repr(p.max_lr(8, 0.9))
    assert repr(quantity(p, "mean_square_lr")) == repr(p.mean_square_lr(8, 0.9))
    assert repr(quantity(p, "stable_lr")) == repr(p.stable_lr(0.9))
    assert repr(quantity(p, "relative_steps")) == repr(p.landscape().steps(8))
    assert repr(quantity(p, "relative_samples")) == repr(p.landscape().samples(8))


def test_settings_are_exact() -> None:
    p = replace(measured(), optimizer=SGD)
    found = {name: quantity(p, name) for name in ("lr", "momentum", "batch_size", "samples")}
    assert {name: float(e) for name, e in found.items()} == {
        "lr": 0.1, "momentum": 0.9, "batch_size": 8.0, "samples": 200.0,
    }  # fmt: skip
    assert all(e.is_exact for e in found.values())


def test_the_age_is_the_time_since_the_measurement() -> None:
    since = (datetime.now(timezone.utc) - timedelta(days=2)).isoformat(timespec="seconds")
    age = float(quantity(replace(measured(), date=since), "age"))
    assert age == pytest.approx(2 * 86400, abs=60)


def test_the_critical_batch_size_is_the_range_of_the_report() -> None:
    found = quantity(measured(), "critical_batch_size")
    assert (found.low, found.high) == measured().recommend().critical


def test_where_nothing_is_resolved_it_is_the_bounds_of_both() -> None:
    p = with_scale(11.0, math.nan, math.inf)
    below = estimate(15.0, math.nan, 90.0, "signal below noise")
    p = replace(p, estimates={**p.estimates, "simple_noise_scale": below})
    found = quantity(p, "critical_batch_size")
    assert (found.low, found.high) == (11.0, math.inf)
    assert found.status is gn.Status.SIGNAL_BELOW_NOISE


def flat() -> gn.Profile:
    left = {"loss": measured().loss, "grad_sq_norm": measured().grad_sq_norm}
    note = "curvature was not measured: no second derivatives"
    more = {"trace_cov": measured().trace_cov, "simple_noise_scale": measured().simple_noise_scale}
    return replace(measured(), estimates={**left, **more}, warnings=(note,))


def test_what_is_not_there_says_why() -> None:
    p = measured()
    zero = {n: replace(e, value=0.0, low=0.0, high=0.0) for n, e in p.estimates.items()}
    flat_curve = {**p.estimates, "sharpness": estimate(-2.0, -1.0, -0.5)}
    cases = {
        "lr": (replace(p, optimizer=None), "no learning rate: measure with `optimizer`"),
        "momentum": (replace(p, optimizer=None), "no optimizer"),
        "batch_size": (replace(p, batch_size=None), "no batch size: measure with `batch_size`"),
        "max_lr": (replace(p, batch_size=None), "no batch size"),
        "relative_steps": (flat(), "no second derivatives"),
        "sharpness": (flat(), "`sharpness` was not measured. curvature was not measured"),
        "stable_lr": (flat(), "no second derivatives"),
        "mean_square_lr": (replace(p, optimizer=OptimizerSettings("Adam", 0.1)), "not for Adam"),
        "doubling_lr": (replace(p, estimates=zero), "Every gradient is zero"),
        "greedy_lr": (replace(p, estimates=flat_curve), "λ is not positive, so it sets no limit"),
        "passes": (replace(p, cost=None), "does not say what it cost"),
        "age": (replace(p, date=""), "has no date: an older version wrote it"),
    }
    for name, (profile, said) in cases.items():
        with pytest.raises(NotThereError, match=said):
            quantity(profile, name)


def test_intervals_that_did_not_converge_are_not_relied_on() -> None:
    assert usable(estimate(1.0, 2.0, 3.0))
    assert usable(estimate(1.0, math.nan, math.inf, "signal below noise"))
    assert not usable(estimate(1.0, 2.0, 3.0, "not converged"))
    assert not usable(estimate(-math.inf, math.nan, math.inf, "negative curvature"))


def test_of_an_optimizer_in_its_first_steps_no_noise_scale_is_judged() -> None:
    settings = OptimizerSettings("AdamW", 0.01, kind="adam", steps=5, settled_after=1000)
    early = replace(measured(), optimizer=settings, metric="optimizer")
    for name in ("noise_scale", "simple_noise_scale", "critical_batch_size", "relative_steps"):
        with pytest.raises(NotThereError, match="second moments have not settled"):
            quantity(early, name)
        quantity(replace(early, optimizer=replace(settings, steps=1000)), name)
    quantity(early, "sharpness")


def test_of_several_learning_rates_none_is_judged() -> None:
    note = "the optimizer has several learning rates; those of the first group are used"
    several = replace(measured(), optimizer=OptimizerSettings("SGD", 0.1, notes=(note,)))
    with pytest.raises(NotThereError, match="several learning rates"):
        quantity(several, "lr")
