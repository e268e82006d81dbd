"""`gn.check`: what passes, what is printed, what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

import gradnoise as gn
from tests.checks.profiles import measured, with_scale

CANNOT = "noise_scale < 15"
SCALE = with_scale(10.0, 15.0, 20.0)


def test_all_rules_have_to_pass() -> None:
    assert gn.check(SCALE, ["noise_scale < 21", "noise_scale > 9"]).passed
    assert not gn.check(SCALE, ["noise_scale < 21", "noise_scale < 9"]).passed


def test_one_rule_may_be_given_as_it_is() -> None:
    (one,) = gn.check(SCALE, "noise_scale < 21").outcomes
    assert one.rule == "noise_scale < 21"


def test_what_cannot_be_told_has_not_passed_unless_it_is_allowed() -> None:
    assert not gn.check(SCALE, CANNOT).passed
    assert gn.check(SCALE, CANNOT, allow_unresolved=True).passed


def test_what_is_not_there_is_never_allowed() -> None:
    p = replace(SCALE, optimizer=None)
    assert not gn.check(p, "lr-below-limit", allow_unresolved=True).passed
    assert not gn.check(SCALE, "noise_scale < 1", allow_unresolved=True).passed


def test_the_default_is_about_what_is_in_use() -> None:
    found = gn.check(measured())
    assert [one.rule for one in found.outcomes] == [
        *("resolved", "lr-below-limit", "batch-near-critical")
    ]
    assert found.notes == ()


def test_what_the_default_leaves_out_is_said() -> None:
    found = gn.check(replace(measured(), optimizer=None, batch_size=None))
    assert [one.rule for one in found.outcomes] == ["resolved"]
    assert found.notes == (
        "lr-below-limit was left out: the profile has no learning rate with a batch size",
        "batch-near-critical was left out: the profile has no batch size",
    )
    assert found.notes[0] in " ".join(str(found).split())


def test_it_is_printed_with_a_line_for_each_rule() -> None:
    old = replace(SCALE, date="2020-01-01T00:00:00+00:00")
    text = str(gn.check(old, ["noise_scale < 21", CANNOT, "noise_scale < 9", "age < 1 s"]))
    lines = [" ".join(line.split()) for line in text.split("\n")]
    assert lines[0] == "FAILED: of 4 rules, 2 failed, 1 cannot tell"
    assert "noise_scale < 21 15.0 (10.0 to 20.0) 21.0 passed" in lines
    assert f"{CANNOT} 15.0 (10.0 to 20.0) 15.0 cannot tell" in lines
    assert f"- {CANNOT}: it lies within the 95% interval: measure more samples" in lines


def test_the_first_line_says_whether_it_passed() -> None:
    assert str(gn.check(SCALE, "noise_scale < 21")).startswith("PASSED: 1 rule\n")
    allowed = str(gn.check(SCALE, CANNOT, allow_unresolved=True))
    assert allowed.startswith("PASSED: 1 rule; 1 cannot tell, which is allowed\n")
    missing = str(gn.check(replace(SCALE, date=""), "age < 1 s"))
    assert missing.startswith("FAILED: of 1 rule, 1 not there\n")


def test_it_can_be_written_as_json() -> None:
    below = with_scale(50.0, math.nan, math.inf)
    found = gn.check(below, ["noise_scale < 21", "resolved"]).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["passed"], found["rules"][0]["verdict"]) == (False, "failed")
    assert found["rules"][0]["left"]["value"] == "nan"


def test_every_rule_is_read_before_the_first_is_judged() -> None:
    with pytest.raises(gn.ArgumentError, match="'slr' is not known"):
        gn.check(SCALE, ["noise_scale < 21", "slr < 2"])


@pytest.mark.parametrize(
    ("profile", "rules", "said"),
    [("p.json", None, "must be a Profile; got str"), (SCALE, [], "`rules` is empty")],
)
def test_what_is_no_profile_or_no_rule_is_refused(
    profile: object, rules: object, said: str
) -> None:
    with pytest.raises(gn.ArgumentError, match=said):
        gn.check(profile, rules)  # type: ignore[arg-type]
