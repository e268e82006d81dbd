"""What follows from a profile, in its file."""

from __future__ import annotations

from dataclasses import replace

import pytest

import gradnoise as gn
from gradnoise.learning_rate.advice import Recommendation
from gradnoise.problem.optimizer_settings import OptimizerSettings
from gradnoise.profiles.verdict import limits_refused, verdict_of


def at_8(profile: gn.Profile) -> gn.Profile:
    return replace(profile, batch_size=8, optimizer=OptimizerSettings("SGD", 0.1, 0.5))


def test_it_is_the_advice_and_the_limits_at_the_batch_size_in_use(resolved: gn.Profile) -> None:
    p = at_8(resolved)
    advice, found = p.recommend(), verdict_of(p)
    assert (found["batch_size"], found["lr"]) == (advice.batch_size, advice.lr)
    assert (found["confidence"], tuple(found["reasons"])) == (advice.confidence, advice.reasons)
    assert tuple(found["critical_batch_size"].values()) == advice.critical
    own = found["in_use"]
    assert (own["batch_size"], own["regime"], own["lr"]) == (8, p.regime(8), 0.1)
    assert repr(own["max_lr"]) == repr(p.max_lr(8, 0.5).to_dict())
    assert repr(own["mean_square_lr"]) == repr(p.mean_square_lr(8, 0.5).to_dict())
    assert repr(own["stable_lr"]) == repr(p.stable_lr(0.5).to_dict())
    assert repr(own["greedy_lr"]) == repr(p.greedy_lr(8).to_dict())
    assert repr(own["steps"]) == repr(p.landscape().steps(8).to_dict())
    assert found["in_use_reason"] == ""


def test_without_a_batch_size_it_says_so(resolved: gn.Profile) -> None:
    found = verdict_of(replace(resolved, batch_size=None))
    assert found["in_use"] is None
    assert found["in_use_reason"].startswith("No batch size is known")


@pytest.mark.parametrize("name", ["bounds_only", "negative"])
def test_where_nothing_follows_the_reason_is_there(
    name: str, request: pytest.FixtureRequest
) -> None:
    found = verdict_of(at_8(request.getfixturevalue(name)))
    assert (found["batch_size"], found["lr"], found["confidence"]) == (None, None, "none")
    assert found["reasons"][0]
    assert found["critical_batch_size"] is None


def test_without_curvature_there_is_a_batch_size_and_the_reason_for_no_rate(
    flat: gn.Profile,
) -> None:
    found = verdict_of(at_8(flat))
    assert (found["batch_size"], found["lr"]) == (flat.recommend().batch_size, None)
    assert found["in_use"] is None
    assert "no second derivatives (of this kernel)" in found["in_use_reason"]


def test_it_says_whether_training_has_tried_it(resolved: gn.Profile) -> None:
    advice = Recommendation(16, 0.25, ("Tried.",), "good")
    assert not verdict_of(resolved)["tried"]
    found = verdict_of(resolved.with_advice(advice))
    assert (found["tried"], found["batch_size"], found["lr"]) == (True, 16, 0.25)


def test_limits_of_another_optimizer_are_refused(resolved: gn.Profile) -> None:
    adam = replace(resolved, batch_size=8, optimizer=OptimizerSettings("Adam", 0.1, kind="adam"))
    assert "not for Adam" in limits_refused(adam)
    early = OptimizerSettings("Adam", 0.1, kind="adam", steps=2, settled_after=1000)
    unsettled = replace(adam, optimizer=early, metric="optimizer")
    assert limits_refused(unsettled).startswith("Adam has taken 2 steps")
    assert limits_refused(at_8(resolved)) == ""
