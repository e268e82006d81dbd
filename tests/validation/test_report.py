"""All checks: run with progress, told as a table."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest

import gradnoise as gn
from gradnoise.validation import report
from gradnoise.validation.check import statistical
from gradnoise.validation.report import table, validate


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "GROUPS", {"limits": report.GROUPS["limits"]})


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
