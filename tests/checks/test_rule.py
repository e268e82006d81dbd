"""Rules are read, or refused with what is expected."""

from __future__ import annotations

import pytest

import gradnoise as gn
from gradnoise.checks.rule import Ready, Rule, Side, parse
from gradnoise.checks.vocabulary import RATE, SAMPLES, TIME

LR = Side(1.0, "lr", RATE)
READ = {
    "lr < mean_square_lr": (LR, "<", Side(1.0, "mean_square_lr", RATE)),
    "lr<=0.5*max_lr": (LR, "<=", Side(0.5, "max_lr", RATE)),
    "lr ≤ max_lr / 4": (LR, "<=", Side(0.25, "max_lr", RATE)),
    "lr > max_lr * 1e-1": (LR, ">", Side(0.1, "max_lr", RATE)),
    "3. >= lr": (Side(3.0), ">=", LR),
    "lr > -.5": (LR, ">", Side(-0.5)),
    "2 * noise_scale >= batch_size": (
        Side(2.0, "noise_scale", SAMPLES),
        ">=",
        Side(1.0, "batch_size", SAMPLES),
    ),
    "age < 1.5 h": (Side(1.0, "age", TIME), "<", Side(5400.0, unit=TIME)),
    " not-older-than = 7d ": (Side(1.0, "age", TIME), "<=", Side(604800.0, unit=TIME)),
    "lr-below-limit": (LR, "<", Side(1.0, "mean_square_lr", RATE)),
}


@pytest.mark.parametrize("text", READ)
def test_a_comparison_is_read(text: str) -> None:
    assert parse(text) == Rule(text, *READ[text])


@pytest.mark.parametrize(
    ("text", "kind", "names"),
    [
        ("resolved", "resolved", ()),
        ("resolved=sharpness, loss", "resolved", ("sharpness", "loss")),
        ("settled", "settled", ()),
    ],
)
def test_a_ready_made_rule_is_read(text: str, kind: str, names: tuple[str, ...]) -> None:
    assert parse(text) == Ready(text, kind, names)


REFUSED = {
    "": "a rule is",
    "   ": "a rule is",
    "resolve": "'resolve' is not known; did you mean resolved",
    "lr": "'lr' is not known.* There are resolved, settled",
    "lr mean_square_lr": "no comparison",
    "lr == 0.1": "no comparison",
    "lr < 0.1 < 2": "more than one comparison",
    "lr <": "'nothing' is neither a number nor a quantity",
    "lr < mean_sqare_lr": "did you mean mean_square_lr.* There are loss, grad_sq_norm",
    "lr < something_quite_else": r"'something_quite_else' is not known\. There are",
    "lr < 2 max_lr": r"put \* between a number and a name",
    "lr < 0 * max_lr": "a factor must be a positive number",
    "lr < max_lr / 0": "a factor must be a positive number",
    "lr < max_lr + 1": r"'max_lr \+ 1' is neither a number nor a quantity",
    "lr < exp(1)": r"'exp \( 1 \)' is neither",
    "1 < 2": "names no quantity",
    "lr < noise_scale": "lr is in parameter²/loss and noise_scale in samples",
    "age < 7": "age needs a unit of time, such as 7 days",
    "age < 7 fortnights": "'fortnights' is no unit of time",
    "lr < 7 days": "compares different units: lr is in parameter²/loss and right in time",
    "not-older-than": "say how old it may be, such as not-older-than=7d",
    "settled=now": "settled takes nothing after it",
    "resolved=flatness": "'flatness' is not known",
    "__import__('os') < 1": "is neither a number nor a quantity",
}


@pytest.mark.parametrize("text", REFUSED)
def test_another_form_is_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(gn.ArgumentError, match=REFUSED[text]):
        parse(text)


def test_a_rule_that_is_no_text_is_refused() -> None:
    with pytest.raises(gn.ArgumentError, match=r"a rule is a text such as .*; got 3"):
        parse(3)  # type: ignore[arg-type]
