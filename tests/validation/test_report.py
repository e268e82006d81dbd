"""`gradnoise validate`: it prints every check, and a wrong formula turns it red."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest

import gradnoise as gn
from gradnoise.cli import main
from gradnoise.validation import report
from gradnoise.validation.check import statistical
from gradnoise.validation.report import table, validate


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "GROUPS", {"limits": report.GROUPS["limits"]})


def test_the_command_prints_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "15 checks, 0 failed" in printed
    assert "full-batch limit, nesterov 0.9" in printed


def test_a_wrong_formula_fails_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gradnoise.validation.training.stable_lr", lambda *_: 0.5)
    assert main(["validate", "--seed", "3", "--quiet"]) == 1
    printed = capsys.readouterr().out
    assert "4 failed" in printed
    assert "FAILS" in printed


def test_the_table_says_when_there_is_only_a_bound() -> None:
    bound = gn.Estimate(math.nan, 3.0, math.inf, 0.95, math.nan, 10, gn.Status.SIGNAL_BELOW_NOISE)
    text = table([statistical("toy", "x", 4.0, bound)], time.perf_counter())
    assert "bound only" in text
    assert "1 checks, 0 failed, 0 s" in text


def test_progress_is_reported_after_every_group() -> None:
    seen: list[str] = []

    def start(name: str, total: int | None) -> Callable[[int], None]:
        seen.append(f"{name} {total}")
        return lambda steps: seen.append(str(steps))

    validate(0, start)
    assert seen == ["validation 1", "1"]
