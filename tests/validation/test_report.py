"""`gradnoise validate`: all checks hold, and a wrong estimator turns it red."""

from __future__ import annotations

from dataclasses import replace

import pytest

import gradnoise as gn
from gradnoise.cli import main
from gradnoise.validation import report
from gradnoise.validation.check import exact, statistical
from gradnoise.validation.report import table, validate

ABOUT = gn.Estimate(2.0, 1.0, 3.0, 0.95, 0.5, 10)


@pytest.mark.parametrize("group", report.GROUPS)
def test_every_check_of_another_seed_holds(group: str) -> None:
    checks = list(report.GROUPS[group](11))
    assert len(checks) >= 2
    assert [check for check in checks if not check.holds] == []


@pytest.mark.parametrize(("truth", "holds"), [(1.0, True), (0.99, False), (3.01, False)])
def test_an_interval_has_to_hold_the_truth(truth: float, holds: bool) -> None:
    check = statistical("T0", "x", truth, ABOUT)
    assert check.holds == holds
    assert check.z == pytest.approx((2.0 - truth) / 0.5)


def test_exact_numbers_have_to_agree() -> None:
    assert exact("T0", "x", 1.0, 1.0 + 1e-7).holds
    assert not exact("T0", "x", 1.0, 1.0 + 1e-5).holds
    assert statistical("T0", "x", 2.0, replace(ABOUT, low=2.0, high=2.0, stderr=0.0)).holds
    assert not statistical("T0", "x", 2.1, replace(ABOUT, low=2.0, high=2.0, stderr=0.0)).holds


def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "GROUPS", {"limits": report.GROUPS["limits"]})


def test_the_command_prints_every_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few(monkeypatch)
    assert main(["validate", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "15 checks, 0 failed" in printed
    assert "full-batch limit, nesterov 0.9" in printed


def test_a_wrong_formula_fails_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few(monkeypatch)
    monkeypatch.setattr("gradnoise.validation.training.stable_lr", lambda *_: 0.5)
    assert main(["validate", "--seed", "3", "--quiet"]) == 1
    printed = capsys.readouterr().out
    assert "4 failed" in printed
    assert "FAILS" in printed


def test_a_biased_estimator_fails_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are half as long again."""
    real = report.arrays.noise_scale_from_gradients

    def biased(rows, **options):
        return real(1.5 * rows, **options)

    monkeypatch.setattr("gradnoise.validation.arrays.noise_scale_from_gradients", biased)
    checks = list(report.arrays.gradients(0))
    assert {check.quantity for check in checks if not check.holds} >= {
        "trΣ from rows",
        "|G|² from rows",
    }


def test_the_table_says_when_there_is_only_a_bound() -> None:
    bound = gn.Estimate(
        float("nan"), 3.0, float("inf"), 0.95, float("nan"), 10, gn.Status.SIGNAL_BELOW_NOISE
    )
    text = table([statistical("T0", "x", 4.0, bound)], 0.0)
    assert "bound only" in text
    assert "1 checks, 0 failed" in text


def test_a_progress_bar_is_told() -> None:
    seen: list[str] = []

    def stage(name, total):
        seen.append(f"{name} {total}")
        return lambda steps: seen.append(str(steps))

    few_groups = dict(list(report.GROUPS.items())[6:7])
    original = report.GROUPS
    try:
        report.GROUPS = few_groups
        validate(0, stage)
    finally:
        report.GROUPS = original
    assert seen == ["validation 1", "1"]
