"""`gn.check`: a profile held to rules, for a person or for continuous integration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from ..errors import ArgumentError
from ..files.json import encode
from ..profiles.results import Results
from ..show.table import listed, or_listed, plain_table, render
from .outcome import CANNOT_TELL, FAILED, NOT_THERE, PASSED, Outcome, judge
from .rule import parse

DEFAULT = ("resolved", "lr-below-limit", "batch-near-critical")


@dataclass(frozen=True)
class Checked:
    """A profile held to rules; `print` it for one line per rule.

    Args:
        outcomes: one for each rule, with `.rule`, `.left` and `.right` (Estimates or None),
            `.verdict` ("passed", "failed", "cannot tell" or "not there") and `.reason`.
        allow_unresolved: whether "cannot tell" passes.
        notes: what was left out.

    Example:
        >>> Checked(()).passed
        True
    """

    outcomes: tuple[Outcome, ...]
    allow_unresolved: bool = False
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every rule has passed."""
        return not self.unmet

    @property
    def unmet(self) -> tuple[Outcome, ...]:
        """The outcomes that keep the check from passing."""
        allowed = (PASSED, CANNOT_TELL) if self.allow_unresolved else (PASSED,)
        return tuple(one for one in self.outcomes if one.verdict not in allowed)

    def to_dict(self) -> dict[str, Any]:
        """Built-in values; infinities and nan as strings."""
        found: dict[str, Any] = encode(
            {
                "format": "gradnoise-check",
                "passed": self.passed,
                "allow_unresolved": self.allow_unresolved,
                "rules": [one.to_dict() for one in self.outcomes],
                "notes": list(self.notes),
            }
        )
        return found

    def __str__(self) -> str:
        table = plain_table("rule", "left", "right", "verdict")
        for one in self.outcomes:
            table.add_row(one.rule, one.told(one.left), one.told(one.right), one.verdict)
        reasons = tuple(f"{one.rule}: {one.reason}" for one in self.outcomes if one.reason)
        parts: list[Text | Table] = [Text(self._heading()), Text(), or_listed(table)]
        if reasons or self.notes:
            parts += [Text(), *listed("Why", (*reasons, *self.notes))]
        return render(parts)

    def _heading(self) -> str:
        counts = {
            verdict: sum(one.verdict == verdict for one in self.outcomes)
            for verdict in (FAILED, CANNOT_TELL, NOT_THERE)
        }
        words = [f"{count} {verdict}" for verdict, count in counts.items() if count]
        rules = f"{len(self.outcomes)} rule{'s' if len(self.outcomes) != 1 else ''}"
        if self.passed:
            allowed = f"; {words[0]}, which is allowed" if words else ""
            return f"PASSED: {rules}{allowed}"
        return f"FAILED: of {rules}, {', '.join(words)}"


def check(
    profile: Results, rules: str | Iterable[str] | None = None, *, allow_unresolved: bool = False
) -> Checked:
    """Hold a profile to rules, by its intervals.

    "lr < mean_square_lr" passes where the learning rate is below the low end of the limit's
    interval, fails where it is not below the high end, and cannot be told between them. In general
    a < b passes where high(a) < low(b) and fails where low(a) >= high(b).

    A rule is a comparison (<, <=, >, >=) of two sides: NAME, NUMBER * NAME, NAME / NUMBER, a number
    in the unit of the other side, or a time ("7 days", "12 h"). Names are the quantities of
    `Profile` and `stable_lr`, `max_lr`, `greedy_lr`, `mean_square_lr`, `doubling_lr`,
    `relative_steps`, `relative_samples` at the batch size and with the momentum in use,
    `critical_batch_size`, `lr`, `momentum`, `batch_size`, `group_size`, `samples`, `population`,
    `parameters`, `passes` and `age`. Ready-made rules:

    - "resolved": B_simple, B_noise and λ have values; "resolved=sharpness" for one of them
    - "settled": the second moments of the optimizer have settled
    - "lr-below-limit": lr < mean_square_lr
    - "batch-below-noise-scale": batch_size <= noise_scale
    - "batch-near-critical": batch_size <= 2 * critical_batch_size
    - "not-older-than=7d": age <= 7 days

    Args:
        profile: what `gn.profile` returned or `Profile.load` read.
        rules: one or several; None for "resolved", and "lr-below-limit" and "batch-near-critical"
            where learning rate and batch size are known.
        allow_unresolved: whether a rule that the intervals cannot tell passes. A number that the
            profile does not have never passes.

    Returns:
        Checked.

    Raises:
        ArgumentError: a rule of another form, a name that is not known, units that do not fit.

    Example:
        >>> import torch, gradnoise as gn
        >>> toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
        >>> p = gn.profile(toy.model(), toy.loss_fn, toy.sample(256, seed=0))
        >>> check(p, ["sharpness < 5", "sharpness > 3.9"]).passed  # λ = 4
        True
    """
    if not isinstance(profile, Results):
        raise ArgumentError(f"`profile` must be a Profile; got {type(profile).__name__}")
    given, notes = _given(profile, rules)
    parsed = [parse(text) for text in given]  # all of them before the first is judged
    outcomes = tuple(judge(profile, rule) for rule in parsed)
    return Checked(outcomes, allow_unresolved, notes)


def _given(
    profile: Results, rules: str | Iterable[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The rules, and what was left out of the default."""
    if rules is not None:
        if not isinstance(rules, Iterable):
            raise ArgumentError(f"`rules` must be texts; got {type(rules).__name__}")
        given = (rules,) if isinstance(rules, str) else tuple(rules)
        if not given:
            raise ArgumentError("`rules` is empty: give one, or None for the default")
        return given, ()
    setting = profile.setting
    known = {
        "lr-below-limit": setting.batch_size is not None
        and (setting.lr is not None or bool(setting.no_rate)),
        "batch-near-critical": setting.batch_size is not None,
    }
    missing = tuple(
        f"{rule} was left out: the profile has no {what}"
        for rule, what in (
            ("lr-below-limit", "learning rate with a batch size"),
            ("batch-near-critical", "batch size"),
        )
        if not known[rule]
    )
    return tuple(rule for rule in DEFAULT if known.get(rule, True)), missing
