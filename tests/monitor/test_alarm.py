"""Lines in the log: after ten measurements in a row, and at most one in thirty minutes."""

from __future__ import annotations

import math

import pytest

from gradnoise.monitor.alarm import LONG, PAUSE, Alarm
from gradnoise.statistics.estimate import Estimate


def scale(value: float, high: float) -> Estimate:
    return Estimate(value, value / 2, high, 0.95, math.nan, 20)


def nothing() -> tuple[Estimate, float]:
    raise AssertionError("no line is due")


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_batch_above_the_noise_scale_is_told_after_ten_in_a_row(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits = Alarm(Time())
    for k in range(2 * LONG):
        high = 200.0 if k != LONG - 2 else 900.0  # the ninth interval reaches beyond the batch
        limits.turn(high < 512, None, math.nan, lambda: (scale(128.0, 200.0), 512.0))
        assert len(caplog.records) == (k >= 2 * LONG - 2)
    (record,) = caplog.records
    assert record.name == "gradnoise"
    assert "B = 512 has been above B_simple = 128 [64.0, 200] for 10" in record.message
    assert "1/(1 + B_simple/B) = 80% of" in record.message


def test_where_the_noise_has_only_a_bound_the_line_has_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits = Alarm(Time())
    for _ in range(LONG):
        limits.turn(True, None, math.nan, lambda: (scale(math.nan, 128.0), 512.0))
    (record,) = caplog.records
    assert "1/(1 + B_simple/B) = 80% of" in record.message


def test_a_rate_above_its_limit_is_told_after_ten_measurements_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits = Alarm(Time())
    for k in range(3 * LONG):
        limit = 0.5 if k % 3 == 0 else math.nan  # λ is measured every third time
        limits.turn(False, 0.51, limit, nothing)
        assert len(caplog.records) == (k >= 3 * LONG - 3)
    assert "the learning rate 0.510 has been above 0.500 for 10" in caplog.records[0].message
    below = Alarm(Time())
    for _ in range(2 * LONG):
        below.turn(False, 0.49, 0.5, nothing)
    assert len(caplog.records) == 1


def test_at_most_one_line_in_thirty_minutes(caplog: pytest.LogCaptureFixture) -> None:
    clock = Time()
    limits = Alarm(clock)
    for k in range(5 * LONG):
        clock.now = k * PAUSE / (2 * LONG)
        limits.turn(True, 1.0, 0.5, lambda: (scale(1.0, 2.0), 512.0))
    told = [record.message[:22] for record in caplog.records]
    assert told == ["gradnoise: B = 512 has", "gradnoise: the learnin", "gradnoise: B = 512 has"]
