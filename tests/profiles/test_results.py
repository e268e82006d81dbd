"""What follows from the measured numbers: learning rates, regime, advice."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.problem.optimizer_settings import OptimizerSettings
from tests.reports import toy_profile


def test_learning_rates_are_the_formulas_at_the_measured_values() -> None:
    p = toy_profile(probes=64)
    lam, scale = float(p.sharpness), float(p.noise_scale)
    assert float(p.stable_lr()) == pytest.approx(2 / lam)
    assert float(p.stable_lr(momentum=0.9)) == pytest.approx(3.8 / lam)
    assert float(p.max_lr(16)) == pytest.approx(2 / lam / (1 + scale / 16))
    step = float(p.grad_sq_norm) / float(p.grad_curvature)
    assert float(p.greedy_lr(16)) == pytest.approx(step / (1 + scale / 16))
    share = 1 / 16 - 1 / 200
    limit = 2 / lam / (1 + share * float(p.curvature_noise_scale))
    others = p.curvature_spread.reduction(share)
    with pytest.raises(gn.ArgumentError, match="`batch_size` must be a positive number; got 0"):
        p.greedy_lr(0)
    assert 0.5 < others < 1
    assert float(p.mean_square_lr(16)) == pytest.approx(limit * others)
    damped = 3.8 / lam / (1 + 19 * share * float(p.curvature_noise_scale))
    others = p.curvature_spread.reduction(share, "sgd", 0.9)
    assert float(p.mean_square_lr(16, momentum=0.9)) == pytest.approx(damped * others)
    assert float(p.max_lr(16, momentum=0.9)) == pytest.approx(3.8 / lam / (1 + 19 * scale / 16))
    both = p.limits(16)
    assert float(both.noise_scale_rule) == float(p.max_lr(16))
    assert float(both.mean_square) == float(p.mean_square_lr(16))
    assert float(both.one_step) == pytest.approx(2 * float(p.greedy_lr(16)))
    assert p.temperature(0.1, 16) == pytest.approx(0.1 * share)
    assert p.temperature(0.1, 16, momentum=0.5) == pytest.approx(0.2 * share)


@pytest.mark.parametrize("method", ["max_lr", "greedy_lr", "mean_square_lr"])
@pytest.mark.parametrize("population", ["dataset", "distribution"])
def test_every_learning_rate_lies_in_its_interval(method: str, population: str) -> None:
    p = toy_profile(population=population, probes=64)
    for batch in (1, 8, 64, 200):
        limit = getattr(p, method)(batch)
        assert 0 < limit.low <= float(limit) <= limit.high < math.inf


def test_the_regime_changes_at_the_noise_scale() -> None:
    p = toy_profile(probes=64)
    assert p.noise_scale.is_resolved
    assert p.regime(p.noise_scale.low * 0.9) == "noise-dominated"
    assert p.regime(float(p.noise_scale)) == "unresolved"
    assert p.regime(p.noise_scale.high * 1.1) == "curvature-dominated"


NAMES = ("Adam", "AdamW", "NAdam", "RMSprop")


def trained_with(name: str, kind: str = "sgd", **changes: Any) -> gn.Profile:
    settings = OptimizerSettings(name, 0.1, kind=kind)
    return replace(toy_profile(probes=4), optimizer=settings, batch_size=16, **changes)


@pytest.mark.parametrize("name", NAMES)
def test_the_advice_for_another_optimizer_begins_with_whose_numbers_these_are(name: str) -> None:
    advice = trained_with(name).recommend()
    first = advice.reasons[0]
    assert advice.lr is None
    assert "learning rate 0" not in str(advice)
    assert first.startswith("No learning rate is given: these numbers are for plain SGD, not for ")
    assert f"not for {name}. " in first
    assert 'metric="optimizer" (command line: --metric optimizer)' in first


def test_a_subclass_of_adam_can_be_measured_in_its_metric_too() -> None:
    assert 'metric="optimizer"' in trained_with("MyAdam", "adam").recommend().reasons[0]


def test_an_optimizer_whose_metric_is_unknown_is_not_sent_there() -> None:
    first = trained_with("LBFGS").recommend().reasons[0]
    assert "these numbers are for plain SGD, not for LBFGS. Only SGD, Adam" in first
    assert "`gn.branch` and `gn.advise` find the rate of any optimizer by training" in first
    assert 'metric="optimizer"' not in first


def test_sgd_and_an_optimizer_in_its_own_metric_need_no_such_word() -> None:
    for profile in (trained_with("SGD"), trained_with("Adam", "adam", metric="optimizer")):
        assert "plain SGD" not in str(profile.recommend())


def test_a_subclass_of_sgd_is_plain() -> None:
    mine = replace(toy_profile(probes=4), optimizer=OptimizerSettings("Mine", 0.01, base="SGD"))
    assert (mine.setting.lr, mine.setting.no_rate) == (0.01, "")


def adam_after(steps: int | None) -> gn.Profile:
    settings = OptimizerSettings("AdamW", 0.008, 0.9, kind="adam", steps=steps, settled_after=1000)
    profile = replace(toy_profile(probes=64), optimizer=settings, metric="optimizer")
    return replace(profile, batch_size=16)


def test_an_adaptive_optimizer_gets_no_rate_in_its_first_steps() -> None:
    """At step 2 the best rate of the grid was said to be 40 times beyond the limit."""
    profile = adam_after(2)
    advice = profile.recommend()
    assert (advice.batch_size, advice.lr, advice.confidence) == (None, None, "none")
    (reason,) = advice.reasons
    assert reason.startswith("AdamW has taken 2 steps: its second moments have not settled")
    assert "Measure again after about 1000 steps." in reason


@pytest.mark.parametrize("steps", [1000, None])
def test_settled_second_moments_give_a_rate(steps: int | None) -> None:
    advice = adam_after(steps).recommend()
    assert advice.lr is not None
    assert advice.confidence == "snapshot: rough"
    assert "AdamW" in str(advice)


def test_the_simple_noise_scale_leads_the_advice() -> None:
    p = toy_profile(probes=64)
    scales = sorted([float(p.simple_noise_scale), float(p.noise_scale)])
    assert p.recommend().critical == tuple(scales)
    assert "(B_simple " in p.recommend().reasons[1]


def test_where_every_gradient_is_zero_the_advice_asks_why() -> None:
    model = nn.Linear(3, 2)
    loss = lambda m, batch: 0 * m(batch).square().sum(1)  # noqa: E731
    advice = gn.profile(model, loss, torch.randn(8, 3)).recommend()
    assert (advice.batch_size, advice.lr, advice.confidence) == (None, None, "none")
    assert str(advice).startswith("- Every gradient is zero")
    assert "Are all labels ignored (-100)?" in str(advice)
