"""What became of one rule."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

from ..profiles.results import Results
from ..statistics.estimate import Estimate, Status, percent, short
from ..statistics.transform import scaled
from .quantities import NotThereError, quantity, usable
from .rule import Ready, Rule, Side
from .vocabulary import RESOLVED, SECONDS, TIME

PASSED, FAILED, CANNOT_TELL = "passed", "failed", "cannot tell"
NOT_THERE = "not there"
ALL = ("simple_noise_scale", "noise_scale", "sharpness")  # what "resolved" is about
COMPARED = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
AGES = ("days", "hours", "minutes")


@dataclass(frozen=True)
class Outcome:
    """What became of one rule.

    Args:
        rule: as it was given.
        verdict: "passed", "failed", "cannot tell" (the intervals overlap) or "not there" (the
            profile does not have the number).
        left, right: the sides, times their factors; None where there is none.
        unit: of the sides.
        reason: why it did not pass; or empty.
    """

    rule: str
    verdict: str
    left: Estimate | None = None
    right: Estimate | None = None
    unit: str = ""
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Built-in values except infinities and nan."""
        sides = {
            name: None if side is None else side.to_dict()
            for name, side in (("left", self.left), ("right", self.right))
        }
        own = {"rule": self.rule, "verdict": self.verdict, "unit": self.unit}
        return {**own, "reason": self.reason, **sides}

    def told(self, side: Estimate | None) -> str:
        """A side in words: "0.495 (0.480 to 0.510)"."""
        if side is None:
            return ""
        if self.unit == TIME:
            return _age(float(side))
        if math.isnan(float(side)):
            return side.bounds_in_words("≥ ", "≤ ")
        if side.is_exact:
            return short(float(side))
        return f"{short(float(side))} ({short(side.low)} to {short(side.high)})"


def judge(profile: Results, rule: Rule | Ready) -> Outcome:
    """Hold a profile to one rule."""
    try:
        return _ready(profile, rule) if isinstance(rule, Ready) else _compared(profile, rule)
    except NotThereError as error:
        return Outcome(rule.text, NOT_THERE, reason=str(error))


def _compared(profile: Results, rule: Rule) -> Outcome:
    left, right = _of(profile, rule.left), _of(profile, rule.right)
    unit = rule.left.unit or rule.right.unit
    for side in (left, right):
        if not usable(side):
            why = f"{side.status.value}: {side.status.remedy}"
            return Outcome(rule.text, CANNOT_TELL, left, right, unit, why)
    holds = COMPARED[rule.sign]
    below = rule.sign in ("<", "<=")
    worst = (left.high, right.low) if below else (left.low, right.high)
    best = (left.low, right.high) if below else (left.high, right.low)
    if holds(*worst):
        return Outcome(rule.text, PASSED, left, right, unit)
    if not holds(*best):
        return Outcome(rule.text, FAILED, left, right, unit)
    return Outcome(rule.text, CANNOT_TELL, left, right, unit, _overlap(left, right))


def _of(profile: Results, side: Side) -> Estimate:
    if side.name:
        return scaled(quantity(profile, side.name), side.factor)
    number = side.factor
    return Estimate(number, number, number, profile.level, 0.0, profile.samples)


def _overlap(left: Estimate, right: Estimate) -> str:
    """Why the intervals do not tell."""
    bad = next((side for side in (left, right) if not side.is_resolved), None)
    if bad is not None:
        return f"{bad.status.value}: {bad.status.remedy}"
    return f"it lies within the {percent(left.level)} interval: measure more samples"


def _ready(profile: Results, rule: Ready) -> Outcome:
    if rule.kind == RESOLVED:
        return _resolved(profile, rule)
    own = profile.optimizer
    if own is None:
        raise NotThereError("the profile has no optimizer: measure with `optimizer`")
    taken = own.steps or 0
    if own.settled_after is None or taken >= own.settled_after:
        return Outcome(rule.text, PASSED)
    why = f"{own.name} has taken {taken} of about {own.settled_after} steps"
    return Outcome(rule.text, FAILED, reason=why)


def _resolved(profile: Results, rule: Ready) -> Outcome:
    """Failed where a quantity has no value; its status says what to do."""
    faults = []
    for name in rule.names or ALL:
        found = quantity(profile, name)
        known = found.is_resolved or found.status is Status.NO_INTERVAL
        if not known or math.isnan(float(found)):
            faults.append(f"{name} is {found.bounds_in_words()} ({found.status.value})")
    return Outcome(rule.text, FAILED if faults else PASSED, reason="; ".join(faults))


def _age(seconds: float) -> str:
    """2.5 days, 3 hours, 40 s."""
    for name in AGES:
        if abs(seconds) >= SECONDS[name]:
            count = f"{seconds / SECONDS[name]:.3g}"
            return f"{count} {name.removesuffix('s') if count == '1' else name}"
    return f"{seconds:.0f} s"
